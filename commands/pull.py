"""`agnet pull`: copy a network from the Hugging Face hub into the folder of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Copy a network from the Hugging Face hub into a run.")
@click.argument("name", metavar="OWNER/NAME")
@click.option("--run", type=click.Path(path_type=Path), help="Folder of the new run.  [default: runs/NAME]")
def pull(name: str, run: Path | None) -> None:
    """Copy OWNER/NAME[@REVISION] from the hub into the folder of a new run: weights, configuration, card and metrics.

    For commands that write into a run: agnet evaluate --run RUN --boxes BOXES measures it on your own images. To
    predict, no copy is needed: agnet predict --run hf://OWNER/NAME. Only safetensors and JSON are read.
    """
    from ..training.runs.hub import HubName
    from ..training.runs.hub import pull as pull_from_hub
    from .next_step import say_next

    found = HubName.parse(name)
    folder = pull_from_hub(found, run or Path("runs") / found.repository.rpartition("/")[2])
    click.echo(folder)
    say_next("predict", "--run", folder, "photo.jpg")

"""`agnet push`: write a run into a repository of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command(short_help="Write a run to the Hugging Face hub.")
@options.run_folder
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="A new repository that only its owner can see.")
@click.option(
    "--license",
    "licence",
    default="",
    metavar="ID",
    help="Licence of the weights for the model card, as the hub's identifier, such as mit or cc-by-nc-4.0.  "
    "[default: that of the repository's card, else of a pulled run, else not stated]",
)
@click.option(
    "--seen",
    is_flag=True,
    help="Also the content hashes of the training images, by which agnet evaluate refuses them as test images. Whoever "
    "has a photograph can then tell whether it was trained on.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Write even into a repository that holds something else: files of others, or a network with other classes or "
    "settings.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
def push(run: Path, name: str, private: bool, licence: str, seen: bool, force: bool, dry_run: bool) -> None:
    """Write the weights, configuration, model card and metrics of a run into OWNER/NAME[@BRANCH] of the hub.

    Repository and branch are made if they do not exist. Nothing else is written: no predictions, embeddings, pictures,
    logs or saved states, and no path of this machine. Log in first with hf auth login, or set HF_TOKEN. agnet predict
    --run hf://OWNER/NAME then works anywhere.
    """
    from ..data.text import table
    from ..training.runs.hub import PREFIX, HubName, licence_on_hub, size_text, to_push
    from ..training.runs.hub import push as push_to_hub

    to = HubName.parse(name)
    files = to_push(run, to, licence=licence, seen=seen)
    if not (licence or dry_run) and (kept := licence_on_hub(to)):
        files = to_push(run, to, licence=kept, seen=seen)
    lines = table([[file, size_text(content)] for file, content in files.items()], right=[1])
    click.echo(f"{'would write' if dry_run else 'writing'} to {to}, in one commit:", err=not dry_run)
    click.echo("\n".join(f"  {line}" for line in lines), err=not dry_run)
    if dry_run:
        return
    click.echo(push_to_hub(files, to, private=private, force=force))
    click.echo(f"next: agnet predict --run {PREFIX}{to} photo.jpg", err=True)

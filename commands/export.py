"""`agnet export`: write a network to one file that runs without agnet."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..training.export.formats import FORMATS
from . import options


@click.command(short_help="Export a run as ONNX or as a torch.export program.")
@options.run
@click.option(
    "--format",
    "format_",
    type=options.Choice(list(FORMATS)),
    default="onnx",
    show_default=True,
    help="File format: ONNX (needs the packages onnx, onnxscript and onnxruntime) or a torch.export program.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write the network to.  [default: model.onnx or model.pt2 in the folder of the run]",
)
@options.json_
@click.pass_context
def export(context: click.Context, run: Path, format_: str, output: Path | None, as_json: bool) -> None:
    """Export the best checkpoint of a run as one file that runs without agnet, for any batch size.

    The inputs are uint8 RGB images and boxes in fractions of the image (no boxes for --model plain or --no-regions).
    The metadata contains the classes and the proposal settings. The file is written only if its outputs match the
    network's.
    """
    if output is None:
        options.check_own_folder(context)
    from ..data.memory import keep_network_memory
    from ..training.export.target import check_export

    check_export(run, format_, output)
    from ..training.export.export import export_run  # PyTorch takes seconds to load

    keep_network_memory()
    exported = export_run(run, format_, output)
    if as_json:
        click.echo(json.dumps(exported.to_dict()))
        return
    found = ", ".join(f"{name} {difference:.0e}" for name, difference in exported.largest_differences.items())
    click.echo(f"largest differences from the network's own outputs: {found}", err=True)
    click.echo(exported.file)

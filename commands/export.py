"""`agnet export`: write a network to one file that runs without agnet."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..training.export.formats import FLOAT, FORMATS, PRECISIONS
from . import options
from .field_options import is_given
from .places import boxes_of, images_root
from .progress import watch

_OF_LOWER = ("boxes", "root", "split", "limit", "workers")  # options of a precision whose loss is measured


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
@click.option(
    "--precision",
    type=options.Choice(list(PRECISIONS)),
    default=FLOAT,
    show_default=True,
    help="Precision of the numbers in an ONNX file: half has half the size; int8 has its convolutions and "
    "matrix products in 8-bit integers. What they lose is measured on photographs.",
)
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes file.  [default: the one the run was trained on]")
@options.root
@click.option(
    "--split",
    type=options.Choice(["val", "test"]),
    default="val",
    show_default=True,
    help="Split that the loss of a lower precision is measured on.",
)
@click.option(
    "--limit",
    type=click.IntRange(2),
    default=1000,
    show_default=True,
    help="Largest number of images of that split, evenly spaced.",
)
@options.workers
@options.json_
@click.pass_context
def export(
    context: click.Context,
    run: Path,
    format_: str,
    output: Path | None,
    precision: str,
    boxes: Path | None,
    root: Path | None,
    split: str,
    limit: int,
    workers: int,
    as_json: bool,
) -> None:
    """Export the best checkpoint of a run as one file that runs without agnet, for any batch size.

    The inputs are uint8 RGB images and boxes in fractions of the image (no boxes for --model plain or --no-regions).
    The metadata contains the classes and the proposal settings. The file is written only if its outputs match the
    network's. A lower precision loses something: its accuracy, size and speed beside those of float are printed, and
    written beside the file as JSON.
    """
    if output is None:
        options.check_own_folder(context)
    from ..data.memory import keep_network_memory
    from ..training.export.target import check_export

    if precision == FLOAT and (idle := [name for name in _OF_LOWER if is_given(context, name)]):
        raise click.UsageError(f"--{idle[0]} changes nothing with --precision {FLOAT}; leave it out")
    check_export(run, format_, output, precision)
    if precision != FLOAT:
        _export_measured(run, precision, output, boxes, root, split, limit, workers, as_json)
        return
    from ..training.export.export import export_run  # PyTorch takes seconds to load

    keep_network_memory()
    exported = export_run(run, format_, output)
    if as_json:
        click.echo(json.dumps(exported.to_dict()))
        return
    found = ", ".join(f"{name} {difference:.0e}" for name, difference in exported.largest_differences.items())
    click.echo(f"largest differences from the network's own outputs: {found}", err=True)
    click.echo(exported.file)


def _export_measured(
    run: Path,
    precision: str,
    output: Path | None,
    boxes: Path | None,
    root: Path | None,
    split: str,
    limit: int,
    workers: int,
    as_json: bool,
) -> None:
    from ..data.memory import keep_network_memory
    from ..training.runs.folder import folder_of

    folder = folder_of(run)
    found = boxes_of([folder], boxes)[folder]
    from ..training.export.loss import loss_text  # PyTorch takes seconds to load
    from ..training.export.measured import export_measured

    keep_network_memory()
    done = export_measured(run, precision, output, found, images_root(found, root), split, limit, workers, watch)
    if as_json:
        click.echo(json.dumps(done.to_dict()))
        return
    click.echo(loss_text(done.loss, precision, split))
    click.echo(f"written: {done.file}, and {done.report}", err=True)

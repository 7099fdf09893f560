"""`agnet export-data`: images, labels, regions and predictions for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..data.exports.formats import CATEGORIES, DATA_FORMATS
from . import options
from .field_options import is_given
from .places import boxes_of, images_root
from .progress import advance, progress_bar, watch

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes
    from ..data.exports.export import ExportedData
    from ..data.exports.selection import Predictions

_NAMES_CATEGORIES = ("coco", "fiftyone")


@click.command("export-data", short_help="Export regions and predictions for other tools.")
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes file.  [default: that of --run, else boxes.h5]")
@options.root
@click.option(
    "--format",
    "format_",
    type=options.Choice(list(DATA_FORMATS)),
    required=True,
    help="Format: " + "; ".join(f"{name}, {one.what}" for name, one in DATA_FORMATS.items()) + ".",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="File or folder to write.")
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test", "query", "gallery"]),
    help="Split to export.  [default: all; with --run, test]",
)
@click.option(
    "--run",
    type=options.RunPath(reads=False),
    help="Folder of a run whose predictions of the split are exported, too.",
)
@click.option(
    "--regions",
    type=options.Choice(["all", "primary", "secondary"]),
    default="all",
    show_default=True,
    help="Regions to export: all, those around keypoints, or the boxes around pairs.",
)
@click.option(
    "--categories",
    type=options.Choice(list(CATEGORIES)),
    default="kind",
    show_default=True,
    help="Category of a region in coco and fiftyone: its kind (primary, secondary) or its slot (primary-0, ...).",
)
@click.option("--force", is_flag=True, help="Replace an existing export.")
@options.json_
@click.pass_context
def export_data(
    context: click.Context,
    boxes: Path | None,
    root: Path | None,
    format_: str,
    output: Path,
    split: str | None,
    run: Path | None,
    regions: str,
    categories: str,
    force: bool,
    as_json: bool,
) -> None:
    """Export the usable images of a boxes file, in its order, with labels, regions and a run's predictions.

    Coordinates are those of the upright photograph: read the files with the EXIF orientation applied. Images that the
    boxes file lists as unreadable are left out and counted.
    """
    import numpy as np

    from ..data.boxes.verification import look_at_images
    from ..data.exports.export import check_data_export, check_regions
    from ..data.exports.export import export_data as write
    from ..data.exports.selection import select

    if is_given(context, "categories") and format_ not in _NAMES_CATEGORIES:
        raise click.UsageError(f"--categories changes nothing in --format {format_}; leave it out")
    check_data_export(format_, output, force)
    found, split, predictions = _read(boxes, run, split)
    check_regions(format_, found)
    root = images_root(found, root)
    selection = select(found, root, split, regions, categories, predictions)
    look = look_at_images(
        found, root, np.sort(selection.images), watch=watch, say=lambda text: click.echo(text, err=True)
    )
    if error := look.error("exported images"):
        raise error
    with progress_bar("export", len(selection)) as bar:
        done = write(selection, format_, output, lambda count: advance(bar, count, {}), force=force)
    _tell(done, as_json)


def _read(boxes: Path | None, run: Path | None, split: str | None) -> tuple[Boxes, str | None, Predictions | None]:
    """The boxes file, the split, and the predictions of a run for it."""
    from ..data.boxes.reader import read_boxes

    if run is None:
        return read_boxes(boxes or Path("boxes.h5")), split, None
    from ..training.runs.folder import predictions_of, runs_of

    if len(runs_of(run)) > 1:
        raise click.UsageError(f"{run} holds several seeds; name one of their folders with --run")
    single = runs_of(run)[0]
    found = boxes_of([single], boxes)[single]
    split = split or "test"
    return found, split, _predictions(predictions_of(single, split)[single])


def _predictions(file: Path) -> Predictions:
    from ..data.errors import ConfigurationError
    from ..data.exports.selection import Predictions
    from ..training.measure.predictions import SplitPredictions, load_predictions

    loaded = load_predictions(file)
    if not isinstance(loaded, SplitPredictions):
        raise ConfigurationError(f"{file} has results of searches, not classes of images; leave out --run")
    scores = loaded.scores()
    return Predictions(loaded.names, loaded.contents, loaded.classes, scores.predicted, scores.confidence)


def _tell(done: ExportedData, as_json: bool) -> None:
    from ..data.text import counted

    if done.unreadable:
        click.echo(f"left out: {done.unreadable:,} that could not be read when regions were proposed", err=True)
    if done.turned:
        click.echo(
            f"{done.turned:,} of the {done.images:,} photographs are turned by their metadata (exif_orientation); "
            "the boxes are those of the upright photographs, so read them with the orientation applied",
            err=True,
        )
    if as_json:
        click.echo(json.dumps(done.to_dict()))
        return
    click.echo(f"{counted(done.images, 'images')}, {counted(done.regions, 'regions')}", err=True)
    click.echo(done.path)

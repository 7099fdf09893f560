"""`agnet labels`: labels that look wrong, to review."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .pictures import say_what_cannot_be_drawn
from .progress import advance, progress_bar

if TYPE_CHECKING:
    from ..data.sets.label_conflicts import Conflict
    from ..training.measure.out_of_sample import OutOfSample


@click.command(short_help="List labels that look wrong to runs not trained on them.")
@click.option(
    "--run",
    "runs",
    type=options.RunPath(reads=False),
    multiple=True,
    required=True,
    help="Folder of a run, of several seeds or of the folds of agnet train --folds; repeated for several runs.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the images.  [default: that of the first run]")
@click.option(
    "--count", type=click.IntRange(0), default=25, show_default=True, help="Number of labels to print and to draw."
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="CSV file for the list: path, given, suggested, score, ..."
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Picture FILE for the first images of the list.")
@click.option(
    "--look-alikes/--no-look-alikes",
    default=True,
    help="Search for images that look the same and have different labels, which reads every image.  [default: on]",
)
@click.option("--jobs", type=click.IntRange(1), help="Number of processes of that search.  [default: one per core]")
@options.json_
def labels(
    runs: tuple[Path, ...],
    root: Path | None,
    count: int,
    save: Path | None,
    sheet: Path | None,
    look_alikes: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """List the images that runs confidently call something else than their label, as a list to review.

    Only scores of images that a run was not trained on count: of the folds of agnet train --folds, those that each run
    left out; of other runs, validation and test, once agnet evaluate has measured them. Nothing is changed.
    """
    from ..data.drawing import check_picture_path, save_picture
    from ..data.files import check_writable, write_text
    from ..training.measure.labels import review_labels
    from ..training.measure.labels_report import labels_csv, labels_sheet, labels_text
    from ..training.measure.out_of_sample import out_of_sample

    if save is not None:
        if not save.parent.is_dir():
            raise click.UsageError(f"--save {save}: there is no folder {save.parent}")
        check_writable(save, "name another file with --save")
    if sheet is not None:
        check_picture_path(sheet)
    found = out_of_sample(runs)
    place = root or _root_of(runs[0])
    review = review_labels(found, _conflicts(found, place, jobs) if look_alikes else ())
    click.echo(json.dumps(review.to_dict()) if as_json else labels_text(review, count))
    if save is not None:
        write_text(save, labels_csv(review))
        click.echo(f"written: {save}, with all {len(review.suspects):,}", err=True)
    if sheet is not None and review.suspects and count:
        say_what_cannot_be_drawn(found.classes)
        picture, drawn = labels_sheet(review, place, count)
        click.echo(f"written: {save_picture(picture, sheet)}, with the first {drawn:,}", err=True)
    elif sheet is not None:
        click.echo(f"nothing to draw: {sheet} is not written", err=True)


def _root_of(run: Path) -> Path:
    """Folder of the images, as recorded in a run, else $AGNET_ROOT, else ./datasets."""
    from ..data.places import follow_hint
    from ..training.measure.out_of_sample import trained_in
    from ..training.runs.folder import folder_of, read_config
    from .places import root_of_environment

    first = trained_in(folder_of(run))[0][0]
    hint = read_config(first)["boxes"].get("root_relative_to_run")
    return follow_hint(hint, first) or root_of_environment() or Path("datasets")


def _conflicts(found: OutOfSample, root: Path, jobs: int | None) -> list[Conflict]:
    """Images that look the same and have different labels; none of videos, and none if the images are not there."""
    from ..data.sets.label_conflicts import label_conflicts

    if found.rows != "images":
        click.echo("videos that look alike are not searched for", err=True)
        return []
    if not (root / found.names[0]).is_file():
        click.echo(
            f"Warning: {found.names[0]} is not under {root}, so that images that look alike are not searched for; name "
            "the folder of the images with --root",
            err=True,
        )
        return []
    with progress_bar("look-alikes", len(found.names)) as bar:
        return label_conflicts(root, found.names, found.labels, jobs=jobs, progress=lambda done: advance(bar, done, {}))

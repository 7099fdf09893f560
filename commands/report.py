"""`agnet report`: one self-contained page about a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .places import boxes_of, images_root

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes

PAGE = "report.html"


@click.command(short_help="Write one page about a run, for people.")
@options.run_folder
@click.option("--against", type=click.Path(path_type=Path), help="Another run on the same images to compare with.")
@click.option(
    "--output", type=click.Path(path_type=Path), help=f"HTML file to write.  [default: {PAGE} in the folder of the run]"
)
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test", "query"]),
    help="Split that the run was evaluated on.  [default: test, or query]",
)
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes file.  [default: the one the run was trained on]")
@options.root
@click.option("--without-images", is_flag=True, help="Embed no photographs.")
def report(
    run: Path,
    against: Path | None,
    output: Path | None,
    split: str | None,
    boxes: Path | None,
    root: Path | None,
    without_images: bool,
) -> None:
    """Write one self-contained HTML page about a run, or about a run of several seeds, from the files of its folder.

    It opens by a double click, without a network or a server: result with interval, confusions, mistakes,
    explanations, confidence, training, data, settings and limits. Run agnet evaluate first; where agnet explain --split
    has not run either, the page says so.
    """
    from ..data.errors import ConfigurationError
    from ..data.files import check_writable
    from ..data.text import counted, rough_size
    from ..training.report.page import write_report
    from ..training.runs.folder import folder_of, measured_split, predictions_of, runs_of

    say = partial(click.echo, err=True)
    folder = folder_of(run)
    first = runs_of(folder)[0]
    split = split or measured_split(first)
    for measured in (folder, *([against] if against else [])):
        predictions_of(measured, split)
    target = output or folder / PAGE
    if target.is_dir() or not target.parent.is_dir():
        raise ConfigurationError(f"--output {target}: name a file in a folder that exists")
    check_writable(target, "name another file with --output")
    found = _boxes_of(first, boxes)
    if found is None:
        there = "that is not the boxes file of the run" if boxes else "the boxes file of the run is not where it was"
        say(f"Warning: {there}, so that no regions are shown; name it with --boxes")
    images = None if without_images else root or (images_root(found, root) if found else _root_of(first))
    if not without_images and (images is None or not images.is_dir()):
        say("Warning: the images are not where they were, so that none are shown; name their folder with --root")
    written = write_report(folder, target, split, boxes=found, root=images, against=against, images=not without_images)
    if written.photographs:
        say(f"it holds {counted(written.photographs, 'photographs')} of the data set; --without-images leaves them out")
    elif images is not None and images.is_dir():
        say(f"Warning: {images} has none of the photographs as they were measured; name their folder with --root")
    say(f"written: {rough_size(written.bytes)}, in one file")
    click.echo(written.file)


def _boxes_of(run: Path, given: Path | None) -> Boxes | None:
    """The boxes file of a run; None if it is neither ``given`` nor at its recorded place."""
    from ..data.places import follow_hint
    from ..training.report.facts import is_of
    from ..training.runs.folder import read_config

    config = read_config(run)
    if not given and not follow_hint(config["boxes"].get("file_relative_to_run"), run):
        return None
    found = boxes_of([run], given)[run]
    return found if is_of(found, config) else None


def _root_of(run: Path) -> Path | None:
    """The folder of the images that a run recorded; None if it is not there any more."""
    from ..data.places import follow_hint
    from ..training.runs.folder import read_config

    return follow_hint(read_config(run)["boxes"].get("root_relative_to_run"), run)

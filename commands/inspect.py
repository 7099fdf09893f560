"""`agnet inspect`: summary, pictures and verification of a boxes file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .field_options import is_given
from .pictures import say_what_cannot_be_drawn
from .places import images_root
from .progress import advance, progress_bar

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes

_SHOWN = 20  # number of changed images that are listed


@click.command(short_help="Show what a boxes file holds, and verify its images.")
@click.argument("file", metavar="[BOXES]", required=False, type=click.Path(path_type=Path))
@options.boxes
@options.root
@click.option(
    "--image", "name", help="Image to show: its path in the file, a unique ending of that path, or its row number."
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Picture FILE for the keypoints, clusters and regions of --image."
)
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Picture FILE for a contact sheet of images and their regions."
)
@click.option(
    "--count", type=click.IntRange(1, 400), default=24, show_default=True, help="Number of images on the contact sheet."
)
@click.option(
    "--verify",
    is_flag=True,
    help="Compare every image on disk with the one that regions were proposed for; the exit code is 1 if any differs.",
)
@options.json_
@click.pass_context
def inspect(
    context: click.Context,
    file: Path | None,
    boxes: Path,
    root: Path | None,
    name: str | None,
    save: Path | None,
    sheet: Path | None,
    count: int,
    verify: bool,
    as_json: bool,
) -> None:
    """Show a summary of a boxes file or of one image, draw regions, or check that the images are unchanged.

    BOXES is the boxes file; --boxes FILE names it, too.
    """
    from ..data.boxes.reader import read_boxes

    if file and is_given(context, "boxes"):
        raise click.UsageError(f"{file} and --boxes {boxes} both name a boxes file: give one of them")
    boxes, count_given = file or boxes, is_given(context, "count")
    if sum((name is not None, sheet is not None, verify)) > 1:
        raise click.UsageError("--image, --sheet and --verify exclude each other")
    if save and name is None:
        raise click.UsageError("--save draws one image: name it with --image")
    if count_given and not sheet:
        raise click.UsageError("--count needs --sheet")
    if as_json and (save or sheet):
        raise click.UsageError("--json excludes --save and --sheet")
    found = read_boxes(boxes)
    root = images_root(found, root)
    if verify:
        _verify(found, root, as_json)
    elif target := save or sheet:
        _draw(found, root, name, target, count)
    else:
        _tell(found, root, name, as_json)


def _verify(boxes: Boxes, root: Path, as_json: bool) -> None:
    from ..data.boxes.verification import UNREADABLE, changed_images
    from ..data.text import counted, printable, rows_called

    images, called = len(boxes.names), rows_called(boxes.of_clips)
    with progress_bar("verify", images) as bar:
        changed = list(changed_images(boxes, root, trust_times=False, progress=lambda done: advance(bar, done, {})))
    if as_json:
        found = [{"image": name, "difference": difference} for name, difference in changed]
        click.echo(json.dumps({"images": images, "root": str(root), "changed": found}))
        sys.exit(1 if changed else 0)
    for name, difference in changed[:_SHOWN]:
        click.echo(printable(f"{name} {difference}"))
    if len(changed) > _SHOWN:
        click.echo(f"and {len(changed) - _SHOWN:,} more")
    unreadable = sum(difference.startswith(UNREADABLE) for _, difference in changed)
    told = [f"{unreadable:,} of the {images:,} {called} under {root} cannot be read"] if unreadable else []
    if others := len(changed) - unreadable:
        elsewhere = "; if they have moved, give their folder with --root" if others == images else ""
        told.append(
            f"{others:,} of the {images:,} {called} under {root} have changed since {boxes.path} was made" + elsewhere
        )
    if told:
        raise click.ClickException(", ".join(told))
    click.echo(f"{counted(images, called)} {'is' if images == 1 else 'are'} unchanged")


def _draw(boxes: Boxes, root: Path, name: str | None, target: Path, count: int) -> None:
    import numpy as np

    from ..data.boxes.image_facts import find_image
    from ..data.boxes.verification import look_at_images
    from ..data.drawing import check_picture_path, save_picture
    from ..data.text import counted, rows_called
    from ..proposals.inspection import picture_clip, picture_image, picture_sheet, rows_of_sheet

    check_picture_path(target)
    boxes.require_regions("a picture of regions")
    rows = np.arange(len(boxes.names)) if name is None else np.array([find_image(boxes, name)])
    say_what_cannot_be_drawn([*boxes.classes, *(boxes.names[row].decode() for row in rows.tolist())])
    drawn = boxes.usable[rows_of_sheet(boxes, count)] if name is None else rows
    look = look_at_images(boxes, root, np.sort(drawn))
    if look.changed:
        click.echo(f"Warning: {look.error(f'drawn {rows_called(boxes.of_clips)}')}", err=True)
    if name is None:
        picture, failures = picture_sheet(boxes, root, count)
        warning = (
            f"{counted(len(failures), rows_called(boxes.of_clips))} can no longer be read, first {failures[0]}"
            if failures
            else ""
        )
    elif boxes.of_clips:
        picture, warning = picture_clip(boxes, find_image(boxes, name), root), ""
    else:
        picture, warning = picture_image(boxes, find_image(boxes, name), root)
    if warning:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(save_picture(picture, target))


def _tell(boxes: Boxes, root: Path, name: str | None, as_json: bool) -> None:
    from ..data.boxes.image_facts import facts_text, find_image, image_facts
    from ..data.boxes.reader import sizes_of
    from ..data.boxes.summary import summarise, summary_text
    from ..data.boxes.verification import stamps_of
    from ..data.regions import NOT_THERE

    if name is None:
        _, times = stamps_of(root, [path.decode() for path in boxes.names.tolist()])
        there = int((times != NOT_THERE).sum())
        summary = summarise(boxes, sizes_of(boxes.path), str(root), there)
        click.echo(json.dumps(summary.to_dict()) if as_json else summary_text(summary))
    else:
        facts = image_facts(boxes, find_image(boxes, name))
        click.echo(json.dumps(facts.to_dict()) if as_json else facts_text(facts))

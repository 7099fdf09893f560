"""Report of an examination, as text and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ..drawing import contact_sheet, fit_within
from ..errors import DatasetError, ImageError
from ..fonts import draw_text, shortened
from ..images import MAX_PIXELS, read_image
from ..palette import FAINT, PAPER, SMALL, TEXT
from ..text import counted, printable, rows_called, tally
from .examination import Copy, DividedGroup, Duplicates, Examination, NearDuplicate

_SHOWN = 5  # of each kind; the JSON has all
_SIDE = 220  # pixels per photograph on the sheet
_CAPTION = 60  # pixels below a photograph

Found = TypeVar("Found")


def examination_text(examination: Examination) -> str:
    """The whole report, with the first few findings of each kind."""
    counts = ", ".join(f"{count:,} {split}" for split, count in examination.counts.items())
    book = {None: "", True: ": as published", False: ": NOT AS PUBLISHED"}[examination.by_the_book]
    called = rows_called(examination.of_clips)
    kind = "persons" if "query" in examination.counts else "classes"
    found = f"{counted(examination.images, called)} of {counted(examination.classes, kind)}"
    lines = [f"{examination.title}: {found} ({counts}){book}"]
    lines += [f"    {difference}" for difference in examination.wrong]
    if examination.left_out:
        lines.append(f"left out because of their names or places: {tally(examination.left_out)}")
    lines += _section("cannot be read", examination.unreadable, lambda odd: f"{odd.image}: {odd.reason}")
    lines += _section("odd, though readable", examination.odd, lambda odd: f"{odd.image} {odd.reason}")
    groups = examination.duplicates
    across = [group for group in groups if group.across_splits]
    within = [group for group in groups if not group.across_splits]
    files = "clips" if examination.of_clips else "files"
    lines += _section(f"{files} that are in two splits or more", across, _group_text)
    lines += _section(f"{files} that are twice or more in one split", within, _group_text)
    if examination.of_clips:
        title = f"groups, of {examination.groups:,}, that are in two splits or more"
        lines += _section(title, examination.divided_groups, _divided_text) if examination.groups else []
        lines.append("clips that look alike are not searched for")
    else:
        lines += _section("look like an image of another split", examination.near_duplicates, _pair_text)
    if examination.near_duplicates:
        lines.append("    Images are compared by a hash: a few may be alike by chance. --sheet draws the first 60.")
    return "\n".join(printable(line) for line in lines)


def near_duplicate_sheet(
    examination: Examination, root: Path, max_pixels: int = MAX_PIXELS, count: int = 60
) -> tuple[np.ndarray, int]:
    """Draw the ``count`` closest near-duplicates, each beside the image it resembles.

    Returns: the sheet, uint8 RGB, and the number of pairs on it.
    Raises: `DatasetError` if there are none.
    """
    pictures = []
    for pair in examination.near_duplicates[:count]:
        try:
            pictures.append(_pair_picture(pair, root, max_pixels))
        except ImageError:  # deleted since the examination
            continue
    if not pictures:
        raise DatasetError(f"{examination.title} has no near-duplicates across splits: there is nothing to draw")
    columns = min(3, len(pictures))
    cell = 2 * _SIDE + 40, _SIDE + _CAPTION + 24
    return contact_sheet(pictures, columns, cell), len(pictures)


def _section(title: str, found: Sequence[Found], text: Callable[[Found], str]) -> list[str]:
    if not found:
        return [f"{title}: none"]
    more = [f"    and {counted(len(found) - _SHOWN, 'others')}"] if len(found) > _SHOWN else []
    return [f"{title}: {len(found):,}", *(f"    {text(one)}" for one in found[:_SHOWN]), *more]


def _group_text(group: Duplicates) -> str:
    names = [_copy_text(copy) for copy in group.copies[:3]] + (["..."] if len(group.copies) > 3 else [])
    return " = ".join(names) + ("  DIFFERENT CLASSES" if group.different_classes else "")


def _divided_text(divided: DividedGroup) -> str:
    return f"{divided.group}: {', '.join(f'{count:,} {split}' for split, count in divided.counts.items())}"


def _pair_text(pair: NearDuplicate) -> str:
    differ = "" if pair.image.class_name == pair.looks_like.class_name else ", different classes"
    return f"{_copy_text(pair.image)} ~ {_copy_text(pair.looks_like)}  ({_likeness(pair)}{differ})"


def _likeness(pair: NearDuplicate) -> str:
    return f"{pair.distance} of 63 bits differ, correlation {pair.correlation:.2f}"


def _copy_text(copy: Copy) -> str:
    return f"{copy.image} [{copy.split}, {copy.class_name}]"


def _pair_picture(pair: NearDuplicate, root: Path, max_pixels: int) -> np.ndarray:
    """Draw both images, below each its split, class and name, and below both how alike they are."""
    picture = Image.new("RGB", (2 * _SIDE + 8, _SIDE + _CAPTION), PAPER)
    for left, copy in ((0, pair.image), (_SIDE + 8, pair.looks_like)):
        tile = Image.fromarray(fit_within(read_image(root / copy.image, max_pixels), _SIDE))
        picture.paste(tile, (left + (_SIDE - tile.width) // 2, _SIDE - tile.height))
        for number, (line, colour) in enumerate(((f"{copy.split}: {copy.class_name}", TEXT), (copy.image, FAINT))):
            place = left, _SIDE + 5 + 17 * number
            draw_text(picture, place, shortened(line, SMALL, _SIDE), SMALL, colour)
    differ = "" if pair.image.class_name == pair.looks_like.class_name else ", different classes"
    draw_text(picture, (0, _SIDE + 39), f"{_likeness(pair)}{differ}", SMALL, FAINT)
    return np.asarray(picture)

"""Picture of a photograph and its nearest images, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...data.drawing import draw_frame_around, draw_mark, save_picture
from ...data.errors import ImageError
from ...data.fonts import draw_text, shortened, text_width, wrapped
from ...data.images import MAX_PIXELS, read_image
from ...data.palette import FAINT, PAPER, RIGHT, TEXT, WRONG
from ..samples.reading import Unreadable
from .annotated import new_file
from .nearest import Nearest, Neighbour, Subject, left_out_text
from .truth import TRAINED_ON

_UNKNOWN = "#8a8a8a"

_CELL_HEIGHT, _CELL_WIDTHS = 208, (116, 276)  # of a cell in pixels; minimum and maximum of its width
_PAGE_WIDTHS = (560, 1600)
_FRAME, _MARGIN, _GAP, _AFTER_QUERY = 5, 20, 22, 44
_SLIVER = 24  # minimum side of an image
_LINE = 19  # height of a line of a caption


def save_nearest(folder: Path, nearest: Nearest, run: str = "", max_pixels: int = MAX_PIXELS) -> Path | Unreadable:
    """Write the picture of a photograph and its nearest images to a new file in a folder.

    Returns: the file; `Unreadable` if an image no longer exists.
    """
    try:
        names = [nearest.name, *(one.name for one in nearest.neighbours)]
        images = [_thumbnail(read_image(name, max_pixels)) for name in names]
    except ImageError as error:
        return Unreadable(nearest.name, str(error))
    return save_picture(draw_nearest(images, nearest, run), new_file(folder, Path(nearest.name), ".png"))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce a photograph to what a cell can show: dozens are held at once."""
    picture = Image.fromarray(image)
    picture.thumbnail((2 * _CELL_WIDTHS[1], 2 * _CELL_HEIGHT), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def draw_nearest(images: list[np.ndarray], nearest: Nearest, run: str = "") -> np.ndarray:
    """Draw a photograph and, to its right, its nearest images with rank, similarity and whether they are right.

    Args:
        images: The photograph and its neighbours in their order, uint8 RGB.
        nearest: What was found.
        run: Line of text that names the run.

    Returns: uint8 RGB.
    """
    tiles = _fitted(images)
    cell_w = max(max(tile.width for tile in tiles), _CELL_WIDTHS[0])
    cell_h = max(tile.height for tile in tiles)
    step_x, left = cell_w + _GAP, _MARGIN + _FRAME + cell_w + _AFTER_QUERY
    most = max(1, (_PAGE_WIDTHS[1] - left - _MARGIN + _GAP) // step_x)
    rows = max(1, -(-(len(tiles) - 1) // most))
    columns = max(1, -(-(len(tiles) - 1) // rows))  # rows of almost equal lengths
    width = max(_PAGE_WIDTHS[0], left + columns * step_x - _GAP + _FRAME + _MARGIN)
    head, foot = _head(nearest, run, width - 2 * _MARGIN), _foot(nearest, width - 2 * _MARGIN)
    top = _MARGIN + head.height + 14 + _FRAME
    subjects = any(one.subject for one in nearest.neighbours)
    step_y = cell_h + 2 * _FRAME + (3 if subjects else 2) * _LINE + 20
    query = _query_lines(nearest, cell_w)
    height = max(rows * step_y, cell_h + _LINE * len(query) + 26)
    page = Image.new("RGB", (width, top + height + foot.height + _MARGIN), PAPER)
    page.paste(head, (_MARGIN, _MARGIN))
    page.paste(foot, (_MARGIN, page.height - foot.height - _MARGIN))
    place = _paste(page, tiles[0], (_MARGIN + _FRAME, top), (cell_w, cell_h))
    draw_frame_around(page, place, TEXT, 1)
    for number, line in enumerate(query):
        draw_text(page, (_MARGIN + _FRAME, top + cell_h + _FRAME + 6 + number * _LINE), line, 13, FAINT)
    for number, (tile, one) in enumerate(zip(tiles[1:], nearest.neighbours, strict=True)):
        at = left + number % columns * step_x, top + number // columns * step_y
        place = _paste(page, tile, at, (cell_w, cell_h))
        colour = _UNKNOWN if one.right is None else RIGHT if one.right else WRONG
        draw_frame_around(page, place, colour, 2 if one.right is None else _FRAME, dashed=one.right is False)
        _caption(page, (at[0], at[1] + cell_h + _FRAME + 6), cell_w, number + 1, one)
    if not nearest.neighbours:
        draw_text(page, (left, top + 20), "no image is left to compare with", 15, FAINT)
    return np.asarray(page)


def _fitted(images: list[np.ndarray]) -> list[Image.Image]:
    """Resize the images to cells as wide as most of them need; tiny images show their pixels."""
    shapes = np.array([image.shape[:2] for image in images])
    room = float(np.clip(_CELL_HEIGHT * np.median(shapes[:, 1] / shapes[:, 0]), *_CELL_WIDTHS))
    tiles = []
    for image in images:
        height, width = image.shape[:2]
        scale = min(room / width, _CELL_HEIGHT / height)
        size = max(_SLIVER, round(width * scale)), max(_SLIVER, round(height * scale))
        method = Image.Resampling.NEAREST if scale > 6 else Image.Resampling.LANCZOS
        tiles.append(Image.fromarray(image).resize(size, method))
    return tiles


def _paste(
    page: Image.Image, tile: Image.Image, at_xy: tuple[int, int], cell_wh: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Paste an image into its cell, at the left and low, above its caption. Returns its box."""
    x, y = at_xy[0], at_xy[1] + cell_wh[1] - tile.height
    page.paste(tile, (x, y))
    return x, y, x + tile.width, y + tile.height


def _caption(page: Image.Image, at_xy: tuple[int, int], width: int, rank: int, one: Neighbour) -> None:
    x, y = at_xy
    draw_text(page, (x, y), f"{rank}", 15, TEXT)
    draw_text(page, (x + 12 + text_width(f"{rank}", 15), y), f"{one.similarity:.3f}", 15, FAINT)
    if one.right is not None:
        draw_mark(page, (x + width - 18, y), one.right, RIGHT if one.right else WRONG)
    lines = [*([] if one.subject is None else [one.subject.text]), _short_name(one.name, one.subject, 12, width)]
    for number, line in enumerate(lines, 1):
        draw_text(page, (x, y + 3 + number * _LINE), shortened(line, 12, width), 12, FAINT)


def _short_name(name: str, subject: Subject | None, size: int, width: float) -> str:
    """The end of a path that tells it from others: its name, after its folder if that fits and says something new."""
    path = Path(name)
    both = "/".join(path.parts[-2:])
    said = subject is not None and subject.name == path.parent.name
    return both if not said and text_width(both, size) <= width else shortened(path.name, size, width)


def _query_lines(nearest: Nearest, width: int) -> list[str]:
    subject = nearest.subject
    told = ["searched for", _short_name(nearest.name, subject, 13, width)]
    if subject is not None:
        who = f"person {subject.text}" if subject.is_person else subject.text
        told += [*wrapped(who, 13, width, 2), *wrapped(subject.part, 13, width, 3)]
    return told


def _head(nearest: Nearest, run: str, width: int) -> Image.Image:
    """Draw the photograph's name, and how the images were found."""
    count = len(nearest.neighbours)
    first = f"the {count:,} nearest" if count != 1 else "the nearest"
    what = f"{first} of {nearest.ranked:,} images by cosine similarity{', ' if run else ''}{run}"
    lines = wrapped(what, 14, width, 3)
    page = Image.new("RGB", (width, 30 + _LINE * len(lines)), PAPER)
    draw_text(page, (0, 0), shortened(nearest.name, 20, width), 20, TEXT)
    for number, line in enumerate(lines):
        draw_text(page, (0, 30 + number * _LINE), line, 14, FAINT)
    return page


def _foot(nearest: Nearest, width: int) -> Image.Image:
    """Draw what the frames mean, and what was left out."""
    told = left_out_text(nearest.left_out)
    said = f"Left out: {told}. " if told else ""
    if seen := sum(one.subject is not None and one.subject.part == TRAINED_ON for one in nearest.neighbours):
        said += f"The run was trained on {seen:,} of the images shown."
    lines = wrapped(said, 13, width, 3)
    what = "person" if nearest.subject and nearest.subject.is_person else "class"
    marked = any(one.right is not None for one in nearest.neighbours)
    page = Image.new("RGB", (width, (26 if marked else 0) + _LINE * len(lines)), PAPER)
    x = 0.0
    for right, text in ((True, f"the same {what}"), (False, f"another {what}")) if marked else ():
        colour = RIGHT if right else WRONG
        draw_frame_around(page, (round(x) + 2, 5, round(x) + 30, 17), colour, 2, dashed=not right)
        draw_mark(page, (x + 36, 2), right, colour)
        draw_text(page, (x + 60, 2), text, 13, FAINT)
        x += 60 + text_width(text, 13) + 30
    for number, line in enumerate(lines):
        draw_text(page, (0, (26 if marked else 0) + number * _LINE), line, 13, FAINT)
    return page

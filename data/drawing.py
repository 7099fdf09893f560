"""Pictures of regions drawn over photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .errors import ConfigurationError
from .files import atomic_file
from .fonts import digit_height, draw_text, shortened, text_width
from .palette import BODY, FAINT, PAPER, TEXT
from .regions import Layout

# Eight colours that stay distinct over photographs and for most colour-blind viewers; further slots repeat them.
SLOT_COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45")


Point = tuple[float, float]


def fit_within(image: np.ndarray, side: int) -> np.ndarray:
    """Scale a uint8 RGB image so that its longer side is ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def draw_boxes(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[str] = SLOT_COLOURS,
    width: int = 2,
    text_size: int | None = None,
    dashed: Sequence[bool] = (),
) -> np.ndarray:
    """Draw boxes over a copy of an image, each labelled at its upper left corner or where its tag covers no other tag.

    Args:
        image: uint8 RGB array ``(H, W, 3)``.
        boxes_xyxy: Boxes ``(n, 4)`` in pixels of ``image``.
        labels: n texts; an empty one draws no tag.
        colours: Outline colours, repeated as needed.
        width: Line width in pixels.
        text_size: Label size in pixels; by default in proportion to the image.
        dashed: Whether each outline is dashed; by default none is.
    """
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    text_size = text_size or max(10, round(max(image.shape[:2]) / 36))
    colours = [colours[number % len(colours)] for number in range(len(labels))]
    # Round here: Pillow truncates to whole pixels, which moves a box to the left and up.
    broken = dashed or [False] * len(labels)
    for (x0, y0, x1, y1), colour, dash in zip(boxes_xyxy.round().tolist(), colours, broken, strict=True):
        if dash:
            inner = int(x0) + width, int(y0) + width, int(max(x0 + 2 * width, x1)) - width, int(y1) - width
            draw_frame_around(picture, (*inner[:3], max(inner[1], inner[3])), colour, width, dashed=True)
        else:
            pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=width)
    # Tags are drawn after all boxes, so that no line crosses them.
    tagged = [number for number, label in enumerate(labels) if label]
    sizes = [tag_size(labels[number], text_size) for number in tagged]
    spots = [spots_in_box(box, size) for box, size in zip(boxes_xyxy[tagged].tolist(), sizes, strict=True)]
    for number, place in zip(tagged, place_tags(spots, sizes, picture.size), strict=True):
        draw_tag(picture, place, [(labels[number], colours[number])], text_size)
    return np.asarray(picture)


def tag_size(text: str, text_size: int) -> Point:
    """Width and height of a tag in pixels. The width depends on the text; the height does not."""
    digit, margin = digit_height(text_size), _tag_margin(text_size)
    return math.ceil(text_width(text, text_size)) + 2 * margin, digit + 2 * margin


def draw_tag(picture: Image.Image, place_xy: Point, parts: Sequence[tuple[str, str]], text_size: int) -> None:
    """Draw a filled rectangle of size `tag_size` at ``place_xy`` with ``parts``, (text, background), side by side."""
    pen, (x, y), margin = ImageDraw.Draw(picture), map(round, place_xy), _tag_margin(text_size)
    width, height = tag_size("".join(text for text, _ in parts), text_size)
    at = x + margin
    for number, (text, colour) in enumerate(parts):
        left = x if number == 0 else at
        pen.rectangle((left, y, x + width - 1, y + height - 1), fill=colour)
        draw_text(picture, (at, y + height - margin), text, text_size, readable_on(colour), "ls")
        at += round(text_width(text, text_size))


def _tag_margin(text_size: int) -> int:
    return max(2, round(digit_height(text_size) * 0.35))


def spots_in_box(box_xyxy: Sequence[float], size_wh: Point) -> list[Point]:
    """Candidate positions in a box for a tag of ``size_wh``, best first: the corners, then the middles of the sides."""
    x0, y0, x1, y1 = box_xyxy
    right, low = max(x0, x1 - size_wh[0]), max(y0, y1 - size_wh[1])
    middle, centre = (x0 + right) / 2, (y0 + low) / 2
    return [(x0, y0), (right, y0), (x0, low), (right, low), (middle, y0), (x0, centre), (right, centre), (middle, low)]


def place_tags(
    spots_xy: Sequence[Sequence[Point]], sizes_wh: Sequence[Point], frame_wh: Point
) -> list[tuple[float, float]]:
    """Choose a position (upper left corner) for each tag: its first candidate that overlaps no earlier tag.

    If all candidates overlap, the one with the least overlap is used. Every tag is moved into the frame.
    """
    taken = np.zeros((0, 4))
    places = []
    for spots, size in zip(spots_xy, sizes_wh, strict=True):
        low = np.maximum(np.minimum(np.array(spots, dtype=float), np.subtract(frame_wh, size)), 0)
        boxes = np.hstack([low, low + size])[:, None]
        overlap = np.minimum(boxes[..., 2:], taken[:, 2:]) - np.maximum(boxes[..., :2], taken[:, :2])
        hidden = overlap.clip(0).prod(axis=2).sum(axis=1)
        best = int(hidden.argmin())
        taken = np.vstack([taken, boxes[best]])
        places.append((float(low[best, 0]), float(low[best, 1])))
    return places


def draw_mark(page: Image.Image, place_xy: Point, right: bool, fill: str) -> None:
    """Draw a tick or a cross, 18 pixels wide and high, which needs no colour and no font."""
    pen, (x, y) = ImageDraw.Draw(page), place_xy
    if right:
        pen.line([(x + 2, y + 9), (x + 7, y + 15), (x + 17, y + 3)], fill=fill, width=3, joint="curve")
    else:
        pen.line([(x + 3, y + 3), (x + 16, y + 16)], fill=fill, width=3)
        pen.line([(x + 3, y + 16), (x + 16, y + 3)], fill=fill, width=3)


def draw_frame_around(
    page: Image.Image, box_xyxy: tuple[int, int, int, int], colour: str, width: int, dashed: bool = False
) -> None:
    """Draw a frame of ``width`` pixels around a box, solid or dashed. It covers nothing of the box."""
    x0, y0, x1, y1 = box_xyxy
    pen = ImageDraw.Draw(page)
    # Four bars that share the corners: two as long as the frame is wide, two as long as it is high.
    for left, top, right, low in (
        (x0 - width, y0 - width, x1 + width, y0),
        (x0 - width, y1, x1 + width, y1 + width),
        (x0 - width, y0 - width, x0, y1 + width),
        (x1, y0 - width, x1 + width, y1 + width),
    ):
        length = max(right - left, low - top)
        for start, end in _dashes(length, 3 * width) if dashed else [(0, length)]:
            bar = (
                (left + start, top, left + end, low)
                if right - left == length
                else (left, top + start, right, top + end)
            )
            pen.rectangle((bar[0], bar[1], bar[2] - 1, bar[3] - 1), fill=colour)


def _dashes(length: int, dash: int) -> list[tuple[int, int]]:
    """Starts and ends of dashes of equal length, with gaps of the same length, from one end to the other."""
    count = max(1, round(length / dash / 2))
    edges = np.linspace(0, length, 2 * count).round().astype(int).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def draw_regions(
    image: np.ndarray, primary_xyxy: np.ndarray, layout: Layout, side: int, valid: np.ndarray | None = None
) -> np.ndarray:
    """Draw the primary regions, numbered by slot, and the first secondary region in white.

    ``primary_xyxy`` is in pixels of ``image``; the longer side of the result is ``side``. Boxes that are not ``valid``,
    bool ``(κ,)``, are dashed: they were filled in where a frame of a clip has no keypoints.
    """
    picture = fit_within(image, side)
    scale = picture.shape[1] / image.shape[1], picture.shape[0] / image.shape[0]
    boxes = primary_xyxy * (scale * 2)
    around = layout.secondary(boxes)[:1]
    picture = draw_boxes(picture, around, [""] * len(around), colours=["#ffffff"], width=1)
    dashed = [] if valid is None else (~valid.astype(bool)).tolist()
    return draw_boxes(picture, boxes, [str(slot) for slot in range(len(boxes))], dashed=dashed)


def contact_sheet(pictures: Sequence[np.ndarray], columns: int, cell_wh: tuple[int, int]) -> np.ndarray:
    """Arrange pictures in a grid, each fitted into its cell without distortion, as uint8 RGB."""
    width, height = cell_wh
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
    for number, picture in enumerate(pictures):
        tile = Image.fromarray(picture)
        tile.thumbnail((width - 6, height - 6))
        left = number % columns * width + (width - tile.width) // 2
        top = number // columns * height + (height - tile.height) // 2
        sheet.paste(tile, (left, top))
    return np.asarray(sheet)


def captioned_sheet(tiles: Sequence[tuple[np.ndarray, str]], columns: int, legend: str) -> np.ndarray:
    """Arrange pictures in a grid of 4:3 cells, each above its caption, with a legend at the bottom, as uint8 RGB."""
    (width, height), strip, size = (300, 225), 24, BODY
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + 6), rows * (height + strip) + strip + 6), PAPER)
    for number, (picture, caption) in enumerate(tiles):
        left, top = number % columns * (width + 6) + 3, number // columns * (height + strip) + 3
        tile = Image.fromarray(picture)
        tile.thumbnail((width, height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (left + (width - tile.width) // 2, top + (height - tile.height) // 2))
        draw_text(sheet, (left, top + height + 17), shortened(caption, size, width), size, TEXT, "ls")
    foot = sheet.height - 8
    draw_text(sheet, (3, foot), shortened(legend, size, sheet.width - 6), size, FAINT, "ls")
    return np.asarray(sheet)


def readable_on(colour: str) -> str:
    """Black or white, whichever is readable on ``colour``, given as text such as ``#e6194b``."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def check_picture_path(path: Path) -> None:
    """Raise `ConfigurationError` if no picture can be written to ``path``. For use before any work starts."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; name a picture in it, such as {path / 'picture.png'}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {path.parent}")
    _format_of(path)


def save_picture(picture: np.ndarray, path: Path) -> Path:
    """Write a uint8 RGB picture in the format given by the suffix of ``path``, replacing an existing file.

    Returns: ``path``.
    Raises: `ConfigurationError` if Pillow cannot write such a file.
    """
    check_picture_path(path)
    format_ = _format_of(path)
    options = {"quality": 92} if format_ in ("JPEG", "WEBP") else {}
    with atomic_file(path) as unfinished:
        try:
            Image.fromarray(picture).save(unfinished, format=format_, **options)
        # An encoder reports what its format cannot hold with one of these errors, without an errno.
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ConfigurationError(f"{path}: cannot be written as {format_} ({error}); name a .png") from None
    return path


def _format_of(path: Path) -> str:
    format_ = Image.registered_extensions().get(path.suffix.lower(), "")
    if format_ not in Image.SAVE:
        raise ConfigurationError(f"{path}: Pillow writes no pictures with the suffix {path.suffix!r}; name a .png")
    return format_

"""Pictures for people: regions drawn over photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .regions import secondary_boxes

# Eight colours that stay apart over photographs and for most colour-blind eyes; further slots repeat them.
SLOT_COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45")


def fit_within(image: np.ndarray, side: int) -> np.ndarray:
    """The image scaled so that its longer side is ``side`` pixels. uint8 RGB in, uint8 RGB out."""
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
) -> np.ndarray:
    """Boxes over a copy of the image, each with its label at its upper left corner.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        boxes_xyxy: ``(n, 4)`` in pixels of ``image``.
        labels: n texts; an empty one draws no tag.
        colours: cycled through.
        width: of the lines, in pixels.
    """
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(10, round(max(image.shape[:2]) / 36)))
    tags = []
    for number, (box, label) in enumerate(zip(boxes_xyxy.tolist(), labels, strict=True)):
        x0, y0, x1, y1 = box
        colour = colours[number % len(colours)]
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=width)
        tags.append((x0, y0, label, colour))
    for x0, y0, label, colour in tags:  # over all boxes, so that none is crossed out
        if label:
            _, _, right, bottom = pen.textbbox((x0 + 3, y0 + 1), label, font=font)
            pen.rectangle((x0, y0, right + 3, bottom + 2), fill=colour)
            pen.text((x0 + 3, y0 + 1), label, fill=_readable_on(colour), font=font)
    return np.asarray(picture)


def draw_regions(image: np.ndarray, primary_xyxy: np.ndarray, side: int) -> np.ndarray:
    """The primary regions numbered by slot, and in white the secondary region around the first two.

    ``primary_xyxy`` is in pixels of ``image``; the picture's longer side is ``side``.
    """
    picture = fit_within(image, side)
    scale = picture.shape[1] / image.shape[1], picture.shape[0] / image.shape[0]
    boxes = primary_xyxy * (scale * 2)
    around = secondary_boxes(boxes)[:1]
    picture = draw_boxes(picture, around, [""] * len(around), colours=["#ffffff"], width=1)
    return draw_boxes(picture, boxes, [str(slot) for slot in range(len(boxes))])


def contact_sheet(pictures: Sequence[np.ndarray], columns: int, cell_wh: tuple[int, int]) -> np.ndarray:
    """Pictures in a grid, each fitted into its cell without distortion, uint8 RGB."""
    width, height = cell_wh
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "#202020")
    for number, picture in enumerate(pictures):
        tile = Image.fromarray(picture)
        tile.thumbnail((width - 6, height - 6))
        left = number % columns * width + (width - tile.width) // 2
        top = number // columns * height + (height - tile.height) // 2
        sheet.paste(tile, (left, top))
    return np.asarray(sheet)


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"

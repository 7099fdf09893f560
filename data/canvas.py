"""A picture of texts, shapes and photographs that is drawn once and given as pixels or as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .drawing import save_picture
from .files import write_text
from .fonts import ascent, draw_text, text_width
from .palette import PAPER
from .text import printable

Point = tuple[float, float]

_ANCHORS = {"l": "start", "m": "middle", "r": "end"}
_SMOOTH = 3  # lines are drawn this many times as large and made smaller: Pillow's are jagged


class Canvas:
    """A picture, drawn from back to front; coordinates are in pixels, x before y.

    Args:
        width: Width in pixels.
        height: Height in pixels; it may be set later, when all is drawn.
    """

    def __init__(self, width: int, height: int = 0) -> None:
        self.width, self.height = width, height
        self._marks: list[tuple[Callable[[Image.Image], None], Callable[[], str]]] = []  # as pixels, and as SVG

    def text(self, place_xy: Point, text: str, size: int, colour: str, anchor: str = "la") -> None:
        """Draw one line of text; arguments as of `draw_text`."""

        def svg() -> str:
            x, base = place_xy[0], place_xy[1] + (ascent(size) if anchor[1] == "a" else 0)
            place = f'x="{_number(x)}" y="{_number(base)}" text-anchor="{_ANCHORS[anchor[0]]}" font-size="{size}"'
            # Browsers have other fonts: texts keep the width that they were fitted by.
            width = f'textLength="{_number(text_width(text, size))}" lengthAdjust="spacingAndGlyphs"'
            return f'<text {place} {width} fill="{colour}">{escape(printable(text))}</text>'

        if text:
            self._add(lambda page: draw_text(page, place_xy, text, size, colour, anchor), svg)

    def rectangle(self, box_xyxy: tuple[float, float, float, float], colour: str) -> None:
        """Fill a box; x1 and y1 are exclusive. An empty box draws nothing."""
        x0, y0, x1, y1 = map(round, box_xyxy)
        if x1 > x0 and y1 > y0:
            self._add(
                lambda page: ImageDraw.Draw(page).rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour),
                lambda: f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}" fill="{colour}"/>',
            )

    def polygon(self, points_xy: Sequence[Point], colour: str) -> None:
        """Fill a polygon."""
        self._add(
            lambda page: _smoothly(page, points_xy, lambda pen, points: pen.polygon(points, fill=255), 0, colour),
            lambda: f'<polygon points="{_points(points_xy)}" fill="{colour}"/>',
        )

    def line(self, points_xy: Sequence[Point], colour: str, width: int = 1) -> None:
        """Draw a line through points."""

        def stroke(pen: ImageDraw.ImageDraw, points: list[Point]) -> None:
            pen.line(points, fill=255, width=_SMOOTH * width, joint="curve")

        self._add(
            lambda page: _smoothly(page, points_xy, stroke, width, colour),
            lambda: f'<polyline points="{_points(points_xy)}" fill="none" stroke="{colour}" stroke-width="{width}"/>',
        )

    def photograph(self, place_xy: tuple[int, int], pixels: np.ndarray) -> None:
        """Place pixels, uint8 RGB ``(H, W, 3)``."""
        (x, y), (height, width) = place_xy, pixels.shape[:2]
        self._add(
            lambda page: page.paste(Image.fromarray(pixels), place_xy),
            lambda: f'<image x="{x}" y="{y}" width="{width}" height="{height}" href="{_data(pixels)}"/>',
        )

    def pixels(self) -> np.ndarray:
        """Return the picture as uint8 RGB ``(H, W, 3)``."""
        page = Image.new("RGB", (self.width, self.height), PAPER)
        for draw, _ in self._marks:
            draw(page)
        return np.asarray(page)

    def svg(self) -> str:
        """Return the picture as SVG: texts as texts, shapes as shapes, photographs embedded as PNG."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
        size = f'width="{self.width}" height="{self.height}" font-family="sans-serif">'
        paper = f'<rect width="{self.width}" height="{self.height}" fill="{PAPER}"/>'
        return "\n".join([head + size, paper, *(svg() for _, svg in self._marks), "</svg>"]) + "\n"

    def save(self, path: Path) -> Path:
        """Write the picture to ``path``, a .png, and to the .svg beside it, replacing existing files. Returns: path."""
        write_text(path.with_suffix(".svg"), self.svg())
        return save_picture(self.pixels(), path)

    def _add(self, draw: Callable[[Image.Image], None], svg: Callable[[], str]) -> None:
        self._marks.append((draw, svg))


def _smoothly(
    page: Image.Image,
    points_xy: Sequence[Point],
    draw: Callable[[ImageDraw.ImageDraw, list[Point]], None],
    margin: int,
    colour: str,
) -> None:
    """Let ``draw`` draw in white on black, enlarged, and lay the colour on the page where it did."""
    points = np.array(points_xy, dtype=float)
    low = np.floor(points.min(axis=0)).astype(int) - margin - 1
    wide, high = (np.ceil(points.max(axis=0)).astype(int) + margin + 2 - low).tolist()
    mask = Image.new("L", (_SMOOTH * wide, _SMOOTH * high))
    draw(ImageDraw.Draw(mask), [(x, y) for x, y in ((points - low) * _SMOOTH).tolist()])
    page.paste(Image.new("RGB", (wide, high), colour), tuple(low.tolist()), mask.resize((wide, high)))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _points(points_xy: Sequence[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points_xy)


def _data(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"

"""Rows of photographs drawn as a figure of a paper, 7.2 inches wide, with letters of 7 and 7.5 points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...data.palette import FAINT, RIGHT, TEXT, WRONG
from ...data.picture_rows import PictureRows, Row, Tile
from .plot_texts import inches_of, line
from .plots import plot, save_plot

_WIDTH, _WIDEST, _WIDEST_LABEL = 7.2, 1.8, 1.2  # inches, of the figure, of a picture and of a text to the left
_SMALL, _POINTS = 7.0, 7.5
_LINE, _BETWEEN = 0.13, 0.06  # inches, height of a line of text and gap between pictures
PRINTED = 300  #: dots per inch


def draw_pictures(found: PictureRows, path: Path) -> Path:
    """Draw rows of photographs with their texts in a figure of two columns' width. Returns ``path``."""
    columns, labels = max(len(row.tiles) for row in found.rows), _label_width(found)
    cell = min((_WIDTH - labels) / columns, _WIDEST)
    heights = [_height(row, cell - _BETWEEN) for row in found.rows]
    rooms = [_room(row, height) for row, height in zip(found.rows, heights, strict=True)]
    top = 0.2 if found.titles else 0.02
    width, total = labels + columns * cell, top + sum(rooms) + (0.3 if found.key else 0.0)
    with plot(width, total) as figure:
        for column, title in found.titles.items():
            place = labels + column * cell, total - 0.12
            _write(figure, place, title, _POINTS, width - place[0], FAINT)
        y = total - top
        for row, height, room in zip(found.rows, heights, rooms, strict=True):
            _draw_row(figure, row, y, labels, (cell, height))
            y -= room
        if found.key:
            _draw_scale(figure, found.key, labels)
        return save_plot(figure, path, tight=False, dpi=PRINTED)


def _draw_row(figure: Figure, row: Row, top: float, labels: float, cell: tuple[float, float]) -> None:
    for number, said in enumerate(row.lines):
        points, colour = (_SMALL, FAINT) if number else (_POINTS, TEXT)
        _write(figure, (0, top - 0.11 - _LINE * number), said, points, labels - 0.1, colour)
    for column, tile in enumerate(row.tiles):
        if tile is not None:
            _draw_tile(figure, tile, (labels + column * cell[0], top - cell[1]), (cell[0] - _BETWEEN, cell[1]))


def _room(row: Row, height: float) -> float:
    """Height of a row with its texts, beside the pictures and below them, and the gap to the next."""
    below = max((len(tile.lines) for tile in row.tiles if tile), default=0)
    return max(height + _LINE * below, _LINE * len(row.lines)) + 0.1


def _label_width(found: PictureRows) -> float:
    """Width in inches of the texts to the left, with a margin; 0 without any."""
    longest = [
        inches_of(*line(said, _SMALL if number else _POINTS, _WIDEST_LABEL), _SMALL if number else _POINTS)
        for row in found.rows
        for number, said in enumerate(row.lines)
    ]
    return max(longest) + 0.15 if longest else 0.0


def _height(row: Row, side: float) -> float:
    """Height of the tallest picture of a row, at most 1.15 times its width."""
    ratios = [tile.picture.shape[0] / tile.picture.shape[1] for tile in row.tiles if tile]
    return side * min(max(ratios, default=1.0), 1.15)


def _draw_tile(figure: Figure, tile: Tile, place: tuple[float, float], room: tuple[float, float]) -> None:
    """Draw a picture into a box in inches, at its bottom, and its lines below it."""
    height, width = tile.picture.shape[:2]
    scale = min(room[0] / width, room[1] / height)
    inches = width * scale, height * scale
    picture = Image.fromarray(tile.picture)
    picture.thumbnail((PRINTED * inches[0], PRINTED * inches[1]), Image.Resampling.LANCZOS)
    total_width, total = figure.get_size_inches()
    corner = place[0] / total_width, place[1] / total
    axes = figure.add_axes((*corner, inches[0] / total_width, inches[1] / total))
    axes.imshow(np.asarray(picture), aspect="auto", interpolation="antialiased")
    axes.set_axis_off()
    for number, said in enumerate(tile.lines):
        x, y = place[0], place[1] - 0.1 - _LINE * number
        indent = 0.0
        if number == 0 and tile.right is not None:
            colour = RIGHT if tile.right else WRONG
            _write(figure, (x, y), "✓" if tile.right else "✗", _SMALL, 0.2, colour)
            indent = 0.12
        _write(figure, (x + indent, y), said, _SMALL, room[0] - indent, TEXT)


def _write(figure: Figure, place: tuple[float, float], said: str, points: float, inches: float, colour: str) -> None:
    """Write a line of text, shortened to ``inches``, on a baseline that is given in inches."""
    shown, family = line(said, points, inches)
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {
        "fontsize": points,
        "family": family,
        "color": colour,
        "parse_math": False,
        "va": "baseline",
    }
    figure.text(place[0] / width, place[1] / height, shown, **style)


def _draw_scale(figure: Figure, key: tuple[np.ndarray, str, str], left: float) -> None:
    picture, low, high = key
    width, height = figure.get_size_inches()
    before = inches_of(low, line(low, _SMALL, 3)[1], _SMALL) + 0.08
    _write(figure, (left, 0.1), low, _SMALL, 3, FAINT)
    axes = figure.add_axes(((left + before) / width, 0.08 / height, 1.2 / width, 0.1 / height))
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()
    _write(figure, (left + before + 1.28, 0.1), high, _SMALL, width - left - before - 1.3, FAINT)

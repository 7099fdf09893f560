"""Photographs as WebP inside the page: found by their names, checked by their content, small."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...data.boxes.reader import Boxes
from ...data.clips import frames_numbered
from ...data.drawing import draw_regions, fit_within
from ...data.errors import ImageError
from ...data.images import decode_image, pixel_limit, read_content, read_image
from ...data.index import leaves_root
from ...data.regions import content_hash

_LARGEST = 320  # pixels, the longer side of a photograph that is kept to be made smaller
_WIDEST = 1240  # pixels, width of an explanation
_PREVIEWS = 6


class Level(NamedTuple):
    """How large and how good photographs are, and at most how many: the first level whose page is small enough."""

    side: int
    quality: int
    width: int  #: of explanations
    mistakes: int
    others: int
    explained: int


LEVELS = (
    Level(208, 72, 1240, 200, 100, 24),
    Level(176, 62, 1100, 200, 100, 24),
    Level(144, 55, 1000, 200, 100, 16),
    Level(128, 45, 900, 150, 60, 10),
    Level(112, 40, 800, 100, 30, 6),
    Level(96, 35, 700, 50, 15, 3),
    Level(96, 30, 640, 0, 0, 0),
)


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


class Photographs:
    """The photographs of a data set by name, each read once.

    Args:
        root: Folder of the data set; None if there are none to show.
        boxes: Boxes file of the data set, which says how many frames a clip has; None if it is unknown.
    """

    def __init__(self, root: Path | None, boxes: Boxes | None) -> None:
        self._root, self._boxes = root, boxes
        self._limit = pixel_limit(boxes.settings.get("proposals", {}) if boxes else {})
        self._frames = _middle_frames(boxes) if boxes else {}
        self._read: dict[str, np.ndarray | None] = {}

    def picture(self, name: str, content: str, level: Level) -> Embedded | None:
        """A photograph, or the middle frame of a clip; None if it is not there, not readable or not the same any more.

        Args:
            content: Hash of the file that was measured; any other text is not compared.
        """
        if name not in self._read:
            self._read[name] = self._pixels(name, content)
        pixels = self._read[name]
        return None if pixels is None else embed(fit_within(pixels, min(level.side, max(pixels.shape))), level.quality)

    def _pixels(self, name: str, content: str) -> np.ndarray | None:
        if self._root is None or leaves_root(name):
            return None
        try:
            if name in self._frames:
                return _reduced(frames_numbered(self._root / name, [self._frames[name]], self._limit)[0].pixels)
            found = read_content(self._root / name)
            if len(content) == 16 and content_hash(found) != content:
                return None
            return _reduced(decode_image(found, self._limit))
        except (ImageError, OSError):
            return None

    def previews(self, level: Level, split: str) -> list[tuple[str, Embedded]]:
        """Photographs of ``split`` with their regions, spread over it, by name; none for clips."""
        boxes = self._boxes
        if boxes is None or self._root is None or boxes.of_clips or not boxes.layout.count:
            return []
        rows = boxes.rows(split)
        kept = rows[np.unique(np.linspace(0, len(rows) - 1, min(_PREVIEWS, len(rows))).round().astype(int))]
        found = [self._preview(row, level) for row in kept.tolist()]
        return [one for one in found if one is not None]

    def _preview(self, row: int, level: Level) -> tuple[str, Embedded] | None:
        assert self._boxes is not None and self._root is not None
        name = self._boxes.names[self._boxes.usable[row]].decode()
        try:
            pixels = read_image(self._root / name, self._limit)
        except ImageError:
            return None
        drawn = draw_regions(pixels, self._boxes.primary_xyxy[row], self._boxes.layout, _LARGEST)
        return name, embed(drawn, level.quality)


def explanation(file: Path, level: Level) -> Embedded | None:
    """The picture of an explanation; None if it is not there."""
    try:
        pixels = read_image(file)
    except ImageError:
        return None
    return embed(fit_within(pixels, min(level.width, max(pixels.shape))), min(level.quality + 14, 86))


def embed(pixels: np.ndarray, quality: int) -> Embedded:
    """A uint8 RGB picture as WebP in a data URI; equal pixels give equal text."""
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, format="WEBP", quality=quality, method=4)
    text = base64.b64encode(stored.getvalue()).decode("ascii")
    return Embedded(f"data:image/webp;base64,{text}", pixels.shape[1], pixels.shape[0])


def _reduced(pixels: np.ndarray) -> np.ndarray:
    return fit_within(pixels, min(_LARGEST, max(pixels.shape)))


def _middle_frames(boxes: Boxes) -> dict[str, int]:
    """The number of the middle frame of each clip, by name; empty for images."""
    if boxes.clips is None:
        return {}
    middles: Sequence[int] = (boxes.clips.first_frame + boxes.clips.frames // 2).tolist()
    return {name.decode(): middle for name, middle in zip(boxes.names.tolist(), middles, strict=True)}

"""Rows of pictures with texts, as figures of papers show them: what is in them, not how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Tile:
    """A picture with lines of text below it."""

    picture: np.ndarray  #: uint8 RGB ``(H, W, 3)``
    lines: tuple[str, ...] = ()
    right: bool | None = None  #: whether a tick or a cross stands before the first line; None: neither


@dataclass(frozen=True)
class Row:
    """A row of pictures."""

    tiles: Sequence[Tile | None]  #: None leaves a place empty
    lines: tuple[str, ...] = ()  #: text to the left, its first line in black


@dataclass(frozen=True)
class PictureRows:
    """Rows of pictures in columns of equal width."""

    rows: Sequence[Row]
    titles: dict[int, str] = field(default_factory=dict)  #: by the first column that they stand above
    key: tuple[np.ndarray, str, str] | None = None  #: scale of colours, uint8 RGB, and what its two ends mean

    @property
    def texts(self) -> list[str]:
        """All texts, for a notice of letters that no font has."""
        lines = [line for row in self.rows for line in row.lines]
        return [*lines, *(line for row in self.rows for tile in row.tiles if tile for line in tile.lines)]

"""Colours of a map over a grey picture: evidence by its sign, attention in a colour of its own."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from ...data.canvas import Canvas
from ...data.palette import FAINT
from .pictures import greyed, lit, tinted

CELLS = 49  #: colours are per 49th of the picture, a position of the paper's 7 × 7 map
ATTENTION = "attention"  #: the method whose maps are shares of attention instead of logits
_TOP_SHARE = 0.99  # quantile of a map that is drawn in full colour
_LEAST = 2.0  # times the mean of all maps


def highest_of(maps: Iterable[np.ndarray]) -> float:
    """The scale of maps that are drawn together: what is in full colour, per 49th of the picture, in the maps' unit.

    It is the highest value of all maps, or twice their mean if nothing is higher: flat maps do not light up.
    """
    found = [np.abs(one) * (one.size / CELLS) for one in maps]
    highest = max((float(np.quantile(one, _TOP_SHARE)) for one in found), default=0.0)
    return max(highest, _LEAST * float(np.mean([one.mean() for one in found] or [0]))) or 1.0


def draw_map(photograph: np.ndarray, places: np.ndarray, half: np.ndarray, full: float, method: str) -> np.ndarray:
    """Draw a map over the grey copy of a photograph, with a white line around a part of it.

    Args:
        photograph: uint8 RGB ``(H, W, 3)``.
        places: Map ``(H, W)``.
        half: bool ``(H, W)``, what the line surrounds.
        full: Scale, as `highest_of` returns it.
        method: How the map was made. Attention is drawn from its mean upwards.

    Returns: uint8 RGB.
    """
    grey, share = greyed(photograph), places * (places.size / CELLS) / full
    if method == ATTENTION:
        mean = 1 / CELLS / full
        drawn = lit(grey, (share - mean) / (1 - mean))
    else:
        drawn = tinted(grey, share)
    drawn = np.ascontiguousarray(drawn)
    outlines, _ = cv2.findContours(half.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(drawn, outlines, -1, (255, 255, 255), 1)
    return drawn


def draw_key(canvas: Canvas, place_xy: tuple[int, int], width: int, full: float, method: str) -> None:
    """Draw the colours of the maps over a medium grey, 12 pixels high, and their values below."""
    x, y = place_xy
    lowest = 0 if method == ATTENTION else -1
    share = np.tile(np.linspace(lowest, 1, width, dtype=np.float32), (12, 1))
    grey = np.full(share.shape, 0.6, np.float32)
    canvas.photograph((x, y), lit(grey, share) if method == ATTENTION else tinted(grey, share))
    texts = (f"{-full:.2g}", "0", f"{full:+.2g} logits")
    if method == ATTENTION:
        texts = ("the mean or less", "", f"{full * CELLS:.2g} times the mean")
    for at, text, anchor in zip((0, width // 2, width), texts, ("la", "ma", "ra"), strict=True):
        canvas.text((x + at, y + 16), text, 13, FAINT, anchor)

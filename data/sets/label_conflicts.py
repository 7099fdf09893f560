"""Photographs that look the same and have different labels: at least one of the two labels is wrong, or too narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..images import MAX_PIXELS
from ..workers import in_parallel
from .examination import Seen, see_chunk
from .near_duplicates import Looks, closest

_CHUNK = 32


class Conflict(NamedTuple):
    """An image, the most similar one of another label, and how many of the 63 bits of their hashes differ."""

    row: int
    other: int
    distance: int


def label_conflicts(
    root: Path,
    names: Sequence[str],
    labels: np.ndarray,
    *,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Conflict]:
    """For each image that looks like some of other labels, find the most similar one; images that cannot be read have
    none.

    Args:
        root: Folder of the images.
        names: Paths of n images, relative to ``root``.
        labels: Their labels, int ``(n,)``.
        jobs: Number of worker processes; by default as for `in_parallel`.
        max_pixels: Number of pixels above which an image is not read.
        progress: Function called with the number of images done.
    """
    looks = Looks.empty(len(names))
    chunks = [names[first : first + _CHUNK] for first in range(0, len(names), _CHUNK)]
    task = partial(see_chunk, str(root.resolve()), max_pixels=max_pixels)
    done = 0
    for chunk in in_parallel(chunks, task, lambda name, reason: Seen(reason=reason), jobs):
        for row, seen in enumerate(chunk, start=done):
            if seen.look:
                looks.put(row, seen.look)
        done += len(chunk)
        progress(done)
    return [
        Conflict(*found[:3])
        for label in np.unique(labels).tolist()
        for found in closest(looks, np.flatnonzero(labels == label), np.flatnonzero(labels != label))
    ]

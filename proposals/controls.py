"""Regions that ignore the image content: controls that show the value of salient regions."""

from __future__ import annotations

import numpy as np

from .hulls import Groups, count_distinct
from .settings import ProposalSettings
from .sift import seed_of, squash

# Range of a random box's sides as shares of the frame's: from a detail to nearly all of it.
_RANDOM_SIDES = (0.1, 0.9)


def group_grid(image: np.ndarray, settings: ProposalSettings) -> Groups:
    """Tile the image with κ equal boxes in rows; columns are at least as many as rows and as few as possible."""
    rows = next(n for n in range(int(settings.primary**0.5), 0, -1) if settings.primary % n == 0)
    columns = settings.primary // rows
    row, column = np.divmod(np.arange(settings.primary), columns)
    boxes = np.stack([column / columns, row / rows, (column + 1) / columns, (row + 1) / rows], axis=1)
    return groups_of_boxes(boxes * _frame(image), settings.primary)


def group_random(image: np.ndarray, settings: ProposalSettings) -> Groups:
    """Draw κ boxes of uniformly random sides and positions inside the image, seeded by (seed, squashed pixels)."""
    generator = np.random.default_rng(seed_of(settings.seed, squash(image, settings.image_size)))
    sides = generator.uniform(*_RANDOM_SIDES, (settings.primary, 2))
    low = generator.uniform(0, 1 - sides)
    return groups_of_boxes(np.hstack([low, low + sides]) * _frame(image), settings.primary)


def group_nothing(image: np.ndarray, settings: ProposalSettings) -> Groups:
    """Return no groups: for models without regions."""
    return Groups(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, 2)), distinct=0)


def groups_of_boxes(boxes_xyxy: np.ndarray, primary: int, weights: np.ndarray | None = None) -> Groups:
    """Groups whose points are the corners of up to κ boxes ``(n, 4)``; the remaining groups are empty.

    ``weights`` ``(n,)`` are equal by default.
    """
    count = len(boxes_xyxy)
    points = boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2).astype(np.float64)
    shares, centres = np.zeros(primary), np.zeros((primary, 2))
    shares[:count] = np.ones(count) if weights is None else weights
    centres[:count] = points.reshape(-1, 4, 2).mean(axis=1)
    return Groups(
        points_xy=points,
        labels=np.repeat(np.arange(count), 4),
        weights=shares / shares.sum() if count else np.full(primary, 1 / primary),
        centres_xy=centres,
        distinct=count_distinct(points.astype(np.float32)),
    )


def _frame(image: np.ndarray) -> np.ndarray:
    return np.array([image.shape[1], image.shape[0]] * 2)

"""The value both stages share: the regions of one image, and how they move with its pixels.

Coordinates are continuous: ``(0, 0)`` is the outer corner of the first pixel, ``(width, height)`` that of
the last, x before y. A box is ``x0, y0, x1, y1`` with ``x1`` and ``y1`` exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

# A box never gets thinner than a pixel, so that it can be seen, drawn and pooled.
MIN_SIDE = 1.0


@dataclass(frozen=True)
class Regions:
    """The κ primary regions of one image, in slot order, in pixels of the upright original.

    A primary region is kept as the convex hull of the keypoints its mixture component claims: the box of
    an affinely moved point set is the box of its moved hull, exactly. A slot that claims no keypoint has
    the whole image for its region: its hull is the image's four corners and its keypoint count 0.
    """

    hull_xy: np.ndarray  #: float32 ``(V, 2)``, the hulls' vertices, slot after slot
    hull_counts: np.ndarray  #: int32 ``(κ,)``, vertices of each slot, each at least 1
    keypoints: np.ndarray  #: int32 ``(κ,)``, keypoints each slot claims
    weights: np.ndarray  #: float32 ``(κ,)``, mixture weight of each slot
    size_wh: tuple[int, int]  #: width and height of the image in pixels
    total_keypoints: int  #: keypoints found, duplicates included
    distinct_keypoints: int  #: their distinct positions

    @property
    def primary_xyxy(self) -> np.ndarray:
        """float32 ``(κ, 4)``."""
        return boxes_of_hulls(self.hull_xy, self.hull_counts, self.size_wh)

    @property
    def enough_keypoints(self) -> bool:
        """Whether a mixture was fitted at all; if not, every region is the whole image."""
        return bool(self.keypoints.any())


def whole_image_hull(size_wh: tuple[int, int]) -> np.ndarray:
    """The image's four corners, float32 ``(4, 2)``: the hull of a slot that claims no keypoint."""
    width, height = size_wh
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)


@lru_cache
def region_pairs(primaries: int) -> np.ndarray:
    """The unordered pairs of primaries, int16 ``(κ(κ-1)/2, 2)``, in the order secondary regions have."""
    pairs = np.array(list(combinations(range(primaries), 2)), dtype=np.int16).reshape(-1, 2)
    pairs.flags.writeable = False
    return pairs


def region_count(primaries: int) -> int:
    """R = κ + κ(κ-1)/2."""
    return primaries + primaries * (primaries - 1) // 2


def boxes_of_hulls(hull_xy: np.ndarray, hull_counts: np.ndarray, size_wh: tuple[float, float]) -> np.ndarray:
    """Tight boxes of consecutive point groups, clipped to the frame, at least `MIN_SIDE` wide and high.

    Args:
        hull_xy: ``(V, 2)`` points, group after group.
        hull_counts: ``(κ,)`` sizes of the groups, each at least 1.
        size_wh: the frame.

    Returns: float32 ``(κ, 4)`` xyxy. A group outside the frame gets a thin box at the nearest border.
    """
    starts = np.cumsum(hull_counts) - hull_counts
    frame = np.array(size_wh, dtype=np.float32)
    low = np.clip(np.minimum.reduceat(hull_xy, starts, axis=0), 0, frame)
    high = np.clip(np.maximum.reduceat(hull_xy, starts, axis=0), 0, frame)
    middle = np.clip((low + high) / 2, MIN_SIDE / 2, frame - MIN_SIDE / 2)
    low = np.minimum(low, middle - MIN_SIDE / 2)
    high = np.maximum(high, middle + MIN_SIDE / 2)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def secondary_boxes(primary_xyxy: np.ndarray) -> np.ndarray:
    """The box around each pair of primaries, ``(..., κ, 4)`` -> ``(..., κ(κ-1)/2, 4)``, pairs as `region_pairs`."""
    pairs = region_pairs(primary_xyxy.shape[-2])
    first, second = primary_xyxy[..., pairs[:, 0], :], primary_xyxy[..., pairs[:, 1], :]
    return np.concatenate(
        [np.minimum(first[..., :2], second[..., :2]), np.maximum(first[..., 2:], second[..., 2:])], axis=-1
    )


def all_boxes(primary_xyxy: np.ndarray) -> np.ndarray:
    """Primaries, then secondaries: ``(..., κ, 4)`` -> ``(..., R, 4)``."""
    return np.concatenate([primary_xyxy, secondary_boxes(primary_xyxy)], axis=-2)


def move_points(matrix: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """Apply the affine map ``(2, 3)`` to points ``(V, 2)``, both in continuous coordinates."""
    return points_xy @ matrix[:, :2].T + matrix[:, 2]

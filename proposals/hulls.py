"""Conversion of grouped points to regions: one convex hull per group, in a stable slot order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..data.references import named_function
from ..data.regions import Layout, Regions, whole_image_hull
from .settings import SLOT_ORDERS

IN_NO_GROUP = -1


@dataclass(frozen=True)
class Groups:
    """Points of an image in κ groups: the result of every proposal method, and the input of every region.

    For SIFT, the points are keypoints and a group holds those of one mixture component. For other methods, they are the
    corners of the boxes found.
    """

    points_xy: np.ndarray  #: float64 ``(n, 2)``, continuous pixels of the upright original; n may be 0
    labels: np.ndarray  #: ``(n,)`` in 0..κ-1, or `IN_NO_GROUP`
    weights: np.ndarray  #: float64 ``(κ,)``, sum 1: each group's share of the image's salience
    centres_xy: np.ndarray  #: float64 ``(κ, 2)``
    distinct: int  #: number of distinct positions among the points


def by_weight(claimed: np.ndarray, groups: Groups) -> np.ndarray:
    """Order by number of points, most first: slot 0 is the busiest area. Ties are broken by weight, then position."""
    return np.lexsort((*groups.centres_xy.T, -groups.weights, -claimed))


def left_to_right(claimed: np.ndarray, groups: Groups) -> np.ndarray:
    """Order by the x coordinate of the group's centre."""
    return np.lexsort(groups.centres_xy.T[::-1])


def top_to_bottom(claimed: np.ndarray, groups: Groups) -> np.ndarray:
    """Order by the y coordinate of the group's centre."""
    return np.lexsort(groups.centres_xy.T)


def as_found(claimed: np.ndarray, groups: Groups) -> np.ndarray:
    """Keep the order of the mixture components: the paper's order, which is arbitrary."""
    return np.arange(len(claimed))


def in_slot_order(groups: Groups, slot_order: str) -> Groups:
    """Renumber groups as the slots of the network: group k becomes region k.

    ``slot_order`` is a key of `settings.SLOT_ORDERS`.
    """
    primary = len(groups.weights)
    claimed = np.bincount(groups.labels[groups.labels != IN_NO_GROUP], minlength=primary)
    order = named_function(SLOT_ORDERS[slot_order], __package__)(claimed, groups)
    slot_of = np.full(primary + 1, IN_NO_GROUP)  # the last entry belongs to the label `IN_NO_GROUP`
    slot_of[order] = np.arange(primary)
    return replace(
        groups,
        labels=slot_of[groups.labels],
        weights=groups.weights[order],
        centres_xy=groups.centres_xy[order],
    )


def regions_of_groups(groups: Groups, layout: Layout, slot_order: str, size_wh: tuple[int, int]) -> Regions:
    """The regions of an image: each primary is the hull of one group's points, or the whole image if it has none.

    Args:
        groups: Groups, as many as the layout has primaries.
        layout: Boxes to build from the primaries.
        slot_order: Key of `settings.SLOT_ORDERS`.
        size_wh: Image width and height in pixels.
    """
    groups = in_slot_order(groups, slot_order)
    claimed = np.bincount(groups.labels - IN_NO_GROUP, minlength=layout.primary + 1)  # first entry: in no group
    points = groups.points_xy[np.argsort(groups.labels, kind="stable")].astype(np.float32)  # slot after slot
    hulls = [
        cv2.convexHull(points[end - count : end]).reshape(-1, 2) if count else whole_image_hull(size_wh)
        for count, end in zip(claimed[1:].tolist(), claimed.cumsum()[1:].tolist(), strict=True)
    ]
    return Regions(
        # A tenth of a pixel keeps the file's cells readable; boxes are computed from these rounded points.
        hull_xy=np.concatenate([np.zeros((0, 2), np.float32), *hulls]).round(1),
        hull_counts=np.array([len(hull) for hull in hulls], dtype=np.int32),
        keypoints=claimed[1:].astype(np.int32),
        weights=groups.weights.astype(np.float32),
        size_wh=size_wh,
        total_keypoints=len(points),
        distinct_keypoints=groups.distinct,
        layout=layout,
    )


def count_distinct(points_xy: np.ndarray) -> int:
    """Number of distinct positions of float32 ``(n, 2)`` points. -0.0 and 0.0 count as two."""
    positions = np.sort(np.ascontiguousarray(points_xy).view(np.uint64), axis=None)  # takes a tenth of np.unique's time
    return int(np.count_nonzero(positions[1:] != positions[:-1])) + (len(positions) > 0)

"""From labelled points to regions: one convex hull for each mixture component, in a stable slot order."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..data.regions import Regions, whole_image_hull
from .mixture import Mixture

# Every slot owns weights in the network, so slots need an order that means something. None of these
# depends on the augmentation: order is fixed on the original image and travels with the pixels.
ORDER_SLOTS: dict[str, Callable[[np.ndarray, Mixture], np.ndarray]] = {
    # Most keypoints first: slot 0 is where the image is busiest. Ties, as empty slots, go by position.
    "weight": lambda claimed, mixture: np.lexsort((mixture.means[:, 0], mixture.means[:, 1], -claimed)),
    # By the component's centre.
    "left-to-right": lambda claimed, mixture: np.lexsort((mixture.means[:, 1], mixture.means[:, 0])),
    "top-to-bottom": lambda claimed, mixture: np.lexsort((mixture.means[:, 0], mixture.means[:, 1])),
    # As the mixture numbers them: the paper's, arbitrary.
    "mixture": lambda claimed, mixture: np.arange(len(claimed)),
}


def regions_of_mixture(
    points_xy: np.ndarray, mixture: Mixture, slot_order: str, scale_xy: np.ndarray, size_wh: tuple[int, int]
) -> Regions:
    """The regions of the components: each the hull of the points it claims.

    Args:
        points_xy: ``(n, 2)``, in the squashed image.
        mixture: fitted to them, with κ components.
        slot_order: a key of `ORDER_SLOTS`.
        scale_xy: ``(2,)``, pixels of the original to one of the squashed image.
        size_wh: of the original.
    """
    components = len(mixture.weights)
    claimed = np.bincount(mixture.labels, minlength=components)
    order = ORDER_SLOTS[slot_order](claimed, mixture)
    empty = whole_image_hull(size_wh)
    hulls = [
        _hull(points_xy[mixture.labels == component] * scale_xy) if claimed[component] else empty for component in order
    ]
    return Regions(
        # A tenth of a pixel keeps the file's cells readable; boxes are computed from these very points.
        hull_xy=np.round(np.concatenate(hulls), 1).astype(np.float32),
        hull_counts=np.array([len(hull) for hull in hulls], dtype=np.int32),
        keypoints=claimed[order].astype(np.int32),
        weights=mixture.weights[order].astype(np.float32),
        size_wh=size_wh,
        total_keypoints=len(points_xy),
        distinct_keypoints=count_distinct(points_xy),
    )


def whole_image_regions(points_xy: np.ndarray, primary: int, size_wh: tuple[int, int]) -> Regions:
    """The regions of an image with too few keypoints for a mixture: every slot sees the whole image."""
    return Regions(
        hull_xy=np.tile(whole_image_hull(size_wh), (primary, 1)),
        hull_counts=np.full(primary, 4, dtype=np.int32),
        keypoints=np.zeros(primary, dtype=np.int32),
        weights=np.full(primary, 1 / primary, dtype=np.float32),
        size_wh=size_wh,
        total_keypoints=len(points_xy),
        distinct_keypoints=count_distinct(points_xy),
    )


def count_distinct(points_xy: np.ndarray) -> int:
    """How many different positions ``(n, 2)`` points have."""
    return len(np.unique(points_xy @ np.array([1, 1j])))


def _hull(points_xy: np.ndarray) -> np.ndarray:
    """The convex hull's vertices, float32 ``(V, 2)``, V ≥ 1."""
    return cv2.convexHull(points_xy.astype(np.float32)).reshape(-1, 2)

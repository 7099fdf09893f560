"""All of stage 1 for one image: the function that `propose` runs over a data set and `predict` on the fly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data.regions import Regions
from .controls import group_grid, group_nothing, group_random
from .hulls import Groups, regions_of_groups
from .settings import ProposalSettings
from .sift import group_keypoints

Weights = Path | None  #: a file with a network's weights; None for torchvision's own


def _cnn_features(image: np.ndarray, settings: ProposalSettings, weights: Weights) -> Groups:
    from .networks import group_feature_map  # torch, only where it is asked for

    return group_feature_map(image, settings, weights)


def _mask_rcnn(image: np.ndarray, settings: ProposalSettings, weights: Weights) -> Groups:
    from .networks import group_detections

    return group_detections(image, settings, weights)


# A way of proposing: uint8 RGB (H, W, 3) -> κ groups of points. To add one, add it here and its name to
# `settings.METHODS`; the file, its inspection and training never ask which one it was.
METHODS: dict[str, Callable[[np.ndarray, ProposalSettings, Weights], Groups]] = {
    "sift": lambda image, settings, weights: group_keypoints(image, settings),
    "cnn-features": _cnn_features,
    "mask-rcnn": _mask_rcnn,
    "grid": lambda image, settings, weights: group_grid(image, settings),
    "random": lambda image, settings, weights: group_random(image, settings),
    "none": lambda image, settings, weights: group_nothing(image, settings),
}


def propose_groups(image: np.ndarray, settings: ProposalSettings, weights: Weights = None) -> Groups:
    """The points that ``settings.method`` finds in an image, in κ groups; see `propose_regions`."""
    return METHODS[settings.method](image, settings, weights)


def propose_regions(image: np.ndarray, settings: ProposalSettings, weights: Weights = None) -> Regions:
    """The regions of an image: keypoints → mixture → hulls (AG-Net, section III-A), or another method's.

    They depend on the image's pixels and the settings, on nothing else: not on its name or on other images.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        settings: see `ProposalSettings`.
        weights: of the methods that use a network.

    Raises: `CheckpointError` when those weights cannot be had.
    """
    groups = propose_groups(image, settings, weights)
    return regions_of_groups(groups, settings.layout, settings.slot_order, (image.shape[1], image.shape[0]))

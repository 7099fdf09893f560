"""All of stage 1 for one image: the function that `propose` runs over a data set and `predict` on the fly."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.references import named_function
from ..data.regions import Regions
from .hulls import Groups, regions_of_groups
from .settings import METHODS, NETWORKS, ProposalSettings

Weights = Path | None  #: a file with a network's weights; None for torchvision's own


def propose_groups(image: np.ndarray, settings: ProposalSettings, weights: Weights = None) -> Groups:
    """The points that ``settings.method`` finds in an image, in κ groups; see `propose_regions`."""
    method = named_function(METHODS[settings.method], __package__)
    found: Groups = method(image, settings, weights) if settings.method in NETWORKS else method(image, settings)
    return found


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

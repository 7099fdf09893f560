"""All of stage 1 for one image: the function used by `propose` for a data set and by `predict` on the fly."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.references import named_function
from ..data.regions import Regions
from .hulls import Groups, regions_of_groups
from .settings import METHODS, NETWORKS, ProposalSettings

Weights = Path | None  #: file with a network's weights; None for torchvision's own


def propose_groups(image: np.ndarray, settings: ProposalSettings, weights: Weights = None) -> Groups:
    """The points that ``settings.method`` finds in an image, in κ groups; see `propose_regions`."""
    method = named_function(METHODS[settings.method], __package__)
    found: Groups = method(image, settings, weights) if settings.method in NETWORKS else method(image, settings)
    return found


def propose_regions(image: np.ndarray, settings: ProposalSettings, weights: Weights = None) -> Regions:
    """Propose the regions of an image: keypoints → mixture → hulls (AG-Net, section III-A), or another method.

    They depend only on the image's pixels and the settings, not on its name or other images.

    Args:
        image: uint8 RGB array ``(H, W, 3)``.
        settings: Proposal settings.
        weights: Weights file, for methods that use a network.

    Raises: `CheckpointError` if the weights are not available.
    """
    groups = propose_groups(image, settings, weights)
    return regions_of_groups(groups, settings.layout, settings.slot_order, (image.shape[1], image.shape[0]))

"""All of stage 1 for one image: the function that `propose` runs over a data set and `predict` on the fly."""

from __future__ import annotations

import hashlib

import numpy as np

from ..data.regions import Regions
from .boxes import count_distinct, regions_of_mixture, whole_image_regions
from .keypoints import detect_keypoints, squash
from .mixture import fit_mixture, fit_mixture_scikit_learn, initial_labels
from .settings import ProposalSettings


def propose_regions(image: np.ndarray, settings: ProposalSettings) -> Regions:
    """The κ primary regions of an image: keypoints → mixture → hulls (AG-Net, section III-A).

    They depend on the image's pixels and the settings, on nothing else: not on its name or on other images.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        settings: see `ProposalSettings`.
    """
    size_wh = (image.shape[1], image.shape[0])
    squashed = squash(image, settings.image_size)
    points = detect_keypoints(squashed)
    if count_distinct(points) < settings.primary:
        return whole_image_regions(points, settings.primary, size_wh)
    seed = image_seed(settings.seed, squashed)
    if settings.mixture == "scikit-learn":
        mixture = fit_mixture_scikit_learn(points, settings.primary, seed, em=settings.em)
    else:
        start = initial_labels(points, settings.primary, seed)
        mixture = fit_mixture(points, start, settings.primary, em=settings.em)
    scale_xy = np.array(size_wh) / settings.image_size
    return regions_of_mixture(points, mixture, settings.slot_order, scale_xy, size_wh)


def image_seed(seed: int, squashed: np.ndarray) -> int:
    """A 31-bit seed for one image, from the run's seed and the image's own pixels.

    Pixels rather than a name: a renamed file keeps its regions, and an image gets the same ones when it is
    predicted as when it was in the data set.
    """
    digest = hashlib.blake2b(squashed.tobytes(), digest_size=4, salt=seed.to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF

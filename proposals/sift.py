"""The paper's way of proposing: a Gaussian mixture over the positions of SIFT keypoints (section III-A)."""

from __future__ import annotations

import hashlib
from functools import cache

import cv2
import numpy as np

from ..data.resizing import resize
from .hulls import IN_NO_GROUP, Groups, count_distinct
from .mixture import fit_mixture, fit_mixture_scikit_learn, initial_labels
from .settings import ProposalSettings

# OpenCV's SIFT doubles the image about its middle, but halves what it finds there about the first pixel's. So all it
# finds, in every octave, is a quarter of a pixel too far to the right and too low (opencv/opencv#23123; measured in
# 4.10 to 5.0). Its `enable_precise_upscale` doubles about the first pixel, too, and is as exact, but finds 3 % fewer.
SIFT_BIAS = np.float32(0.25)


def group_keypoints(image: np.ndarray, settings: ProposalSettings) -> Groups:
    """Keypoints of the squashed image, grouped by the mixture component that most likely made them.

    With fewer than κ distinct keypoints there is no mixture, and no point is in a group.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        settings: see `ProposalSettings`.
    """
    found = detect_keypoints(squash(image, settings.image_size))
    points = found.astype(np.float64)
    scale_xy = np.array([image.shape[1], image.shape[0]]) / settings.image_size
    distinct = count_distinct(found)
    if distinct < settings.primary:
        return Groups(
            points_xy=points * scale_xy,
            labels=np.full(len(points), IN_NO_GROUP),
            weights=np.full(settings.primary, 1 / settings.primary),
            centres_xy=np.zeros((settings.primary, 2)),
            distinct=distinct,
        )
    # Of the positions with their bias, as it was before they were freed of it: so groups stay what they were.
    seed = seed_of(settings.seed, found + SIFT_BIAS)
    if settings.mixture == "scikit-learn":
        mixture = fit_mixture_scikit_learn(points, settings.primary, seed, em=settings.em)
    else:
        start = initial_labels(points, settings.primary, seed)
        mixture = fit_mixture(points, start, settings.primary, em=settings.em)
    return Groups(
        points_xy=points * scale_xy,
        labels=mixture.labels,
        weights=mixture.weights,
        centres_xy=mixture.means * scale_xy,
        distinct=distinct,
    )


def squash(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 RGB ``(H, W, 3)`` -> uint8 grey ``(side, side)``, the aspect not kept (the paper works at 224)."""
    return cv2.cvtColor(resize(image, (side, side)), cv2.COLOR_RGB2GRAY)


def detect_keypoints(grey: np.ndarray) -> np.ndarray:
    """The positions of all SIFT keypoints, with OpenCV's default thresholds.

    A point with several orientations is there several times, as OpenCV reports it: its mass in the mixture
    is then its number of orientations.

    Args:
        grey: uint8 ``(H, W)``.

    Returns: float32 ``(n, 2)`` x, y in continuous coordinates of ``grey``; n may be 0.
    """
    # detect, not detectAndCompute: descriptors are not used and cost as much again.
    found = _sift().detect(grey, None)
    # OpenCV puts (0, 0) at the centre of the first pixel, we at its corner.
    corner_xy = np.asarray(cv2.KeyPoint.convert(found), dtype=np.float32).reshape(-1, 2) + np.float32(0.5)
    return corner_xy - SIFT_BIAS


def seed_of(seed: int, content: np.ndarray) -> int:
    """A 31-bit seed for one image, from the run's seed and what was seen in the image.

    Content rather than a name: a renamed file keeps its regions, and an image gets the same ones when it is
    predicted as when it was in the data set.
    """
    digest = hashlib.blake2b(content.tobytes(), digest_size=4, salt=seed.to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


@cache
def _sift() -> cv2.SIFT:
    return cv2.SIFT.create(enable_precise_upscale=False)  # by name: it is what the bias belongs to

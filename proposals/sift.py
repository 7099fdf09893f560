"""The paper's proposal method: a Gaussian mixture over the positions of SIFT keypoints (section III-A)."""

from __future__ import annotations

import hashlib
from functools import cache

import cv2
import numpy as np

from ..data.resizing import resize
from .hulls import IN_NO_GROUP, Groups, count_distinct
from .mixture import fit_mixture, fit_mixture_scikit_learn, initial_labels
from .settings import ProposalSettings

# OpenCV's SIFT doubles the image about its centre, but maps the results back about the first pixel's. So all its
# positions, in every octave, are a quarter of a pixel too far to the right and too low (opencv/opencv#23123; measured
# in 4.10 to 5.0). With `enable_precise_upscale` it also doubles about the first pixel and is as exact, but finds 3 %
# fewer.
SIFT_BIAS = np.float32(0.25)


def group_keypoints(image: np.ndarray, settings: ProposalSettings) -> Groups:
    """Group the keypoints of the squashed image by their most likely mixture component.

    With fewer than κ distinct keypoints, no mixture is fitted and no point is in a group.

    Args:
        image: uint8 RGB array ``(H, W, 3)``.
        settings: Proposal settings.
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
    # The seed uses the positions with their bias, as before its correction, so that groups stay the same.
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
    """Convert uint8 RGB ``(H, W, 3)`` to uint8 grey ``(side, side)``, ignoring aspect ratio (the paper uses 224)."""
    return cv2.cvtColor(resize(image, (side, side)), cv2.COLOR_RGB2GRAY)


def detect_keypoints(grey: np.ndarray, most: int = 0) -> np.ndarray:
    """Detect SIFT keypoints with OpenCV's default thresholds.

    A point with several orientations is returned several times, as by OpenCV: its mass in the mixture is then its
    number of orientations.

    Args:
        grey: uint8 image ``(H, W)``.
        most: Number of the strongest keypoints to return, and any as strong as the last of them; 0: all.

    Returns: float32 ``(n, 2)`` x, y in continuous coordinates of ``grey``; n may be 0.
    """
    # Not detectAndCompute: descriptors are not needed and would double the cost.
    found = _sift(most).detect(grey, None)
    # OpenCV places (0, 0) at the centre of the first pixel, agnet at its corner.
    corner_xy = np.asarray(cv2.KeyPoint.convert(found), dtype=np.float32).reshape(-1, 2) + np.float32(0.5)
    return corner_xy - SIFT_BIAS


def seed_of(seed: int, content: np.ndarray) -> int:
    """A 31-bit seed for one image, from the run's seed and the image's content.

    The content is used rather than a name: a renamed file keeps its regions, and an image gets the same regions in
    prediction as in a data set.
    """
    digest = hashlib.blake2b(content.tobytes(), digest_size=4, salt=seed.to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


@cache
def _sift(most: int) -> cv2.SIFT:
    return cv2.SIFT.create(nfeatures=most, enable_precise_upscale=False)  # explicit, because the bias depends on it

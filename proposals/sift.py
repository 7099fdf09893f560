"""The paper's way of proposing: a Gaussian mixture over the positions of SIFT keypoints (section III-A)."""

from __future__ import annotations

import numpy as np

from .hulls import IN_NO_GROUP, Groups, count_distinct
from .keypoints import SIFT_BIAS, detect_keypoints, squash
from .mixture import fit_mixture, fit_mixture_scikit_learn, initial_labels
from .seeds import seed_of
from .settings import ProposalSettings


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

"""Where the image is salient: SIFT keypoints, positions only."""

from __future__ import annotations

from functools import cache

try:
    import cv2
except ImportError as error:  # opencv-python needs the system's OpenGL library; servers often lack it
    raise ImportError(
        f"OpenCV cannot be loaded ({error}). On a machine without libGL: apt-get install libgl1, or "
        "pip uninstall opencv-python && pip install opencv-python-headless"
    ) from error
import numpy as np


def detect_keypoints(image: np.ndarray, side: int) -> np.ndarray:
    """SIFT keypoints of the image squashed to ``side`` × ``side`` pixels (the paper finds them at 224).

    All of them, with OpenCV's default thresholds. A point with several orientations is there several
    times, as OpenCV reports it: its mass in the mixture is then its number of orientations.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        side: of the squashed image.

    Returns: float64 ``(n, 2)`` x, y in continuous coordinates of the squashed image; n may be 0.
    """
    squashed = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    # detect, not detectAndCompute: descriptors are not used and cost as much again.
    found = _sift().detect(cv2.cvtColor(squashed, cv2.COLOR_RGB2GRAY), None)
    # No keypoint comes as an empty tuple. OpenCV puts (0, 0) at the centre of the first pixel, we at its corner.
    return np.asarray(cv2.KeyPoint.convert(found), dtype=np.float64).reshape(-1, 2) + 0.5


@cache
def _sift() -> cv2.SIFT:
    return cv2.SIFT.create()

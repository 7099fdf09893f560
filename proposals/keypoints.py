"""Where the image is salient: SIFT keypoints, positions only."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from ..data.resizing import resize

# OpenCV's SIFT doubles the image about its middle, but halves what it finds there about the first pixel's. So all it
# finds, in every octave, is a quarter of a pixel too far to the right and too low (opencv/opencv#23123; measured in
# 4.10 to 5.0). Its `enable_precise_upscale` doubles about the first pixel, too, and is as exact, but finds 3 % fewer.
SIFT_BIAS = np.float32(0.25)


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


@cache
def _sift() -> cv2.SIFT:
    return cv2.SIFT.create(enable_precise_upscale=False)  # by name: it is what the bias belongs to

"""Resizing of images without a shift of their content."""

from __future__ import annotations

import cv2
import numpy as np


def resize(image: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Resize an image, corners aligned with corners. A side that shrinks is averaged, one that grows is interpolated.

    OpenCV's ``INTER_AREA`` averages only if neither side grows. Otherwise it reads only two of the pixels a new one
    covers, those at one end, which shifts a wide and low photograph by up to half a new pixel.

    Args:
        image: uint8 array ``(H, W)`` or ``(H, W, 3)``.
        size_wh: New width and height in pixels.
    """
    height, width = image.shape[:2]
    smaller = min(width, size_wh[0]), min(height, size_wh[1])
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return image if smaller == size_wh else cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR)

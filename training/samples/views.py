"""Pixels and regions, moved together by one affine map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ...data.regions import Regions, boxes_of_hulls, move_points


@dataclass(frozen=True)
class AffineRange:
    """How far a training image may be moved, as in the paper's section IV. No flip: it swaps sides."""

    degrees: float  #: rotation either way
    shift: float  #: share of width and of height, either way
    scale: float  #: larger or smaller, by this share

    def draw(self, generator: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
        """A random map ``(2, 3)`` of a frame of that height and width into itself, about its middle."""
        size_wh = np.array(size_hw[::-1])
        angle = np.deg2rad(generator.uniform(-self.degrees, self.degrees))
        scale = generator.uniform(1 - self.scale, 1 + self.scale)
        shift = generator.uniform(-self.shift, self.shift, 2) * size_wh
        turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        middle = size_wh / 2
        return np.column_stack([turn, middle + shift - turn @ middle])


@dataclass(frozen=True)
class View:
    """How the network sees an image: squashed to ``size_hw``, and maybe moved; pixels and regions alike.

    ``matrix`` ``(2, 3)`` maps continuous coordinates of the upright original to those of the frame.
    """

    matrix: np.ndarray
    size_hw: tuple[int, int]  #: of the frame: height, width

    @classmethod
    def of(cls, size_wh: tuple[int, int], size_hw: tuple[int, int], motion: np.ndarray | None = None) -> View:
        """The view of an image of ``size_wh``; ``motion`` ``(2, 3)`` moves the frame (see `AffineRange.draw`)."""
        squash = np.diag([size_hw[1] / size_wh[0], size_hw[0] / size_wh[1]])
        if motion is None:
            return cls(np.column_stack([squash, np.zeros(2)]), size_hw)
        return cls(np.column_stack([motion[:, :2] @ squash, motion[:, 2]]), size_hw)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB ``(H, W, 3)`` -> the frame's ``(h, w, 3)`` in one warp; beyond the edges they are repeated."""
        matrix = self.matrix
        shrink = np.abs(np.linalg.norm(matrix[:, :2], axis=0))  # frame pixels to one of the image, in x and y
        if (shrink < 0.5).any():
            # A bilinear warp reads four pixels only; averaging first keeps a large photograph from aliasing.
            height, width = image.shape[:2]
            smaller = [max(1, round(side * min(1.0, 1.5 * s))) for side, s in zip((width, height), shrink, strict=True)]
            image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
            back = np.array([width / smaller[0], height / smaller[1]])
            matrix = np.column_stack([matrix[:, :2] * back, matrix[:, 2]])
        # OpenCV puts (0, 0) at the first pixel's centre, we at its corner.
        shift = matrix[:, 2] + matrix[:, :2] @ (0.5, 0.5) - 0.5
        return cv2.warpAffine(
            image,
            np.column_stack([matrix[:, :2], shift]),
            self.size_hw[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def boxes(self, regions: Regions) -> np.ndarray:
        """All R regions in this view, in the order of its layout: float32 ``(R, 4)`` xyxy in fractions of the frame.

        Exactly the boxes of the moved keypoints, clipped to the frame; secondaries are unions of moved primaries.
        """
        moved = move_points(self.matrix, regions.hull_xy)
        height, width = self.size_hw
        primary = boxes_of_hulls(moved, regions.hull_counts, (width, height))
        return (regions.layout.boxes(primary) / np.array([width, height, width, height])).astype(np.float32)

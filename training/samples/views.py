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

    def draw(self, generator: np.random.Generator, side: int) -> np.ndarray:
        """A random map ``(2, 3)`` of a ``side`` × ``side`` frame into itself, about its middle."""
        angle = np.deg2rad(generator.uniform(-self.degrees, self.degrees))
        scale = generator.uniform(1 - self.scale, 1 + self.scale)
        shift = generator.uniform(-self.shift, self.shift, 2) * side
        turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        middle = np.array([side / 2, side / 2])
        return np.column_stack([turn, middle + shift - turn @ middle])


@dataclass(frozen=True)
class View:
    """How an image is seen by the network: squashed to ``side`` × ``side``, perhaps moved; pixels and regions alike.

    ``matrix`` ``(2, 3)`` maps continuous coordinates of the upright original to those of the frame.
    """

    matrix: np.ndarray
    side: int

    @classmethod
    def of(cls, size_wh: tuple[int, int], side: int, motion: np.ndarray | None = None) -> View:
        """The view of an image of that size; ``motion`` ``(2, 3)`` moves the frame (see `AffineRange.draw`)."""
        squash = np.diag([side / size_wh[0], side / size_wh[1]])
        if motion is None:
            return cls(np.column_stack([squash, np.zeros(2)]), side)
        return cls(np.column_stack([motion[:, :2] @ squash, motion[:, 2]]), side)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB ``(H, W, 3)`` -> ``(side, side, 3)`` in one warp; beyond the edges they are repeated."""
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
            (self.side, self.side),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def boxes(self, regions: Regions) -> np.ndarray:
        """All R regions in this view, in the order of its layout: float32 ``(R, 4)`` xyxy in fractions of the frame.

        Exactly the boxes of the moved keypoints, clipped to the frame; secondaries are unions of moved primaries.
        """
        moved = move_points(self.matrix, regions.hull_xy)
        primary = boxes_of_hulls(moved, regions.hull_counts, (self.side, self.side))
        return (regions.layout.boxes(primary) / self.side).astype(np.float32)

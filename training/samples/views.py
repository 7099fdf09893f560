"""Transform pixels and regions together with one affine map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ...data.regions import Regions, boxes_of_hulls, move_points

MEAN_COLOUR = (124, 116, 104)  #: of ImageNet's photographs, RGB


@dataclass(frozen=True)
class AffineRange:
    """Range of the random affine augmentation, as in section IV of the paper."""

    degrees: float  #: largest rotation in either direction
    shift: float  #: largest shift in either direction, as a fraction of width and of height
    scale: float  #: largest relative change of scale, up or down
    flip: bool = False  #: whether half of the frames are mirrored, which swaps left and right

    def draw(self, generator: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
        """Draw a random map ``(2, 3)`` about the centre of a frame of height and width ``size_hw``, in its pixels."""
        size_wh = np.array(size_hw[::-1])
        angle = np.deg2rad(generator.uniform(-self.degrees, self.degrees))
        scale = generator.uniform(1 - self.scale, 1 + self.scale)
        shift = generator.uniform(-self.shift, self.shift, 2) * size_wh
        turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        if self.flip and generator.uniform() < 0.5:
            turn[:, 0] *= -1
        middle = size_wh / 2
        return np.column_stack([turn, middle + shift - turn @ middle])


@dataclass(frozen=True)
class View:
    """The network's view of an image: resized to ``size_hw`` without keeping the aspect ratio, optionally augmented.

    ``matrix`` ``(2, 3)`` maps continuous coordinates of the upright original to those of the frame, for pixels
    and regions alike.
    """

    matrix: np.ndarray
    size_hw: tuple[int, int]  #: height and width of the frame in pixels

    @classmethod
    def of(cls, size_wh: tuple[int, int], size_hw: tuple[int, int], motion: np.ndarray | None = None) -> View:
        """Build the view of an image of ``size_wh``; ``motion`` ``(2, 3)`` moves the frame (see `AffineRange.draw`)."""
        squash = np.diag([size_hw[1] / size_wh[0], size_hw[0] / size_wh[1]])
        if motion is None:
            return cls(np.column_stack([squash, np.zeros(2)]), size_hw)
        return cls(np.column_stack([motion[:, :2] @ squash, motion[:, 2]]), size_hw)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Warp an image, uint8 RGB ``(H, W, 3)``, into the frame ``(h, w, 3)``; edge pixels are repeated outside it."""
        matrix = self.matrix
        shrink = np.abs(np.linalg.norm(matrix[:, :2], axis=0))  # frame pixels per image pixel, in x and y
        if (shrink < 0.5).any():
            # A bilinear warp reads only four pixels, so a large photograph is first averaged down to avoid aliasing.
            height, width = image.shape[:2]
            smaller = [max(1, round(side * min(1.0, 1.5 * s))) for side, s in zip((width, height), shrink, strict=True)]
            image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
            back = np.array([width / smaller[0], height / smaller[1]])
            matrix = np.column_stack([matrix[:, :2] * back, matrix[:, 2]])
        # In OpenCV (0, 0) is the centre of the first pixel; here it is its corner.
        shift = matrix[:, 2] + matrix[:, :2] @ (0.5, 0.5) - 0.5
        return cv2.warpAffine(
            image,
            np.column_stack([matrix[:, :2], shift]),
            self.size_hw[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def boxes(self, regions: Regions) -> np.ndarray:
        """Return all R regions in this view, in layout order: float32 ``(R, 4)`` xyxy in fractions of the frame.

        Primary boxes are the exact bounding boxes of the transformed keypoints, clipped to the frame; secondary boxes
        are unions of transformed primary ones.
        """
        moved = move_points(self.matrix, regions.hull_xy)
        height, width = self.size_hw
        primary = boxes_of_hulls(moved, regions.hull_counts, (width, height))
        return (regions.layout.boxes(primary) / np.array([width, height, width, height])).astype(np.float32)


def erased(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return uint8 RGB ``(..., H, W, 3)`` with a random rectangle in ImageNet's mean colour (Zhong et al., 2020).

    The rectangle covers 2 to 40 % of the image, with sides in a ratio of 0.3 to 1 / 0.3; it is the same in all frames.
    """
    height, width = pixels.shape[-3:-1]
    for _ in range(100):
        area, ratio = generator.uniform(0.02, 0.4) * height * width, generator.uniform(0.3, 1 / 0.3)
        high, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if high < height and wide < width:
            top, left = generator.integers(height - high + 1), generator.integers(width - wide + 1)
            pixels = pixels.copy()
            pixels[..., top : top + high, left : left + wide, :] = MEAN_COLOUR
            return pixels
    return pixels

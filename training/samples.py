"""A new image as a network gets it: read, its regions proposed, both squashed. No torch: workers start fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ..data.errors import ImageError
from ..data.images import read_image
from ..data.inputs import Input
from ..data.regions import Regions
from .augmentation import View

Propose = Callable[[np.ndarray], Regions]  #: stage 1 for one image: uint8 RGB ``(H, W, 3)`` -> its regions


@dataclass(frozen=True)
class Sample:
    """One image, ready for the network."""

    name: str
    pixels: np.ndarray  #: uint8 RGB ``(side, side, 3)``
    boxes: np.ndarray  #: float32 ``(R, 4)`` xyxy in fractions of the image; R = 0 without regions
    regions: Regions | None  #: as they were proposed, in pixels of the original


@dataclass(frozen=True)
class Unreadable:
    """An image of which nothing can be said, and why."""

    name: str
    reason: str  #: one line, which names the image


def sample(name: str, image: np.ndarray, side: int, propose: Propose | None) -> Sample:
    """An image as a network sees it that looks at ``side`` × ``side`` pixels.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        propose: None for a network that looks at no regions.
    """
    regions = propose(image) if propose else None
    view = View.of((image.shape[1], image.shape[0]), side)
    boxes = np.zeros((0, 4), dtype=np.float32) if regions is None else view.boxes(regions)
    return Sample(name, view.pixels(image), boxes, regions)


def sample_or_reason(name: str, image: np.ndarray, side: int, propose: Propose | None) -> Sample | Unreadable:
    """`sample`, or why there are no regions to propose."""
    try:
        return sample(name, image, side, propose)
    except (cv2.error, MemoryError) as error:
        reason = (str(error).strip().splitlines() or ["not enough memory"])[0]
        return Unreadable(name, f"{name}: proposing its regions failed: {reason}")


def sample_of_file(name: str, side: int, propose: Propose | None) -> Sample | Unreadable:
    """`sample_or_reason` of the image file ``name``, also where it cannot be read."""
    try:
        image = read_image(name)
    except ImageError as error:
        return Unreadable(name, str(error))
    return sample_or_reason(name, image, side, propose)


def sample_of_input(one: Input, side: int, propose: Propose | None) -> Sample | Unreadable:
    """`sample_of_file` of a photograph, or why an argument found none."""
    return Unreadable(one.name, one.problem) if one.problem else sample_of_file(one.name, side, propose)


def lost_sample(one: Input, reason: str) -> Unreadable:
    """What is said of a photograph that killed the process which read it."""
    return Unreadable(one.name, f"{one.name}: {reason}")

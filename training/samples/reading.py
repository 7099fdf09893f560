"""A new image as a network gets it: read, its regions proposed, both squashed. No torch: workers start fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ...data.errors import ImageError
from ...data.images import MAX_PIXELS, read_image
from ...data.inputs import Input
from ...data.regions import Regions
from ...data.text import first_line
from ...data.videos import Video
from .views import View

_FEW = 20  # photographs that may be read once more than needed, rather than wait for a network with nothing to see

Propose = Callable[[np.ndarray], Regions]  #: stage 1 for one image: uint8 RGB ``(H, W, 3)`` -> its regions


@dataclass(frozen=True)
class Sample:
    """One image, ready for the network."""

    name: str
    pixels: np.ndarray  #: uint8 RGB ``(H, W, 3)``, of the size that the network takes
    boxes: np.ndarray | None  #: float32 ``(R, 4)`` xyxy in fractions of the image; None without regions
    regions: Regions | None  #: as they were proposed, in pixels of the original


@dataclass(frozen=True)
class Unreadable:
    """An image of which nothing can be said, and why."""

    name: str
    reason: str  #: one line, which names the image


def sample(name: str, image: np.ndarray, size_hw: tuple[int, int], propose: Propose | None) -> Sample:
    """An image as a network sees it.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        size_hw: height and width of the network's input.
        propose: None for a network that looks at no regions.
    """
    regions = propose(image) if propose else None
    view = View.of((image.shape[1], image.shape[0]), size_hw)
    boxes = None if regions is None else view.boxes(regions)
    return Sample(name, view.pixels(image), boxes, regions)


def sample_or_reason(
    name: str, image: np.ndarray, size_hw: tuple[int, int], propose: Propose | None
) -> Sample | Unreadable:
    """`sample`, or why there are no regions to propose."""
    try:
        return sample(name, image, size_hw, propose)
    except (cv2.error, MemoryError) as error:
        reason = first_line(error, "not enough memory")
        return Unreadable(name, f"{name}: proposing its regions failed: {reason}")


def sample_of_file(
    name: str, size_hw: tuple[int, int], propose: Propose | None, max_pixels: int = MAX_PIXELS
) -> Sample | Unreadable:
    """`sample_or_reason` of the image file ``name``, also where it cannot be read."""
    try:
        image = read_image(name, max_pixels)
    except ImageError as error:
        return Unreadable(name, str(error))
    return sample_or_reason(name, image, size_hw, propose)


def sample_of_input(
    one: Input, size_hw: tuple[int, int], propose: Propose | None, max_pixels: int = MAX_PIXELS
) -> Sample | Unreadable:
    """`sample_of_file` of a photograph, or why an argument found none."""
    return Unreadable(one.name, one.problem) if one.problem else sample_of_file(one.name, size_hw, propose, max_pixels)


def some_can_be_read(inputs: Sequence[Input], max_pixels: int, *, decode: bool) -> bool:
    """Whether there is anything for a network to look at.

    Args:
        decode: whether to decode photographs, here, until one can be; else, and for videos and many photographs, it is
            enough that they are there.
    """
    there = [one for one in inputs if not one.problem and os.path.isfile(one.name)]  # noqa: PTH113 - as in find_inputs
    if not decode or len(there) > _FEW or any(one.is_video for one in there):
        return bool(there)
    return any(isinstance(sample_of_input(one, (1, 1), None, max_pixels), Sample) for one in there)


def unreadable_inputs(inputs: Sequence[Input], max_pixels: int) -> Generator[Unreadable, None, None]:
    """What is said of each, where `some_can_be_read` is not so."""
    for one in inputs:
        try:
            if one.is_video:
                with Video(one.name, max_pixels):
                    pass
            found = sample_of_input(one, (1, 1), None, max_pixels)
        except ImageError as error:
            found = Unreadable(one.name, str(error))
        yield found if isinstance(found, Unreadable) else Unreadable(one.name, f"{one.name}: it has just changed")


def lost_sample(one: Input, reason: str) -> Unreadable:
    """What is said of a photograph that killed the process which read it."""
    return Unreadable(one.name, f"{one.name}: {reason}")

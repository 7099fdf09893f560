"""Prepare a new image for a network: read it, propose regions, resize both. No torch, so that workers start fast."""

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

_FEW = 20  # photographs that may be read twice, to avoid loading a network without a usable image

Propose = Callable[[np.ndarray], Regions]  #: stage 1 for one image: uint8 RGB ``(H, W, 3)`` -> regions

#: Stage 1 for the frames of a clip, uint8 RGB ``(H, W, 3)`` each: regions of each frame, and whether their primary ones
#: have keypoints in it, bool ``(T, κ)``
ProposeTubes = Callable[[Sequence[np.ndarray]], tuple[list[Regions], np.ndarray]]


@dataclass(frozen=True)
class Sample:
    """One image, ready for the network."""

    name: str
    pixels: np.ndarray  #: uint8 RGB ``(H, W, 3)``, at the network's input size
    boxes: np.ndarray | None  #: float32 ``(R, 4)`` xyxy in fractions of the image; None without regions
    regions: Regions | None  #: as proposed, in pixels of the original image


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be processed, and the reason."""

    name: str
    reason: str  #: one line that names the image


def sample(name: str, image: np.ndarray, size_hw: tuple[int, int], propose: Propose | None) -> Sample:
    """Prepare an image for a network.

    Args:
        name: Name of the image.
        image: Pixels, uint8 RGB ``(H, W, 3)``.
        size_hw: Height and width of the network's input in pixels.
        propose: Function that proposes regions; None for a network without regions.
    """
    regions = propose(image) if propose else None
    view = View.of((image.shape[1], image.shape[0]), size_hw)
    boxes = None if regions is None else view.boxes(regions)
    return Sample(name, view.pixels(image), boxes, regions)


def sample_or_reason(
    name: str, image: np.ndarray, size_hw: tuple[int, int], propose: Propose | None
) -> Sample | Unreadable:
    """Call `sample`, and return the reason if proposing regions fails."""
    try:
        return sample(name, image, size_hw, propose)
    except (cv2.error, MemoryError) as error:
        reason = first_line(error, "not enough memory")
        return Unreadable(name, f"{name}: proposing its regions failed: {reason}")


def sample_of_file(
    name: str, size_hw: tuple[int, int], propose: Propose | None, max_pixels: int = MAX_PIXELS
) -> Sample | Unreadable:
    """Read the image file ``name`` and call `sample_or_reason`; return the reason if it cannot be read."""
    try:
        image = read_image(name, max_pixels)
    except ImageError as error:
        return Unreadable(name, str(error))
    return sample_or_reason(name, image, size_hw, propose)


def sample_of_input(
    one: Input, size_hw: tuple[int, int], propose: Propose | None, max_pixels: int = MAX_PIXELS
) -> Sample | Unreadable:
    """Call `sample_of_file` for an input, or return the reason why the input has no image."""
    return Unreadable(one.name, one.problem) if one.problem else sample_of_file(one.name, size_hw, propose, max_pixels)


def some_can_be_read(inputs: Sequence[Input], max_pixels: int, *, decode: bool) -> bool:
    """Whether any input can be read.

    Args:
        inputs: Photographs and videos.
        max_pixels: Largest number of pixels that is decoded.
        decode: Whether to decode photographs until one succeeds. Otherwise, and for videos or many photographs, an
            existing file is enough.
    """
    there = [one for one in inputs if not one.problem and os.path.isfile(one.name)]  # noqa: PTH113 - as in find_inputs
    if not decode or len(there) > _FEW or any(one.is_video for one in there):
        return bool(there)
    return any(isinstance(sample_of_input(one, (1, 1), None, max_pixels), Sample) for one in there)


def unreadable_inputs(inputs: Sequence[Input], max_pixels: int) -> Generator[Unreadable, None, None]:
    """Yield the reason for each input, after `some_can_be_read` has returned False."""
    for one in inputs:
        try:
            if one.is_video:
                with Video(one.name, max_pixels):
                    pass
            found = sample_of_input(one, (1, 1), None, max_pixels)
        except ImageError as error:
            found = Unreadable(one.name, str(error))
        yield found if isinstance(found, Unreadable) else Unreadable(one.name, f"{one.name}: the file has just changed")


def lost_sample(one: Input, reason: str) -> Unreadable:
    """Return the reason for a photograph whose worker process died while reading it."""
    return Unreadable(one.name, f"{one.name}: {reason}")

"""Clips: video files or folders of numbered frames, read by time.

Frames are chosen by their time stamps, never by their number, so that clips of 29.97 and of 30 frames a second, or of a
varying rate, are sampled alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from .contents import frame_files
from .errors import ImageError
from .images import MAX_PIXELS, read_image
from .videos import USUAL_RATE, Frame, Video

_NEAR = 0.5  # a frame is chosen from half a frame before its time on, so that rounded times choose the nearest one


class Clip(Protocol):
    """What `Video` and `FrameFolder` have in common; a context manager."""

    size_wh: tuple[int, int]
    rate: float

    def chosen(self, wanted: Callable[[int, float], bool]) -> Iterator[Frame]:
        """Yield the frames whose number and time in seconds are ``wanted``; it is called for every frame, in order."""

    def __enter__(self) -> Clip: ...

    def __exit__(self, *exception: object) -> None: ...


class FrameFolder:
    """A folder of numbered images, the frames of a clip in the order of their numbers; a context manager.

    Raises: `ImageError` if the folder holds no images, or the first one cannot be read.
    """

    def __init__(self, path: str | Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path, self.max_pixels = Path(path), max_pixels
        self.files = frame_files(self.path)
        if not self.files:
            raise ImageError(f"{path}: the folder holds no images")
        self.rate = USUAL_RATE  #: frames per second, which a folder does not tell
        height, width = read_image(self.path / self.files[0], max_pixels).shape[:2]
        self.size_wh = width, height

    def chosen(self, wanted: Callable[[int, float], bool]) -> Iterator[Frame]:
        """Yield the wanted frames. Raises: `ImageError` for one that cannot be read or has another size."""
        for number, file in enumerate(self.files):
            seconds = number / self.rate
            if not wanted(number, seconds):
                continue
            pixels = read_image(self.path / file, self.max_pixels)
            if pixels.shape[1::-1] != self.size_wh:
                width, height = self.size_wh
                raise ImageError(
                    f"{self.path / file}: has {pixels.shape[1]} x {pixels.shape[0]} pixels, but the clip's first frame "
                    f"{width} x {height}"
                )
            yield Frame(number, seconds, pixels)

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def open_clip(path: str | Path, max_pixels: int = MAX_PIXELS) -> Clip:
    """Open a clip, a video file or a folder of numbered frames. Raises: `ImageError` as these do."""
    return FrameFolder(path, max_pixels) if Path(path).is_dir() else Video(path, max_pixels)


def frames_at(clip: Clip, times: Iterable[float], rate: float | None = None) -> Iterator[Frame]:
    """Yield the frames nearest to the given times, each once: fewer than times if one is nearest to several.

    Args:
        clip: Open clip, which is read up to the last of these frames.
        times: Times in seconds, increasing; of those after the last frame's, only the first ones may give it.
        rate: Average number of frames per second; by default the clip's own, which is the header's.
    """
    before = _NEAR / (rate or clip.rate)
    left = iter(times)
    due = next(left, None)

    def wanted(number: int, seconds: float) -> bool:
        nonlocal due
        found = False
        while due is not None and seconds > due - before:
            due = next(left, None)
            found = True
        return found

    for frame in clip.chosen(wanted):
        yield frame
        if due is None:
            break


def frames_numbered(path: str | Path, numbers: Collection[int], max_pixels: int = MAX_PIXELS) -> list[Frame]:
    """Read the frames with these numbers, in order. Raises: `ImageError` if the clip cannot be read up to the last."""
    with open_clip(path, max_pixels) as clip:
        found = list(islice(clip.chosen(lambda number, seconds: number in numbers), len(numbers)))
    if len(found) < len(numbers):
        raise ImageError(f"{path}: has fewer frames than before")
    return found

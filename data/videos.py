"""The only module that decodes and encodes videos."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from .decoding.containers import look_into
from .errors import ImageError
from .images import MAX_PIXELS

VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"),
        *(".3gp", ".ts", ".mts", ".m2ts", ".mjpeg"),
    }
)

USUAL_RATE = 25.0  #: frames per second, where a file does not tell
_RATES = (0.1, 240.0)  # frames per second; headers of broken files and of some recorders say 0, 1000 or 90,000
_WHOLE = 0.9  # share of the pictures in the file; with some encoders, one in ten is never shown
# Codecs that may store interlaced fields, two of which make one frame.
_OF_FIELDS = ("avc", "h264", "x264", "hev", "hvc", "mpg2", "mp2v", "m2v", "wvc1", "vc-1")


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    number: int  #: from 0, in the file's order; skipped frames are counted
    seconds: float  #: time since the start by the file's clock; never decreases
    pixels: np.ndarray  #: uint8 RGB ``(H, W, 3)``, upright


class Video:
    """A video file, open for reading its frames once; a context manager.

    Rotation in the metadata is applied. Frames come at the times given in the file, which need not be evenly spaced.

    Raises: `ImageError` if the file does not exist, cannot be read as a video, or announces frames of more than
        ``max_pixels``.
    """

    def __init__(self, path: str | Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        _check_file(Path(path))
        _silence()
        self._capture = cv2.VideoCapture(str(path), _backend())
        try:
            if not self._capture.isOpened():
                raise ImageError(f"{path}: its content is not in a supported video format, or is damaged")
            width, height = (int(self._get(what)) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            if width * height > max_pixels:
                raise ImageError(
                    f"{path}: the header announces frames of {width} x {height} pixels, more than the limit of "
                    f"{max_pixels:,}"
                )
        except ImageError:
            self._capture.release()
            raise
        rate = self._get(cv2.CAP_PROP_FPS)
        self.size_wh = width, height
        #: average frames per second; a common value if the header's is implausible
        self.rate = rate if _RATES[0] <= rate <= _RATES[1] else USUAL_RATE
        count = self._get(cv2.CAP_PROP_FRAME_COUNT)
        try:
            self._container = look_into(path)
        except OSError as error:
            self._capture.release()
            raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
        #: number of pictures in the file, or the header's number, which may be wrong; None if it has none
        self.announced_frames = self._container.pictures or (int(count) if 0 < count < 2**30 else None)

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Yield frames 0, ``every``, 2 · ``every``, ...; see `chosen`."""
        return self.chosen(lambda number, seconds: number % every == 0)

    def chosen(self, wanted: Callable[[int, float], bool]) -> Iterator[Frame]:
        """Yield the frames that are wanted; the others are skipped, which is cheaper than reading them.

        Args:
            wanted: Function of a frame's number and its time in seconds, called for every frame, in order.

        Raises: `ImageError` at the end, if there was no frame at all, the file ends before its container does, or many
            of its pictures could not be decoded.
        """
        number, seconds, first = 0, 0.0, 0.0
        while self._capture.grab():
            told = self._get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not number:
                first = told
            else:
                # Streams without a clock report 0 for every frame; spliced ones jump back.
                seconds = told - first if told - first > seconds else seconds + 1 / self.rate
            if wanted(number, seconds):
                there, pixels = self._capture.retrieve()
                if not there:
                    break
                yield Frame(number, seconds, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            number += 1
        if not number:
            raise ImageError(f"{self.path}: it has no readable frame{self._why_none()}")
        self._check_whole(number)

    def _check_whole(self, number: int) -> None:
        """Check against the pictures in the file, not its duration, which another track or clock may determine."""
        there = self._container
        if there.missing:
            trouble = "the file ends before its content does; it was cut off"
        elif there.pictures and number < _WHOLE * there.pictures and not self._are_fields(number, there.pictures):
            trouble = f"it holds {there.pictures:,} pictures; it is damaged"
        elif there.broken:
            trouble = "the data between them cannot; it is damaged"
        else:
            return
        raise ImageError(f"{self.path}: {number:,} frame{'s' if number != 1 else ''} can be read, but {trouble}")

    def _why_none(self) -> str:
        if not self._container.pictures or self._container.missing or self._container.broken:
            return ""
        return (
            f"; its {self._container.pictures:,} pictures are coded as {self._codec().strip() or 'an unknown codec'}, "
            "for which this OpenCV may have no decoder: convert it to H.264"
        )

    def _are_fields(self, frames: int, pictures: int) -> bool:
        return self._codec().lower().startswith(_OF_FIELDS) and abs(2 * frames - pictures) <= 0.02 * pictures

    def _codec(self) -> str:
        return int(self._get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=False).decode("latin-1")

    def _get(self, what: int) -> float:
        value = self._capture.get(what)
        return value if math.isfinite(value) else 0.0

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.release()


class VideoWriter:
    """An MP4 file (MPEG-4 part 2) that appears, complete, when it is closed or its block succeeds, or not at all.

    Args:
        path: Output path, ending in .mp4.
        rate: Frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.frames = 0
        self._unfinished = path.with_name(f".{path.stem}.unfinished.mp4")
        self._size_wh = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, picture: np.ndarray) -> None:
        """Add a frame, uint8 RGB ``(H, W, 3)``. The first frame sets the video's size, rounded down to even numbers.

        Raises: `ImageError` if OpenCV cannot write such a file.
        """
        if self._writer is None:
            height, width = picture.shape[:2]
            self._size_wh = width - width % 2, height - height % 2
            _silence()
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._unfinished), code, self.rate, self._size_wh)
            if not self._writer.isOpened():
                raise ImageError(f"{self.path}: this build of OpenCV cannot write MPEG-4 video there")
        width, height = self._size_wh
        if picture.shape[0] - height not in (0, 1) or picture.shape[1] - width not in (0, 1):
            picture = cv2.resize(picture, self._size_wh, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))
        self.frames += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(keep=error is None)

    def close(self, keep: bool) -> None:
        """Finish the file, which appears if ``keep``. Raises: `ImageError` if it was not written completely."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if keep:
                self._check()
                self._unfinished.replace(self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _check(self) -> None:
        """Compare the number of frames in the file with those written: OpenCV does not report a full disk."""
        written = cv2.VideoCapture(str(self._unfinished), _backend())
        there = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if there != self.frames:
            raise ImageError(
                f"{self.path}: only {max(there, 0)} of {self.frames} frames were written; is the disk full?"
            )


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise ImageError(f"{path}: cannot be read: No such file or directory")
        if not path.is_file():  # a pipe would block, a device never ends
            raise ImageError(f"{path}: is not a file")
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not start:
        raise ImageError(f"{path}: the file is empty")
    if start.lstrip(b"\xef\xbb\xbf").startswith((b"#EXTM3U", b"ffconcat")):  # would open any files it lists
        raise ImageError(f"{path}: its content is a list of other files, which are not opened; refused")


def _backend() -> int:
    """FFmpeg if available; OpenCV's other backends take a name such as a%d.mp4 for a sequence of files."""
    return cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY


def _silence() -> None:
    """Silence FFmpeg and OpenCV: their output on a damaged file names neither the file nor a remedy; our errors do."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

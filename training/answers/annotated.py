"""Predictions drawn into pictures and videos, saved in a folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from ...data.drawing import captioned_sheet, save_picture
from ...data.errors import ImageError
from ...data.images import MAX_PIXELS, read_image
from ...data.text import printable
from ...data.videos import VideoWriter
from ..samples.reading import Unreadable
from .answer import Answer, Moment, Still, Stretch, Summary
from .pictures import Caption, attention_note, draw_attention, draw_frame, draw_prediction
from .predict import Attention
from .truth import KnownImages

STRIP_FRAMES = 8  #: largest number of frames in the strip of a video
_LONGEST_STILL = 5.0  # seconds: maximum duration of a frame in a saved video, whatever its time stamps


class AnnotatedFolder:
    """Writer of a picture for each photograph and a video for each video, annotated with the predictions.

    A context manager. Files are named after their input and its folder, never replace existing files and appear
    complete or not at all; a video appears once its last answer is saved. The folder is created with the first file.

    Args:
        folder: Folder for the files.
        classes: Names of the network's classes, in its order.
        run: Line of text that names the run.
        known: Images with known classes, if any.
        max_pixels: Maximum number of pixels of a photograph.
    """

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        run: str = "",
        known: KnownImages | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.folder, self.max_pixels = folder, max_pixels
        self._classes, self._run, self._known = classes, run, known
        self._video = ""  # the current video
        self._writer: VideoWriter | None = None  # its writer
        self._strip = _Strip()
        self.strip: Path | None = None  #: strip of frames that was saved with the latest video, if any

    def save(self, answer: Answer) -> Path | Unreadable | None:
        """Save the next answer of `FilePredictor.answers`, which must be created with ``pictures``.

        Returns: the file, if one was completed; `Unreadable` if the photograph no longer exists or the video cannot be
        written; the rest of that video is then skipped.
        """
        try:
            if isinstance(answer, Still):
                return self._save_picture(answer)
            if isinstance(answer, Stretch):
                self._close(keep=False)
                self._video, self._strip = answer.video, _Strip()
                if answer.video:
                    self._writer = VideoWriter(new_file(self.folder, Path(answer.video), ".mp4"), answer.rate)
            elif isinstance(answer, Moment) and self._writer is not None:
                write_moment(self._writer, answer)
                self._strip.add(answer)
            elif isinstance(answer, Summary) and self._writer is not None:
                target = self._writer.path
                self._close(keep=True)
                video = Path(self._video)
                self.strip = self._strip.save(
                    new_file(self.folder, video.with_stem(f"{video.stem}-strip"), ".png"), video.name
                )
                return target
        except ImageError as error:
            self._close(keep=False)
            return Unreadable(answer.prediction.name if isinstance(answer, Still) else self._video, str(error))
        return None

    def __enter__(self) -> AnnotatedFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(keep=error is None)

    def _save_picture(self, answer: Still) -> Path:
        name = answer.prediction.name
        image = read_image(name, self.max_pixels)  # read again: many images wait for the network, too large to keep
        truth = self._known.truth(name) if self._known else None
        caption = Caption(self._classes, self._run, answer.label, truth)
        return save_picture(
            draw_prediction(image, answer.prediction, caption), new_file(self.folder, Path(name), ".png")
        )

    def _close(self, keep: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(keep)


class _Strip:
    """Some frames of a video with the attention of a network of clips, evenly spaced, whose number is not known."""

    def __init__(self) -> None:
        self._tiles: list[tuple[np.ndarray, str, Attention]] = []
        self._seen, self._stride = 0, 1

    def add(self, answer: Moment) -> None:
        """Keep every frame at first, then every 2nd, 4th, ..."""
        attention = answer.prediction.attention
        if attention is not None and self._seen % self._stride == 0:
            caption = f"{answer.frame.seconds:.1f} s · {answer.label.name} {answer.label.probability:.0%}"
            self._tiles.append((draw_attention(answer.frame.pixels, answer.prediction), caption, attention))
            if len(self._tiles) == 2 * STRIP_FRAMES:
                self._tiles, self._stride = self._tiles[::2], 2 * self._stride
        self._seen += 1

    def save(self, path: Path, name: str) -> Path | None:
        """Draw the strip. Returns: ``path``; None without attention, where nothing is drawn."""
        if not self._tiles:
            return None
        count = min(STRIP_FRAMES, len(self._tiles))
        chosen = [self._tiles[number * len(self._tiles) // count] for number in range(count)]
        note = attention_note([attention for _, _, attention in chosen])
        return save_picture(captioned_sheet([tile[:2] for tile in chosen], 4, f"{name} · {note}"), path)


def new_file(folder: Path, image: Path, suffix: str) -> Path:
    """The first unused file name of class-photo.png, class-photo-2.png, ... in a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    name = printable("-".join([*image.parts[-2:-1], image.stem]).lstrip(".-/")) or "image"
    numbered = (folder / f"{name}-{number}{suffix}" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder / f"{name}{suffix}"], numbered) if not path.exists())


def write_moment(writer: VideoWriter, moment: Moment) -> None:
    """Write a frame as often as its time stamp requires; see `write_at`."""
    write_at(writer, moment.frame.seconds, lambda: draw_frame(moment.frame.pixels, moment.prediction, moment.label))


def write_at(writer: VideoWriter, seconds: float, draw: Callable[[], np.ndarray]) -> None:
    """Write a picture as often as its time stamp requires, since time stamps may be uneven; not drawn if never."""
    due = round(seconds * writer.rate) + 1 - writer.frames
    if due > 0:
        picture = draw()
        for _ in range(min(due, max(1, round(_LONGEST_STILL * writer.rate)))):
            writer.write(picture)

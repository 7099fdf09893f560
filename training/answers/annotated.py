"""Answers as pictures and videos in a folder."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import TracebackType

from ...data.drawing import save_picture
from ...data.errors import ImageError
from ...data.images import MAX_PIXELS, read_image
from ...data.text import printable
from ...data.videos import VideoWriter
from ..samples.reading import Unreadable
from .answer import Answer, Moment, Still, Stretch, Summary
from .pictures import Caption, draw_frame, draw_prediction
from .truth import KnownImages

_LONGEST_STILL = 5.0  # seconds: a frame that is said to last longer is shown so long in a saved video


class AnnotatedFolder:
    """A picture of each photograph and a video of each video, with what was predicted drawn in. A context manager.

    Files are named after their image and its folder, as no other file there is, and appear complete or not at all: a
    video when its last answer is saved. The folder is made with the first of them.

    Args:
        folder: where they go.
        classes: all of the network's, in its order.
        run: whose answers they are, for people.
        known: images whose classes are known, if there are any.
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
        self._video = ""  # that is being answered
        self._writer: VideoWriter | None = None  # of it

    def save(self, answer: Answer) -> Path | Unreadable | None:
        """Save the next of `FilePredictor.answers`, made with ``pictures``.

        Returns: the file, if one is finished; `Unreadable` when the photograph is gone by now, or the video cannot be
        written, and no more of that video is saved.
        """
        try:
            if isinstance(answer, Still):
                return self._save_picture(answer)
            if isinstance(answer, Stretch):
                self._close(keep=False)
                self._video = answer.video
                if answer.video:
                    self._writer = VideoWriter(self._new(Path(answer.video), ".mp4"), answer.rate)
            elif isinstance(answer, Moment) and self._writer is not None:
                write_moment(self._writer, answer)
            elif isinstance(answer, Summary) and self._writer is not None:
                target = self._writer.path
                self._close(keep=True)
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
        image = read_image(name, self.max_pixels)  # again: images are large, and many wait for the network
        truth = self._known.truth(name) if self._known else None
        caption = Caption(self._classes, self._run, answer.label, truth)
        return save_picture(draw_prediction(image, answer.prediction, caption), self._new(Path(name), ".png"))

    def _close(self, keep: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(keep)

    def _new(self, image: Path, suffix: str) -> Path:
        """class-photo.png, class-photo-2.png, ...: the first that is not taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = printable("-".join([*image.parts[-2:-1], image.stem]).lstrip(".-/")) or "image"
        numbered = (self.folder / f"{name}-{number}{suffix}" for number in itertools.count(2))
        return next(path for path in itertools.chain([self.folder / f"{name}{suffix}"], numbered) if not path.exists())


def write_moment(writer: VideoWriter, moment: Moment) -> None:
    """Add a frame as often as its time asks for: the file's own may come unevenly."""
    due = round(moment.frame.seconds * writer.rate) + 1 - writer.frames
    if due > 0:
        picture = draw_frame(moment.frame.pixels, moment.prediction, moment.label)
        for _ in range(min(due, max(1, round(_LONGEST_STILL * writer.rate)))):
            writer.write(picture)

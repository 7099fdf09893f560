"""Predictions as lines of text, JSON or CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from ..training.answers.answer import Answer, Moment, Summary
    from ..training.answers.predict import Prediction
    from ..training.answers.video_labels import Label
    from ..training.models.contract import Views
    from ..training.samples.reading import Unreadable

FORMATS = ("text", "json", "csv")
_WIDEST_NAME = 48


class Written:
    """An output stream to which whole lines are written.

    Args:
        stream: Output stream.
        format_: One of `FORMATS`.
    """

    def __init__(self, stream: TextIO, format_: str) -> None:
        self.stream, self.format = stream, format_

    def _json(self, values: dict[str, Any]) -> None:
        self._line(json.dumps(values))  # ASCII: file names that are not valid Unicode survive as escapes

    def _row(self, values: list[object]) -> None:
        from ..data.text import csv_text

        self._write(csv_text([values]))

    def _line(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class Lines(Written):
    """Write each answer as soon as it is available, in whole lines.

    Args:
        stream: Output stream.
        format_: One of `FORMATS`.
        columns: Number of classes listed for each image.
        names: Names of all images, used to align the columns of text.
        classes: Names of all classes, used to align the columns of text.
        pictures: Whether to add a column with the pictures of the images.
        views: Views that the answers are averaged over, which JSON lines name.
    """

    def __init__(
        self,
        stream: TextIO,
        format_: str,
        columns: int,
        names: list[str],
        classes: tuple[str, ...],
        pictures: bool = False,
        views: Views | None = None,
    ) -> None:
        from ..data.text import columns as width_of

        super().__init__(stream, format_)
        self.columns, self._pictures = columns, pictures
        self._views = {"views": views.record} if views else {}
        self._name_width = min(max(map(width_of, names), default=0), _WIDEST_NAME) + 1
        self._class_width = min(max(map(width_of, classes)), _WIDEST_NAME)
        if format_ == "csv":
            ranks = [f"{what}_{rank}" for rank in range(1, columns + 1) for what in ("class", "probability")]
            picture = ["picture"] if pictures else []
            self._row(["image", "frame", "seconds", "label", "probability", *ranks, *picture, "error"])

    def tell(self, answer: Answer, picture: str | None = None) -> list[str]:
        """Write an answer, with the name of its annotated picture or video.

        Returns: lines for stderr that the format has no place for.
        """
        from ..training.answers.answer import Moment, Still, Summary
        from ..training.samples.reading import Unreadable

        if isinstance(answer, Still):
            self._still(answer.prediction, answer.label, picture)
        elif isinstance(answer, Moment):
            self._moment(answer)
        elif isinstance(answer, Summary):
            return self._summary(answer, picture)
        elif isinstance(answer, Unreadable):
            self._unreadable(answer)
        return []

    def _still(self, prediction: Prediction, label: Label, picture: str | None) -> None:
        if self.format == "json":
            shares = {"probabilities": _answer(prediction)}
            self._json({"image": prediction.name, **_label(label), **shares, **self._views, **_picture(picture)})
        elif self.format == "csv":
            self._row([prediction.name, "", "", *_cells(prediction, label), *self._picture_cell(picture), ""])
        else:
            from ..data.text import padded

            unsure = "" if label.name == prediction.classes[0] else f"{label.name}: "
            ranked = (f"{padded(name, self._class_width)} {share:6.1%}" for name, share in _answer(prediction).items())
            self._line(f"{padded(f'{prediction.name}:', self._name_width)} {unsure}{'   '.join(ranked)}")

    def _moment(self, answer: Moment) -> None:
        """Write a frame of a video, except as text, which lists only segments."""
        prediction, frame, label = answer.prediction, answer.frame, answer.label
        seconds = _milliseconds(frame.seconds)
        if self.format == "json":
            self._json(
                {
                    "image": prediction.name,
                    "frame": frame.number,
                    "seconds": seconds,
                    **_label(label),
                    "probabilities": _answer(prediction),
                    **self._views,
                }
            )
        elif self.format == "csv":
            self._row([prediction.name, frame.number, seconds, *_cells(prediction, label), *self._picture_cell(), ""])

    def _summary(self, answer: Summary, picture: str | None) -> list[str]:
        from ..data.text import padded, printable

        told = [
            f"{printable(answer.video)}: {_clock(one.start)} to {_clock(one.end)}  "
            f"{padded(one.label, self._class_width)} {one.probability:6.1%}"
            for one in answer.segments
        ]
        if self.format == "json":
            segments = [
                {
                    "start": _milliseconds(one.start),
                    "end": _milliseconds(one.end),
                    "label": one.label,
                    "probability": digits(one.probability),
                }
                for one in answer.segments
            ]
            self._json({"video": answer.video, "frames": answer.frames, "segments": segments, **_picture(picture)})
        elif self.format == "csv":
            return told
        else:
            for line in told:
                self._line(line)
        return []

    def _unreadable(self, answer: Unreadable) -> None:
        """Write an error, except as text, where it appears only on stderr."""
        if self.format == "json":
            self._json({"image": answer.name, "error": answer.reason})
        elif self.format == "csv":
            self._row([answer.name, *[""] * (4 + 2 * self.columns), *self._picture_cell(), answer.reason])

    def _picture_cell(self, picture: str | None = None) -> list[str]:
        return [picture or ""] if self._pictures else []


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """Open the output. A file appears when it is complete; after an interrupt it is kept as ``NAME.partial``."""
    from ..data.files import atomic_file

    if output is None:
        yield sys.stdout
        return
    with atomic_file(output) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as stream:
        try:
            yield stream
        except KeyboardInterrupt:
            partial_ = output.with_name(f"{output.name}.partial")
            unfinished.replace(partial_)
            click.echo(f"\npartial output: {partial_}", err=True)
            raise


def _answer(prediction: Prediction) -> dict[str, float]:
    shares = map(digits, prediction.probabilities)
    return dict(zip(prediction.classes, shares, strict=True))


def _picture(name: str | None) -> dict[str, str]:
    return {} if name is None else {"picture": name}


def _label(label: Label) -> dict[str, object]:
    return {"label": label.name, "probability": digits(label.probability)}


def _cells(prediction: Prediction, label: Label) -> list[object]:
    ranks = [value for pair in _answer(prediction).items() for value in pair]
    return [label.name, digits(label.probability), *ranks]


def digits(value: float) -> float:
    """Round a probability or similarity to seven significant digits, the precision of float32."""
    return float(f"{value:.7g}")


def _milliseconds(seconds: float) -> float:
    return round(seconds, 3)


def _clock(seconds: float) -> str:
    """Format a time in minutes and seconds, such as 0:04.2."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"

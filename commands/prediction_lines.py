"""Predictions as lines of text, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..data.videos import Frame
    from ..training.predict import Prediction
    from ..training.video_labels import Label, Segment

FORMATS = ("text", "json", "csv")
_WIDEST_NAME = 48


class Lines:
    """Writes each answer as soon as it is there, in whole lines.

    Args:
        stream: where to.
        format_: one of `FORMATS`.
        columns: classes told of each image.
        names: of all images, so that columns of text can be aligned.
        classes: all class names, for the same.
    """

    def __init__(self, stream: TextIO, format_: str, columns: int, names: list[str], classes: tuple[str, ...]) -> None:
        self.stream, self.format, self.columns = stream, format_, columns
        self._name_width = min(max((len(printable(name)) for name in names), default=0), _WIDEST_NAME) + 1
        self._class_width = max(map(len, classes))
        if format_ == "csv":
            ranks = [f"{what}_{rank}" for rank in range(1, columns + 1) for what in ("class", "probability")]
            self._row(["image", "frame", "seconds", "label", "probability", *ranks, "error"])

    def image(self, prediction: Prediction, label: Label) -> None:
        """A photograph's answer."""
        if self.format == "json":
            self._json({"image": prediction.name, **_label(label), "probabilities": _answer(prediction)})
        elif self.format == "csv":
            self._row([prediction.name, "", "", *_cells(prediction, label), ""])
        else:
            unsure = "" if label.name == prediction.classes[0] else f"{label.name}: "
            ranked = (
                f"{printable(name):{self._class_width}} {share:6.1%}" for name, share in _answer(prediction).items()
            )
            self._line(f"{printable(prediction.name) + ':':{self._name_width}} {unsure}{'   '.join(ranked)}")

    def frame(self, prediction: Prediction, frame: Frame, label: Label) -> None:
        """One frame's answer, with the label that frames before it had a part in. Text tells segments only."""
        seconds = round(frame.seconds, 3)
        if self.format == "json":
            self._json(
                {
                    "image": prediction.name,
                    "frame": frame.number,
                    "seconds": seconds,
                    **_label(label),
                    "probabilities": _answer(prediction),
                }
            )
        elif self.format == "csv":
            self._row([prediction.name, frame.number, seconds, *_cells(prediction, label), ""])

    def video(self, name: str, frames: int, segments: list[Segment]) -> list[str]:
        """A video's summary. Returns what the format has no place for: lines for stderr."""
        told = [
            f"{printable(name)}: {_clock(one.start)} to {_clock(one.end)}  "
            f"{printable(one.label):{self._class_width}} {one.probability:6.1%}"
            for one in segments
        ]
        if self.format == "json":
            self._json({"video": name, "frames": frames, "segments": [asdict(one) for one in segments]})
        elif self.format == "csv":
            return told
        else:
            for line in told:
                self._line(line)
        return []

    def error(self, name: str, reason: str) -> None:
        """What cannot be predicted; for text, stderr alone tells it."""
        if self.format == "json":
            self._json({"image": name, "error": reason})
        elif self.format == "csv":
            self._row([name, *[""] * (4 + 2 * self.columns), reason])

    def _json(self, values: dict[str, Any]) -> None:
        self._line(json.dumps(values))  # ASCII: names that are no Unicode survive as escapes

    def _row(self, values: list[object]) -> None:
        row = io.StringIO()
        csv.writer(row, lineterminator="").writerow(
            [printable(value) if isinstance(value, str) else value for value in values]
        )
        self._line(row.getvalue())

    def _line(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would obey; letters that are none become �."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _answer(prediction: Prediction) -> dict[str, float]:
    return dict(zip(prediction.classes, prediction.probabilities, strict=True))


def _label(label: Label) -> dict[str, object]:
    return {"label": label.name, "probability": label.probability}


def _cells(prediction: Prediction, label: Label) -> list[object]:
    ranks = [value for pair in _answer(prediction).items() for value in pair]
    return [label.name, label.probability, *ranks]


def _clock(seconds: float) -> str:
    """Minutes and seconds, 0:04.2."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"

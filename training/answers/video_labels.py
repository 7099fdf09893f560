"""From what a network says of single frames to what a video shows: smoothed labels and segments of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

UNSURE = "unsure"


@dataclass(frozen=True)
class Label:
    """A class with its probability, or `UNSURE` with that of the likeliest class."""

    name: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one label."""

    start: float  #: seconds, of the first frame
    end: float  #: seconds, of the next segment's first frame; of the last one, of the last frame
    label: str
    probability: float  #: mean of its frames' smoothed probabilities


@dataclass
class _Run:
    """Frames in a row with one label."""

    start: float
    label: str
    total: float = 0.0  # of their probabilities
    frames: int = 0


class VideoLabels:
    """Labels of frames that come one after the other, smoothed over time, and the segments they make.

    Probabilities are averaged exponentially, by the frames' own times: what was seen ``width`` seconds ago counts e
    times less than now. A change of label is therefore seen a little after the change. One frame's label depends on
    no later frame.

    Args:
        classes: in the order of the probabilities.
        width: seconds, the time constant; 0 smooths nothing.
        threshold: below this probability of the likeliest class the label is `UNSURE`.
    """

    def __init__(self, classes: tuple[str, ...], width: float, threshold: float = 0.0) -> None:
        self.classes, self.width, self.threshold = classes, width, threshold
        self._mean: np.ndarray | None = None
        self._seconds = 0.0
        self._runs: list[_Run] = []

    def add(self, seconds: float, distribution: np.ndarray) -> Label:
        """The smoothed label of the next frame, shown at ``seconds``, with probabilities ``(classes,)``."""
        now = distribution.astype(np.float64)
        if self._mean is None or not self.width:
            self._mean = now
        else:
            kept = math.exp(-(seconds - self._seconds) / self.width)
            self._mean = kept * self._mean + (1 - kept) * now
        self._seconds = seconds
        label = label_of(self.classes, self._mean, self.threshold)
        if not self._runs or self._runs[-1].label != label.name:
            self._runs.append(_Run(seconds, label.name))
        self._runs[-1].total += label.probability
        self._runs[-1].frames += 1
        return label

    def segments(self) -> list[Segment]:
        """What the frames so far make."""
        ends = [run.start for run in self._runs[1:]] + [self._seconds]
        return [
            Segment(run.start, end, run.label, run.total / run.frames)
            for run, end in zip(self._runs, ends[: len(self._runs)], strict=True)
        ]


def label_of(classes: tuple[str, ...], distribution: np.ndarray, threshold: float = 0.0) -> Label:
    """The likeliest class of ``(classes,)`` probabilities, or `UNSURE` if it is less likely than ``threshold``."""
    best = int(distribution.argmax())
    probability = float(distribution[best])
    return Label(classes[best] if probability >= threshold else UNSURE, probability)

"""Smoothed labels and time segments of a video, from the predictions of its frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

UNSURE = "unsure"


@dataclass(frozen=True)
class Label:
    """A class with its probability, or `UNSURE` with the probability of the likeliest class."""

    name: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A time segment of a video with one label."""

    start: float  #: time of the first frame, in seconds
    end: float  #: time of the next segment's first frame, or of the video's last frame, in seconds
    label: str
    probability: float  #: mean of the frames' smoothed probabilities


@dataclass
class _Run:
    """Consecutive frames with one label."""

    start: float
    label: str
    total: float = 0.0  # sum of the probabilities
    frames: int = 0


class VideoLabels:
    """Labels of successive frames, smoothed over time, and the segments that they form.

    Probabilities are averaged exponentially, by the frames' own times: a frame ``width`` seconds ago counts e times
    less than the current one. A change of label is therefore reported with a short delay. The label of a frame does not
    depend on later frames.

    Args:
        classes: Class names, in the order of the probabilities.
        width: Time constant in seconds; 0 disables smoothing.
        threshold: Probability of the likeliest class below which the label is `UNSURE`.
    """

    def __init__(self, classes: tuple[str, ...], width: float, threshold: float = 0.0) -> None:
        self.classes, self.width, self.threshold = classes, width, threshold
        self._mean: np.ndarray | None = None
        self._seconds = 0.0
        self._runs: list[_Run] = []

    def add(self, seconds: float, distribution: np.ndarray) -> Label:
        """Add the next frame, shown at ``seconds``, with probabilities ``(classes,)``; return its smoothed label."""
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
        """Segments of the frames so far."""
        ends = [run.start for run in self._runs[1:]] + [self._seconds]
        return [
            Segment(run.start, end, run.label, run.total / run.frames)
            for run, end in zip(self._runs, ends[: len(self._runs)], strict=True)
        ]


def label_of(classes: tuple[str, ...], distribution: np.ndarray, threshold: float = 0.0) -> Label:
    """The likeliest class of the probabilities ``(classes,)``, or `UNSURE` if it is less likely than ``threshold``."""
    best = int(distribution.argmax())
    probability = float(distribution[best])
    return Label(classes[best] if probability >= threshold else UNSURE, probability)

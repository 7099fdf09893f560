"""Metrics of a classifier's scores, named as in the paper's tables, with confidence intervals.

Every measure is a function of a weight for each image: weights of 1 return the measure itself, other counts a draw of
the bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from ..titles import MEASURES as MEASURES
from .intervals import gap_interval, measure_intervals
from .statistics import Interval, Statistic, bootstrap, wilson_interval
from .videos import ClipMetrics, counted_as

BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks, 2017
POINTS = 50  # most points of the curve of accuracy against coverage


@dataclass(frozen=True)
class Bin:
    """A bin of the calibration: images whose top probability is in (``above``, ``above`` + 1 / 15]."""

    above: float
    images: int
    confidence: float | None  #: mean top probability; None for an empty bin
    accuracy: float | None  #: None for an empty bin
    interval: Interval | None  #: of the accuracy: Wilson's, 95 %; None for an empty bin


@dataclass(frozen=True)
class Miscalibration:
    """Mean confidence minus accuracy, whose sign the calibration error lacks."""

    overconfidence: float  #: below 0 for an under-confident network
    interval: Interval  #: 95 %, over images
    text: str  #: the same in words


@dataclass(frozen=True)
class Coverage:
    """The images whose confidence, the top probability, is at least ``threshold``."""

    threshold: float
    images: int
    coverage: float  #: their share of all images
    accuracy: float
    interval: Interval  #: of the accuracy: Wilson's, 95 %


@dataclass(frozen=True)
class Metrics:
    """Metrics of an evaluation; shares are in [0, 1]. Classes without images have None and are left out of means."""

    images: int
    top1: float
    top5: float  #: 1 for five classes or fewer
    mean_average_precision: float
    mean_class_accuracy: float
    calibration_error: float  #: ECE: mean |confidence − accuracy| over `BINS` bins, weighted by images
    negative_log_likelihood: float  #: mean −ln(probability of the true class)
    intervals: dict[str, Interval]  #: 95 % over images, seed fixed; by the names above
    class_images: dict[str, int]
    class_accuracy: dict[str, float | None]
    class_intervals: dict[str, Interval | None]  #: of the accuracies: Wilson's, 95 %
    average_precision: dict[str, float | None]  #: one class versus rest, ranked by softmax probability
    confusion: list[list[int]]  #: rows: true classes, columns: predicted classes
    calibration: list[Bin]
    miscalibration: Miscalibration
    coverage: list[Coverage]  #: at most `POINTS` thresholds, the highest first; the last one keeps all images
    clips: ClipMetrics | None = None  #: of clips and frames, if the rows are videos; ``images`` is then that of videos

    @property
    def rows(self) -> str:
        """What the rows are called."""
        return counted_as(self.clips is not None)

    @property
    def counted(self) -> str:
        """Number of rows, and the rule that makes the scores of videos, in words."""
        return f"{self.images:,} {self.rows}{f' by {self.clips.aggregate}' if self.clips else ''}"

    def value(self, name: str) -> float:
        """Value of a measure, or of `ClipMetrics.values`."""
        values: dict[str, float] = self.clips.values if self.clips else {}
        return values[name] if name in values else float(getattr(self, name))

    def interval(self, name: str) -> Interval:
        """Interval of a measure, or of one of `ClipMetrics.values`."""
        return self.intervals[name] if name in self.intervals or not self.clips else self.clips.intervals[name]

    def to_dict(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name != "clips" or value}


class Scores:
    """Scores ``(n, K)`` of a network for n ≥ 1 images with true labels ``(n,)``, and derived quantities.

    Methods with ``counts`` take weights of the images ``(n, D)`` and return a value per column, ``(D,)`` unless stated
    otherwise.
    """

    titles: ClassVar = MEASURES
    tested: ClassVar = "top1"  #: measure that significance tests are about

    def __init__(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self.labels, self.classes = labels, logits.shape[1]
        logits = logits.astype(np.float64)
        own = logits[np.arange(len(labels)), labels][:, None]
        # Ties are won by the first class, as in argmax.
        earlier = np.arange(self.classes) < labels[:, None]
        self.rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)  #: of the true class, 0 for the top
        self.predicted = logits.argmax(axis=1)
        shifted = logits - logits.max(axis=1, keepdims=True)
        odds = np.exp(shifted)
        sums = odds.sum(axis=1, keepdims=True)
        self.probabilities = odds / sums
        self.confidence = self.probabilities.max(axis=1)
        own = np.take_along_axis(shifted, labels[:, None], axis=1)
        self.surprise = (np.log(sums) - own)[:, 0]  #: −ln(probability of the true class)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> np.ndarray:
        """1.0 where the predicted class is the true one, else 0.0; ``(n,)``."""
        return (self.rank < 1).astype(np.float64)

    def top1(self, counts: np.ndarray) -> np.ndarray:
        return _mean(self.right, counts)

    def top5(self, counts: np.ndarray) -> np.ndarray:
        return _mean((self.rank < 5) | (self.classes <= 5), counts)

    def negative_log_likelihood(self, counts: np.ndarray) -> np.ndarray:
        return _mean(self.surprise, counts)

    def class_accuracies(self, counts: np.ndarray) -> np.ndarray:
        """Accuracy of each class ``(K, D)``; NaN for a class without images in a draw."""
        right = self._by_class @ (self.right.astype(counts.dtype)[:, None] * counts)
        return _ratio(right, self._by_class @ counts)

    def mean_class_accuracy(self, counts: np.ndarray) -> np.ndarray:
        return np.nanmean(self.class_accuracies(counts), axis=0)

    def average_precisions(self, counts: np.ndarray) -> np.ndarray:
        """Average precision of each class ``(K, D)``; NaN for a class without images in a draw.

        Sum over thresholds of the increase in recall × precision, where images of equal probability share a threshold,
        as in scikit-learn.
        """
        above, found, first = self._thresholds
        above_counts, found_counts = above @ counts, found @ counts
        precisions = np.full((self.classes, counts.shape[1]), np.nan)
        for k in range(self.classes):
            gained = found_counts[first[k] : first[k + 1]]
            if not len(gained):
                continue
            positives, ranked = gained.cumsum(axis=0), above_counts[first[k] : first[k + 1]].cumsum(axis=0)
            total = (gained * _ratio(positives, ranked, absent=0)).sum(axis=0)
            precisions[k] = _ratio(total, positives[-1])
        return precisions

    def mean_average_precision(self, counts: np.ndarray) -> np.ndarray:
        return np.nanmean(self.average_precisions(counts), axis=0)

    def calibration_error(self, counts: np.ndarray) -> np.ndarray:
        excess = (self.confidence - self.right).astype(counts.dtype)[:, None]
        return np.abs(self._by_bin @ (excess * counts)).sum(axis=0) / counts.sum(axis=0, dtype=np.float64)

    def overconfidence(self, counts: np.ndarray) -> np.ndarray:
        """Mean confidence minus accuracy."""
        return _mean(self.confidence - self.right, counts)

    def statistics(self) -> dict[str, Statistic]:
        """Scalar measures by their names in `Metrics`."""
        return {
            "top1": self.top1,
            "top5": self.top5,
            "mean_average_precision": self.mean_average_precision,
            "mean_class_accuracy": self.mean_class_accuracy,
            "calibration_error": self.calibration_error,
            "negative_log_likelihood": self.negative_log_likelihood,
        }

    def shares(self) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Measures that are shares: the value of each image ``(n,)``, and the classes ``(n,)`` if averaged by class."""
        among_five = (self.rank < 5).astype(np.float64)
        right = self.right
        return {"top1": (right, None), "top5": (among_five, None), "mean_class_accuracy": (right, self.labels)}

    def is_certain(self, measure: str) -> bool:
        """Whether every image counts as right for a measure with this number of classes."""
        return self.classes == 1 or (measure == "top5" and self.classes <= 5)

    def same_as(self, other: object) -> bool:
        """Whether two networks gave the same results."""
        return isinstance(other, Scores) and np.array_equal(self.probabilities, other.probabilities)

    def calibration(self) -> list[Bin]:
        images = np.bincount(self._bin, minlength=BINS)
        confidence, right = (np.bincount(self._bin, values, BINS) for values in (self.confidence, self.right))
        return [
            Bin(k / BINS, n, float(confidence[k]) / n, float(right[k]) / n, wilson_interval(float(right[k]) / n, n))
            if n
            else Bin(k / BINS, 0, None, None, None)
            for k, n in enumerate(images.tolist())
        ]

    def coverage(self) -> list[Coverage]:
        """Accuracy of the images above each of some thresholds, which keep shares of the images in equal steps.

        Images of equal confidence are kept together.
        """
        n = len(self)
        surest = np.argsort(-self.confidence, kind="stable")
        confidence, right = self.confidence[surest], self.right[surest].cumsum()
        wanted = np.ceil(np.arange(1, POINTS + 1) * n / POINTS).astype(np.int64)
        kept = np.unique(np.searchsorted(-confidence, -confidence[wanted - 1], side="right"))
        return [
            Coverage(
                threshold=float(confidence[images - 1]),
                images=images,
                coverage=images / n,
                accuracy=float(right[images - 1]) / images,
                interval=wilson_interval(float(right[images - 1]) / images, images),
            )
            for images in kept.tolist()
        ]

    @cached_property
    def _by_class(self) -> csr_array:
        return _indicator([(self.labels, np.arange(len(self)))], (self.classes, len(self)))

    @cached_property
    def _bin(self) -> np.ndarray:
        return np.maximum(np.ceil(self.confidence * BINS).astype(np.int64) - 1, 0)

    @cached_property
    def _by_bin(self) -> csr_array:
        return _indicator([(self._bin, np.arange(len(self)))], (BINS, len(self)))

    @cached_property
    def _thresholds(self) -> tuple[csr_array, csr_array, list[int]]:
        """Thresholds of all classes: one row per distinct probability among the images of a class, highest first.

        Returns: two indicator matrices ``(rows, n)`` of the images that pass a threshold but no higher one of its class
        (all images, and images of the class), and the first row of each class followed by the number of rows. Images
        below all thresholds of a class do not affect its average precision.
        """
        passing: list[tuple[np.ndarray, np.ndarray]] = []
        of_class: list[tuple[np.ndarray, np.ndarray]] = []
        first = [0]
        for k in range(self.classes):
            probabilities, mine = self.probabilities[:, k], np.flatnonzero(self.labels == k)
            thresholds = np.unique(probabilities[mine])  # ascending
            lowest = thresholds[0] if len(thresholds) else np.inf
            for images, found in ((np.flatnonzero(probabilities >= lowest), passing), (mine, of_class)):
                rows = len(thresholds) - np.searchsorted(thresholds, probabilities[images], side="right")
                found.append((first[-1] + rows, images))
            first.append(first[-1] + len(thresholds))
        return _indicator(passing, (first[-1], len(self))), _indicator(of_class, (first[-1], len(self))), first


def measure(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Compute the metrics of scores ``(n, K)`` with true labels ``(n,)``, n ≥ 1, and K class names.

    A class without images in a draw of the bootstrap is left out of the means of that draw.
    """
    scores = Scores(logits, labels)
    once = np.ones((len(labels), 1))
    statistics = scores.statistics()
    values: dict[str, Any] = {name: float(statistic(once)[0]) for name, statistic in statistics.items()}
    *drawn, drawn_gap = bootstrap([*statistics.values(), scores.overconfidence], len(labels))
    intervals = measure_intervals([scores], np.array([list(values.values())]), np.stack(drawn)[None])
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, scores.predicted), 1)
    return Metrics(
        images=len(labels),
        **values,
        intervals=intervals,
        class_images=dict(zip(classes, confusion.sum(axis=1).tolist(), strict=True)),
        class_accuracy=_by_name(classes, scores.class_accuracies(once)),
        class_intervals=_class_intervals(classes, confusion),
        average_precision=_by_name(classes, scores.average_precisions(once)),
        confusion=confusion.tolist(),
        calibration=scores.calibration(),
        miscalibration=_miscalibration(scores, drawn_gap, intervals["top1"]),
        coverage=scores.coverage(),
    )


def _miscalibration(scores: Scores, drawn: np.ndarray, top1: Interval) -> Miscalibration:
    """Args: drawn: bootstrap draws ``(draws,)`` of `Scores.overconfidence`; top1: the interval of top-1."""
    gap = float((scores.confidence - scores.right).mean())
    interval = gap_interval(drawn, float(scores.confidence.mean()), top1)
    over = "over" if gap >= 0 else "under"
    low, high = (interval.low, interval.high) if gap >= 0 else (-interval.high, -interval.low)
    unsure = ", which holds 0" if low <= 0 else ""
    text = f"{over}-confident by {100 * abs(gap):.1f} points (95% {100 * low:.1f} to {100 * high:.1f}{unsure})"
    return Miscalibration(gap, interval, text)


def _class_intervals(classes: Sequence[str], confusion: np.ndarray) -> dict[str, Interval | None]:
    counted = zip(classes, confusion.diagonal().tolist(), confusion.sum(axis=1).tolist(), strict=True)
    return {name: wilson_interval(right / images, images) if images else None for name, right, images in counted}


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return values.astype(counts.dtype) @ counts / counts.sum(axis=0, dtype=np.float64)


def _ratio(part: np.ndarray, whole: np.ndarray, absent: float = np.nan) -> np.ndarray:
    """part / whole; ``absent`` where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, absent), where=whole > 0)


def _by_name(classes: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Values ``(K, 1)`` by class name, with None for NaN."""
    found = [None if np.isnan(value) else value for value in values[:, 0].tolist()]
    return dict(zip(classes, found, strict=True))


def _indicator(places: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> csr_array:
    """Sparse matrix with ones at the given (rows, columns)."""
    rows, columns = (np.concatenate(parts) for parts in zip(*places, strict=True))
    return csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)

"""What a classifier's scores are worth: scikit-learn's measures under the names of the paper's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix


@dataclass(frozen=True)
class Metrics:
    """Shares of 1. Per-class values are None for a class without images here, and left out of the means."""

    images: int
    top1: float
    top5: float  #: with five classes or fewer every image counts
    mean_average_precision: float
    mean_class_accuracy: float
    class_accuracy: dict[str, float | None]
    average_precision: dict[str, float | None]  #: one class against the rest, ranked by softmax probability
    confusion: list[list[int]]  #: row: the true class, column: the predicted one

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Metrics of scores ``(n, K)`` for true labels ``(n,)``, n ≥ 1; K class names."""
    logits = logits.astype(np.float64)
    numbers = np.arange(len(classes))
    predicted = logits.argmax(axis=1)
    ranked = np.argsort(-logits, axis=1, kind="stable")  # of equal scores the first class wins, as with argmax
    rank = (ranked == labels[:, None]).argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=numbers)
    totals = confusion.sum(axis=1)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    present = totals > 0
    accuracy = {name: confusion[k, k] / totals[k] if present[k] else None for k, name in enumerate(classes)}
    precision = {
        name: float(average_precision_score(labels == k, probabilities[:, k])) if present[k] else None
        for k, name in enumerate(classes)
    }
    return Metrics(
        images=len(labels),
        top1=float((rank < 1).mean()),
        top5=float((rank < 5).mean()) if len(classes) > 5 else 1.0,
        mean_average_precision=_mean(precision),
        mean_class_accuracy=_mean(accuracy),
        class_accuracy={name: None if value is None else float(value) for name, value in accuracy.items()},
        average_precision=precision,
        confusion=confusion.tolist(),
    )


def _mean(values: dict[str, float | None]) -> float:
    return float(np.mean([value for value in values.values() if value is not None]))

"""Tasks that a model can be trained for: the loss of its outputs, the scores computed from them, and their measures.

Training, evaluation and prediction all depend on this module. Its functions import PyTorch only when called, because
commands use the measures that select an epoch before they load PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..data.errors import ConfigurationError, MismatchError
from ..data.names import TRAIN_FOLD

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..data.boxes.reader import Boxes
    from .models.contract import Output
    from .retrieval import Retrieval

SHARE, NATS = "share", "nats"  #: units of measures: a fraction of 1, and natural logarithms of probabilities


@dataclass(frozen=True)
class Measure:
    """A metric computed from the scores of a whole split."""

    name: str  #: name, which logs prefix with the split: val_top1
    unit: str  #: `SHARE` or `NATS`
    higher_is_better: bool
    #: scores ``(n, K)``, labels ``(n,)`` and numbers of cameras ``(n,)``, -1 where unknown -> its value
    of: Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Splits:
    """Names of the splits of a data set, by their use."""

    trained_on: str
    chosen_by: str
    measured_on: tuple[str, ...]  #: all splits that can be evaluated


@dataclass(frozen=True)
class Task:
    """The losses, scores and measures that a model is trained with.

    Args:
        name: Name for display.
        splits: Splits by their use.
        measures: Measures of the split that selects the epoch.
        losses: Function of output, labels ``(B,)``, valid ``(B, T)`` and label smoothing that returns the loss of each
            sample ``(B,)``, without auxiliary losses, and 0 for PyTorch's ``ignore_index``.
        scores: Function of output and valid ``(B, T)`` that returns the scores to save and measure, one row per sample
            ``(B, K)``, float32 or finer.
        hits: Function of output, labels ``(B,)`` and valid ``(B, T)`` that returns whether each sample is correct
            ``(B,)``, for training's top-1.
        classes: Function of a boxes file that returns the names of the classes to train on, by label. Raises:
            `MismatchError` if the file has no such list.
    """

    name: str
    splits: Splits
    measures: tuple[Measure, ...]
    losses: Callable[[Output, Tensor, Tensor, float], Tensor]
    scores: Callable[[Output, Tensor], Tensor]
    hits: Callable[[Output, Tensor, Tensor], Tensor]
    classes: Callable[[Boxes], tuple[str, ...]]


def _cross_entropies(output: Output, labels: Tensor, valid: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of each sample ``(B,)``; with logits per frame, the mean over its valid frames."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = _precise(output.logits)
    if logits.ndim == 2:
        return cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    frames = logits.shape[1]
    # Masked before the loss, so that padding reaches neither the loss nor, as 0 · NaN, a gradient.
    logits = logits.masked_fill(~valid[..., None], 0)
    each = cross_entropy(
        logits.flatten(0, 1),
        labels.repeat_interleave(frames),
        label_smoothing=smoothing,
        reduction="none",
    ).unflatten(0, (-1, frames))
    return torch.where(valid, each, 0).sum(dim=1) / valid.sum(dim=1)


def _class_scores(output: Output, valid: Tensor) -> Tensor:
    """Return the logits; for logits per frame, the logarithm of the mean probabilities over valid frames, whose softmax
    is that mean.
    """
    logits = _precise(output.logits)
    if logits.ndim == 2:
        return logits
    logs = logits.masked_fill(~valid[..., None], 0).log_softmax(dim=2)
    logs = logs.masked_fill(~valid[..., None], -float("inf"))
    return logs.logsumexp(dim=1) - valid.sum(dim=1, keepdim=True).log()


def frame_logits(output: Output, valid: Tensor) -> Tensor:
    """Return the logits of the valid frames, sample by sample, ``(m, K)``, float32 or finer.

    A model that answers once for a sample gives this answer to each of the sample's frames.
    """
    logits = _precise(output.logits)
    return logits[valid] if logits.ndim == 3 else logits.repeat_interleave(valid.sum(dim=1), dim=0)


def _precise(logits: Tensor) -> Tensor:
    """Convert logits to float32 if autocast made them less precise; double precision is kept."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _hits(output: Output, labels: Tensor, valid: Tensor) -> Tensor:
    return _class_scores(output, valid).argmax(dim=1) == labels


def _cross_entropy(scores: np.ndarray, labels: np.ndarray, cameras: np.ndarray) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    return float(cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)))


def _top1(scores: np.ndarray, labels: np.ndarray, cameras: np.ndarray) -> float:
    return float((scores.argmax(axis=1) == labels).mean())


def _mean_class_precision(scores: np.ndarray, labels: np.ndarray, cameras: np.ndarray) -> float:
    """Return the mean over the classes that have images of their average precision, as evaluation defines it.

    One class versus rest, ranked by probability; images of equal probability share a threshold.
    """
    import numpy as np

    odds = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    precisions = []
    for label in np.unique(labels):
        thresholds, place = np.unique(-probabilities[:, label], return_inverse=True)
        found = np.bincount(place, labels == label, len(thresholds))
        precision = found.cumsum() / np.bincount(place, minlength=len(thresholds)).cumsum()
        precisions.append((found * precision).sum() / found.sum())
    return float(np.mean(precisions))


def _all_classes(boxes: Boxes) -> tuple[str, ...]:
    return boxes.classes


def directions(output: Output, valid: Tensor) -> Tensor:
    """Return the embeddings divided by their norms, ``(B, E)``. Raises: `ConfigurationError` if the model has none."""
    from torch.nn.functional import normalize

    if output.embedding is None:
        raise ConfigurationError("the model has no embedding, which retrieval compares: name another one with --model")
    return normalize(_precise(output.embedding), dim=1)


def _mean_average_precision(retrieval: Retrieval) -> float:
    return retrieval.mean_average_precision


def _cmc1(retrieval: Retrieval) -> float:
    return retrieval.cmc(1)


def _among_themselves(
    scores: np.ndarray, labels: np.ndarray, cameras: np.ndarray, of: Callable[[Retrieval], float]
) -> float:
    """Search for each image among all others."""
    from .retrieval import Embedded, retrieve

    return of(retrieve(Embedded(scores, labels, cameras)))


def _trained_persons(boxes: Boxes) -> tuple[str, ...]:
    """Return the persons with training images, who come first."""
    labels = boxes.labels[boxes.splits == "train"]
    count = int(labels.max(initial=-1)) + 1
    if (boxes.labels[boxes.splits != "train"] < count).any():
        raise MismatchError(f"{boxes.path} has persons both in train and in another split, or in a wrong order")
    return boxes.classes[:count]


CLASSIFY = Task(
    name="classification",
    splits=Splits("train", "val", ("train", "val", "test", TRAIN_FOLD)),
    measures=(
        Measure("loss", NATS, False, _cross_entropy),
        Measure("top1", SHARE, True, _top1),
        Measure("map", SHARE, True, _mean_class_precision),
    ),
    losses=_cross_entropies,
    scores=_class_scores,
    hits=_hits,
    classes=_all_classes,
)

RETRIEVE = Task(
    name="retrieval",
    splits=Splits("train", "val", ("val", "query")),
    measures=(
        Measure("map", SHARE, True, partial(_among_themselves, of=_mean_average_precision)),
        Measure("cmc1", SHARE, True, partial(_among_themselves, of=_cmc1)),
    ),
    losses=_cross_entropies,
    scores=directions,
    hits=_hits,
    classes=_trained_persons,
)

TASKS = (CLASSIFY, RETRIEVE)


def task_of(boxes: Boxes) -> Task:
    """Return the task of a data set: `RETRIEVE` if it has queries to search for, otherwise `CLASSIFY`."""
    return RETRIEVE if boxes.is_retrieval else CLASSIFY

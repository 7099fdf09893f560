"""What a model is trained for: the loss of its outputs, the scores kept of them, and the measures of those scores.

A task is a value made of functions. The loop, the measures and the answers all need it, so it lies below them, beside
the recipes. Its functions load PyTorch when called: which epoch is kept is decided by a measure, and commands ask that
before they load PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from .models.contract import Output

SHARE, NATS = "share", "nats"  #: units of measures: a share of 1, and natural logarithms of probabilities


@dataclass(frozen=True)
class Measure:
    """A number computed from the scores of a whole split."""

    name: str  #: in logs, after the split: val_top1
    unit: str  #: `SHARE` or `NATS`
    higher_is_better: bool
    of: Callable[[np.ndarray, np.ndarray], float]  #: scores ``(n, K)`` and labels ``(n,)`` -> its value


@dataclass(frozen=True)
class Splits:
    """The splits of a data set, by their use."""

    trained_on: str
    chosen_by: str
    measured_on: tuple[str, ...]  #: all that an evaluation may name


@dataclass(frozen=True)
class Task:
    """What a model is trained for.

    Args:
        name: for people.
        splits: which images are used for what.
        measures: of the split that the epoch is chosen by.
        losses: output, labels ``(B,)``, valid ``(B, T)`` and label smoothing -> the loss of each sample ``(B,)``,
            without its auxiliary losses; 0 where the label is the one that PyTorch ignores.
        scores: output and valid ``(B, T)`` -> what is kept and measured, one row a sample ``(B, K)``, float32 or finer.
        hits: scores ``(B, K)`` and labels ``(B,)`` -> whether each sample is right ``(B,)``: training's top-1.
    """

    name: str
    splits: Splits
    measures: tuple[Measure, ...]
    losses: Callable[[Output, Tensor, Tensor, float], Tensor]
    scores: Callable[[Output, Tensor], Tensor]
    hits: Callable[[Tensor, Tensor], Tensor]


def _cross_entropies(output: Output, labels: Tensor, valid: Tensor, smoothing: float) -> Tensor:
    """Of a sample with logits for each frame: the mean over its valid frames."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = _precise(output.logits)
    if logits.ndim == 2:
        return cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    frames = logits.shape[1]
    # Before the loss, so that a padded frame's numbers reach neither it nor, as 0 · NaN, a gradient.
    logits = logits.masked_fill(~valid[..., None], 0)
    each = cross_entropy(
        logits.flatten(0, 1),
        labels.repeat_interleave(frames),
        label_smoothing=smoothing,
        reduction="none",
    ).unflatten(0, (-1, frames))
    return torch.where(valid, each, 0).sum(dim=1) / valid.sum(dim=1)


def _class_scores(output: Output, valid: Tensor) -> Tensor:
    """The logits; of logits for each frame the logarithm of their mean probabilities over valid frames, whose softmax
    is that mean.
    """
    logits = _precise(output.logits)
    if logits.ndim == 2:
        return logits
    logs = logits.masked_fill(~valid[..., None], 0).log_softmax(dim=2)
    logs = logs.masked_fill(~valid[..., None], -float("inf"))
    return logs.logsumexp(dim=1) - valid.sum(dim=1, keepdim=True).log()


def _precise(logits: Tensor) -> Tensor:
    """Logits as autocast gives them -> float32; finer ones as they are."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _hits(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.argmax(dim=1) == labels


def _cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    return float(cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)))


def _top1(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.argmax(axis=1) == labels).mean())


CLASSIFY = Task(
    name="classification",
    splits=Splits("train", "val", ("train", "val", "test")),
    measures=(Measure("loss", NATS, False, _cross_entropy), Measure("top1", SHARE, True, _top1)),
    losses=_cross_entropies,
    scores=_class_scores,
    hits=_hits,
)

"""What a file of lower precision costs: accuracy on photographs, size and speed beside the file of float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ...data.text import percent, rough_size
from ..bootstrap import Interval
from ..measure.intervals import share_difference_interval
from ..measure.metrics import Scores
from ..measure.statistics import mcnemar
from .writing import Inputs, Outputs, Runner


@dataclass(frozen=True)
class PrecisionLoss:
    """Two files on the same n photographs: that of float32, and the other."""

    images: int
    top1_float: float
    top1: float
    difference: float  #: of top-1, the other file minus float32
    interval: Interval  #: 95 % of the difference, photographs in pairs
    only_float_right: int
    only_other_right: int
    p: float  #: McNemar's exact test
    agreement: float  #: share of photographs with the same answer
    mean_probability_change: float  #: mean absolute change in the probability of the class that float32 answers
    bytes_float: int
    bytes: int
    speed_ratio: float  #: median over batches of the time of float32, divided by that of the other file
    milliseconds_float: float  #: an image, median over batches
    milliseconds: float

    def to_dict(self) -> dict[str, object]:
        rest = {name: value for name, value in self.__dict__.items() if name != "interval"}
        return rest | {"difference_low": self.interval.low, "difference_high": self.interval.high}


def measure_loss(
    run_float: Runner,
    run_other: Runner,
    batches: Iterable[tuple[Inputs, Tensor]],
    files: tuple[Path, Path],
    progress: Callable[[int], None] = lambda done: None,
) -> PrecisionLoss:
    """Run two files on the same batches, in turn, so that a busy machine slows both alike.

    Args:
        run_float, run_other: Runners of the file of float32 and of the other.
        batches: Inputs and labels ``(B,)``.
        files: The same two files, for their sizes.
        progress: Function called with the number of images done.
    """
    logits: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    labels: list[np.ndarray] = []
    for inputs, truth in batches:
        labels.append(truth.numpy())
        for run, found, times in zip((run_float, run_other), logits, seconds, strict=True):
            outputs, spent = _timed(run, inputs)
            found.append(outputs["logits"].float().numpy())
            times.append(spent / len(truth))
        progress(sum(map(len, labels)))
    truths = np.concatenate(labels)
    scores = [Scores(np.concatenate(found), truths) for found in logits]
    return _loss(scores[0], scores[1], seconds, files)


def _timed(run: Runner, inputs: Inputs) -> tuple[Outputs, float]:
    start = time.perf_counter()
    outputs = run(inputs)
    return outputs, time.perf_counter() - start


def _loss(
    ours: Scores, other: Scores, seconds: tuple[list[float], list[float]], files: tuple[Path, Path]
) -> PrecisionLoss:
    one, two = ours.right > 0, other.right > 0
    only_float, only_other = int((one & ~two).sum()), int((two & ~one).sum())
    places = np.arange(len(ours)), ours.predicted
    return PrecisionLoss(
        images=len(ours),
        top1_float=float(one.mean()),
        top1=float(two.mean()),
        difference=float(two.mean() - one.mean()),
        interval=share_difference_interval(ours.right[None], other.right[None]),
        only_float_right=only_float,
        only_other_right=only_other,
        p=mcnemar(only_float, only_other),
        agreement=float((ours.predicted == other.predicted).mean()),
        mean_probability_change=float(np.abs(ours.probabilities[places] - other.probabilities[places]).mean()),
        bytes_float=files[0].stat().st_size,
        bytes=files[1].stat().st_size,
        speed_ratio=float(np.median(np.divide(*map(np.array, seconds)))),
        milliseconds_float=1e3 * float(np.median(seconds[0])),
        milliseconds=1e3 * float(np.median(seconds[1])),
    )


def loss_text(loss: PrecisionLoss, precision: str, split: str) -> str:
    """Describe a loss in three lines."""
    change, low, high = (f"{100 * one:+.1f}" for one in (loss.difference, loss.interval.low, loss.interval.high))
    return "\n".join(
        [
            f"top-1 on {loss.images:,} photographs of {split}: float32 {percent(loss.top1_float)}, {precision} "
            f"{percent(loss.top1)}: {change} points (95 % interval {low} to {high}, photographs in pairs)",
            f"the same answer for {percent(loss.agreement)}; the probability of float32's answer changes by "
            f"{loss.mean_probability_change:.3f} on average",
            f"{rough_size(loss.bytes)} for {rough_size(loss.bytes_float)}; {loss.speed_ratio:.2f} times the speed "
            f"({loss.milliseconds:.1f} ms an image for {loss.milliseconds_float:.1f}), here, on a CPU",
        ]
    )

"""One epoch of training and one pass of evaluation, independent of files and the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..machine.devices import Device, Pieces
from ..machine.distributed import ALONE, Processes
from ..models.model import Model
from ..samples.loader import STAND_IN, Batch
from ..tasks import CLASSIFY, Task, directions, frame_logits
from .learner import IMAGES, PULSE, Learner, means

Progress = Callable[[int, dict[str, float]], None]  #: called with the images done and the current values
Watch = Callable[[str, int], Progress]  #: (activity, number of images) -> its `Progress`


@dataclass(frozen=True)
class Predictions:
    """A model's scores for some images, in the loader's order."""

    logits: np.ndarray  #: float32 ``(n, K)``, the task's scores, for classification logits of K classes
    labels: np.ndarray  #: int64 ``(n,)``
    rows: np.ndarray  #: int64 ``(n,)``, rows of the boxes file's usable images

    def measures(self, task: Task, cameras: np.ndarray) -> dict[str, float]:
        """Compute the task's measures, by name. ``cameras``: number of each usable image's camera, -1 where unknown."""
        given = self.logits, self.labels, cameras[self.rows]
        return {measure.name: measure.of(*given) for measure in task.measures}


class FrameScores(NamedTuple):
    """A model's scores for the m valid frames of a batch of B clips, clip by clip."""

    logits: np.ndarray  #: float32 ``(m, K)``
    by_frame: bool  #: whether each frame has scores of its own, rather than those of its clip
    counts: np.ndarray  #: int64 ``(B,)``, number of valid frames of each clip
    labels: np.ndarray  #: int64 ``(B,)``
    rows: np.ndarray  #: int64 ``(B,)``, as in `Predictions`


@dataclass(frozen=True)
class Trained:
    """Progress and cost of an epoch, or of one part of an epoch that was interrupted."""

    step: int  #: finished steps of the epoch, including those of earlier parts
    totals: Tensor  #: sums over `Learner.step`, on the CPU; `train_epoch` continues from them
    images: int  #: images of this part, in all processes
    seconds: float  #: duration of this part
    waited: float  #: seconds spent waiting for images
    peak_memory: int | None  #: bytes: tensors on the GPU, or this process

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    @property
    def data_wait(self) -> float:
        """Fraction of the time spent waiting for images."""
        return self.waited / self.seconds


#: Of a log line; they differ between equal runs.
TIMINGS = ("seconds", "images_per_second", "data_wait", "peak_memory_mb", "total_seconds")


def timings(parts: Sequence[Trained]) -> dict[str, object]:
    """Return ``data_wait`` and ``peak_memory_mb`` of an epoch from its parts, where known."""
    seconds = sum(part.seconds for part in parts)
    peaks = [part.peak_memory for part in parts if part.peak_memory is not None]
    return {
        **({"data_wait": round(sum(part.waited for part in parts) / seconds, 4)} if seconds else {}),
        **({"peak_memory_mb": round(max(peaks) / 1e6)} if peaks else {}),
    }


def train_epoch(
    learner: Learner,
    batches: Iterable[Batch],
    epoch: int,
    *,
    steps: int,
    first_step: int = 0,
    totals: Tensor | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda images, values: None,
) -> Trained:
    """Train on every batch once, with one optimiser step per ``learner.recipe.accumulate`` batches.

    Args:
        learner: Network, optimiser and everything else that changes during training.
        batches: Batches of the epoch from ``first_step`` on.
        epoch: Epoch number, counted from 0.
        steps: Number of steps in the whole epoch (`steps_of_epoch`).
        first_step: Step at which an interrupted epoch continues, counted from 0.
        totals: Totals of the epoch's steps before ``first_step``.
        stop: Function called before each step; True ends the epoch there.
        progress: Function called from time to time with the images of the epoch so far and their mean loss and top-1.

    Raises: `TrainingError` if a value is no longer finite or memory is too small.
    """
    learner.start(epoch)
    learner.device.forget_peak()
    totals = learner.no_totals() if totals is None else totals.to(learner.device.device)
    step, images, waited, started = first_step, 0, 0.0, time.perf_counter()
    before = int(totals[IMAGES]) if first_step else 0
    source = iter(batches)
    while step < steps and not stop():
        asked = time.perf_counter()
        group = list(islice(source, learner.recipe.accumulate))
        waited += time.perf_counter() - asked
        if not group:
            break
        now = learner.step(group, epoch, step, steps)
        totals = nn.functional.pad(totals, (0, len(now) - len(totals))) + now  # the first step adds named losses
        images += sum(len(batch.labels) for batch in group) * learner.processes.size
        step += 1
        if learner.device.answers_at_once or step % PULSE == 0 or step == steps:
            progress(before + images, means(totals))
    learner.check(epoch, steps)
    learner.check_weights(epoch, step)  # the state may be saved next
    seconds = max(time.perf_counter() - started, 1e-9)
    return Trained(step, totals.cpu(), images, seconds, waited, learner.device.peak_memory())


def steps_of_epoch(batches: int, accumulate: int) -> int:
    """Return the number of optimiser steps in an epoch of ``batches`` batches; the last step may have fewer."""
    return -(-batches // accumulate)


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Iterable[Batch],
    *,
    device: Device,
    task: Task = CLASSIFY,
    processes: Processes = ALONE,
    progress: Progress = lambda images, values: None,
    pieces: Pieces | None = None,
    on_frames: Callable[[FrameScores], None] | None = None,
    on_embeddings: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> Predictions:
    """Compute the task's scores for every image of the batches.

    With several processes, each one evaluates its share of the batches, and all of them receive all scores, sorted by
    row. A batch that does not fit into memory is evaluated in smaller ``pieces``, which remember that size. The scores
    of single frames are not kept, since a large data set has gigabytes of them, but given to ``on_frames``, which is
    called for every batch of this process; and so are embeddings of norm 1, float32 ``(B, E)``, with the rows ``(B,)``
    that they are of, to ``on_embeddings``, unless the model has none.

    Raises: `ConfigurationError` if memory is too small for a single image.
    """

    def scores(batch: Batch, cut: slice) -> tuple[Tensor, Tensor | None, bool, Tensor | None]:
        piece = batch.cut(cut).on(device)
        with device.autocast():
            output = piece.called(model, model.inputs)
            own = task.scores(output, piece.valid).float()
        by_frame = output.logits.ndim == 3 or piece.valid.shape[1] == 1
        embedded = on_embeddings is not None and output.embedding is not None
        vectors = directions(output, piece.valid).float() if embedded else None
        return own, frame_logits(output, piece.valid).float() if on_frames else None, by_frame, vectors

    model.eval()
    pieces = pieces or Pieces(device)
    logits: list[Tensor] = []
    labels, rows, images = [], [], 0
    for batch in batches:
        parts = pieces.of(len(batch.labels), partial(scores, batch))
        own_scores, of_frames, by_frame, vectors = zip(*parts, strict=True)
        logits += own_scores
        if on_frames:
            counts = batch.valid.sum(dim=1).numpy()
            shown = torch.cat(of_frames).cpu().numpy()
            on_frames(FrameScores(shown, all(by_frame), counts, batch.labels.numpy(), batch.rows.numpy()))
        if on_embeddings and vectors[0] is not None:
            on_embeddings(torch.cat(vectors).cpu().numpy(), batch.rows.numpy())
        labels.append(batch.labels)
        rows.append(batch.rows)
        images += len(batch.labels) * processes.size
        progress(images, {})
    own = torch.cat(logits).cpu().numpy(), torch.cat(labels).numpy(), torch.cat(rows).numpy()
    if processes.alone:
        return Predictions(*own)
    every = [np.concatenate(parts) for parts in zip(*processes.gather(own), strict=True)]
    real = np.flatnonzero(every[1] != STAND_IN)
    order = real[np.argsort(every[2][real])]
    return Predictions(every[0][order], every[1][order], every[2][order])

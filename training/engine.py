"""One epoch of training, one pass of evaluation. No path and no command line in here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .dataset import Batch
from .devices import Device
from .models.backbones import Preprocessing
from .models.build import Model

Progress = Callable[[int, dict[str, float]], None]  #: told images done and current values
Watch = Callable[[str, int], Progress]  #: (what is going on, its number of images) -> its `Progress`


@dataclass(frozen=True)
class Predictions:
    """A model's scores for some images, in the loader's order."""

    logits: np.ndarray  #: float32 ``(n, classes)``
    labels: np.ndarray  #: int64 ``(n,)``
    rows: np.ndarray  #: int64 ``(n,)``, rows of the boxes file's usable images

    @property
    def loss(self) -> float:
        return float(nn.functional.cross_entropy(torch.from_numpy(self.logits), torch.from_numpy(self.labels)))

    @property
    def top1(self) -> float:
        return float((self.logits.argmax(axis=1) == self.labels).mean())


def train_epoch(
    model: Model,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    device: Device,
    preprocessing: Preprocessing,
    lr_of_step: Callable[[int], float],
    label_smoothing: float = 0.0,
    clip_norm: float = 0.0,
    frozen_backbone: bool = False,
    progress: Progress = lambda images, values: None,
) -> dict[str, float]:
    """Train on every batch once. Returns the mean ``loss`` and ``top1`` of the epoch, as seen while training.

    ``lr_of_step(k)`` is the k-th step's share of each parameter group's own ``highest_lr``.
    Raises: `FloatingPointError` when the loss is no longer a finite number.
    """
    model.train()
    if frozen_backbone:
        model.backbone.eval()  # its running statistics stay as they are, too
    loss_fn = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    totals = torch.zeros(2, dtype=torch.float64 if device.device.type != "mps" else torch.float32)
    totals = totals.to(device.device)  # summed where it is computed: reading it every step would stall a GPU
    images = 0
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = group["highest_lr"] * lr_of_step(step)
        labels = batch.labels.to(device.device, non_blocking=True)
        with device.autocast():
            output = model(
                device.images(batch.images, preprocessing), batch.regions.to(device.device, non_blocking=True)
            )
            loss = loss_fn(output.logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        correct = (output.logits.detach().argmax(dim=1) == labels).sum()
        totals += torch.stack([loss.detach() * len(labels), correct]).to(totals.dtype)
        images += len(labels)
        if step % 10 == 9 or device.device.type == "cpu":
            progress(images, _means(totals, images))
    return _means(totals, images)


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Iterable[Batch],
    *,
    device: Device,
    preprocessing: Preprocessing,
    progress: Progress = lambda images, values: None,
) -> Predictions:
    """The model's scores for every image of the batches, once each."""
    model.eval()
    logits, labels, rows, images = [], [], [], 0
    for batch in batches:
        with device.autocast():
            output = model(
                device.images(batch.images, preprocessing), batch.regions.to(device.device, non_blocking=True)
            )
        logits.append(output.logits.float())
        labels.append(batch.labels)
        rows.append(batch.rows)
        images += len(batch.labels)
        progress(images, {})
    return Predictions(torch.cat(logits).cpu().numpy(), torch.cat(labels).numpy(), torch.cat(rows).numpy())


def _means(totals: Tensor, images: int) -> dict[str, float]:
    loss, correct = totals.tolist()
    if not np.isfinite(loss):
        raise FloatingPointError("the loss is not a finite number any more; lower the learning rate (--lr)")
    return {"loss": loss / images, "top1": correct / images}

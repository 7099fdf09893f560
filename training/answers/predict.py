"""What a trained network says about images that are in no data set: regions are proposed on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...data.regions import Regions
from ..machine.devices import Device, Pieces
from ..models.contract import Output
from ..models.model import Model
from ..runs.checkpoints import Checkpoint, check_finite, load_checkpoint
from ..samples.loader import Batch
from ..samples.reading import Propose, Sample, Unreadable, sample
from ..tasks import CLASSIFY

BATCH_SIZE = 16


@dataclass(frozen=True)
class Prediction:
    """One image's classes, best first, and where the network looked."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    distribution: np.ndarray  #: float32 ``(classes,)``: all probabilities, in the order of the checkpoint's classes
    regions: Regions | None  #: as they were proposed; None for a model that looks at none
    region_weights: np.ndarray | None  #: float32 ``(R + 1,)``, sum 1, the whole image last: the factor by which a
    #: region's features come into what is classified; None for a plain model
    evidence: np.ndarray | None  #: float32 ``(h, w)``, logits: what each place of the last map adds to the first
    #: class; below 0 it speaks against it; None unasked
    logit: float  #: of the first class


def predict(
    checkpoint: Checkpoint | str | Path,
    images: Iterable[tuple[str, np.ndarray]],
    propose: Propose,
    device: Device,
    top: int = 5,
    evidence: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Prediction]:
    """Predict images, in their order, as they come: nothing is read further ahead than a batch.

    Args:
        checkpoint: the network, which is moved to the device; or a run, by its folder or its checkpoint.
        images: (name, uint8 RGB ``(H, W, 3)``), of any sizes.
        propose: stage 1's function for one image, with the checkpoint's settings; not asked for a model that looks at
            no regions.
        device: where to compute.
        top: how many classes to tell.
        evidence: whether to find out which places speak for the first class, and which against it.
        batch_size: images that the network sees at once; predictions do not depend on it.

    Raises: `CheckpointError` when the network's outputs are not finite numbers, `ConfigurationError` when memory does
        not suffice for a single image; for a batch it need not.
    """
    if isinstance(checkpoint, (str, Path)):
        checkpoint = load_checkpoint(checkpoint)
    wanted = propose if checkpoint.regions else None
    samples = (sample(name, image, checkpoint.size_hw, wanted) for name, image in images)
    for prediction in predict_samples(checkpoint, samples, device, top, evidence, batch_size):
        assert isinstance(prediction, Prediction)  # of what was read before, all can be read
        yield prediction


def predict_samples(
    checkpoint: Checkpoint,
    samples: Iterable[Sample | Unreadable],
    device: Device,
    top: int = 5,
    evidence: bool = False,
    batch_size: int = BATCH_SIZE,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Prediction | Unreadable]:
    """As `predict`, of images that someone else made ready; what is unreadable keeps its place in the order.

    Args:
        say: told in a line that memory does not suffice for a batch, which goes through in smaller pieces then.

    Raises: `CheckpointError` as `predict`; `ConfigurationError` when memory does not suffice for a single image.
    """
    model = device.take(checkpoint.model)
    pieces = Pieces(device, say)

    def answers(items: list[Sample | Unreadable]) -> Iterator[Prediction | Unreadable]:
        samples = [item for item in items if isinstance(item, Sample)]
        parts = pieces.of(
            len(samples), lambda cut: _predictions(checkpoint, model, samples[cut], device, top, evidence)
        )
        predictions = chain.from_iterable(parts)
        for item in items:
            yield item if isinstance(item, Unreadable) else next(predictions)

    waiting: list[Sample | Unreadable] = []
    for item in samples:
        waiting.append(item)
        if len(waiting) == batch_size:
            yield from answers(waiting)
            waiting = []
    yield from answers(waiting)


def _predictions(
    checkpoint: Checkpoint, model: Model, samples: list[Sample], device: Device, top: int, evidence: bool
) -> list[Prediction]:
    pixels = torch.from_numpy(np.stack([one.pixels for one in samples])).permute(0, 3, 1, 2)  # (B, 3, H, W)
    found = [one.boxes for one in samples if one.boxes is not None]
    boxes = torch.from_numpy(np.stack(found)) if found else None  # (B, R, 4)
    inputs = Batch.of_images(pixels, boxes).on(device).inputs(model.inputs)
    with device.autocast():
        if evidence:
            output, places = _with_evidence(model, *inputs)
        else:
            with torch.no_grad():
                output, places = model(*inputs), None
    check_finite(output)
    scores = _scores(output).detach().float()
    distributions = scores.softmax(dim=1).cpu()
    probabilities, orders = distributions.sort(dim=1, descending=True, stable=True)
    highest = scores.amax(dim=1).tolist()
    weights, seen = (
        [None] * len(samples) if values is None else list(values.detach().float().cpu().numpy())
        for values in (output.region_weights, places)
    )
    return [
        Prediction(
            name=one.name,
            classes=tuple(checkpoint.classes[k] for k in orders[row, :top].tolist()),
            probabilities=tuple(probabilities[row, :top].tolist()),
            distribution=distributions[row].numpy(),
            regions=one.regions,
            region_weights=weights[row],
            evidence=seen[row],
            logit=highest[row],
        )
        for row, one in enumerate(samples)
    ]


def _scores(output: Output) -> Tensor:
    """Scores ``(B, classes)`` of images, each of whose frames is a real one."""
    valid = torch.ones(output.logits.shape[:2], dtype=torch.bool, device=output.logits.device)
    return CLASSIFY.scores(output, valid)


def _with_evidence(model: Model, *inputs: Tensor | None) -> tuple[Output, Tensor]:
    """The output, and ``(B, h, w)``: how many logits each place of the feature map adds to the winning class.

    HiResCAM (Draelos and Carin, 2020): gradient times activation, summed over channels; below 0 where a place speaks
    against it. For the plain model the places and the classifier's bias add up to the logit; for others they are what
    a small change of a place would do, as far as it reaches. Only the head is differentiated.
    """
    seen: list[Tensor] = []

    def watch(module: nn.Module, inputs: object, features: Tensor) -> Tensor:
        seen.append(features.detach().requires_grad_())
        return seen[0]

    handle = model.map_layer.register_forward_hook(watch)
    try:
        with torch.enable_grad():
            output = model(*inputs)
            (gradient,) = torch.autograd.grad(_scores(output).amax(dim=1).sum(), seen)
    finally:
        handle.remove()
    return output, (gradient * seen[0].detach()).sum(dim=1)

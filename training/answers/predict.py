"""Prediction of images that are in no data set; their regions are proposed on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ...data.regions import Regions
from ..machine.devices import Device, Pieces
from ..models.contract import Output, Views
from ..models.model import Model
from ..models.views import boxes_of
from ..runs.checkpoints import Checkpoint, check_finite, load_checkpoint
from ..samples.loader import Batch
from ..samples.reading import Propose, Sample, Unreadable, sample
from ..tasks import CLASSIFY
from .contributions import lay_back

BATCH_SIZE = 16

Found = TypeVar("Found")


class Attention(NamedTuple):
    """What a network weighs in one frame of a clip."""

    weights: np.ndarray  #: float32 ``(h, w)``: attention to each position as a multiple of the mean over all positions
    highest: float  #: highest weight, smoothed as it is drawn, in all frames of the window; 0 without pictures


@dataclass(frozen=True)
class Prediction:
    """Classes of one image, likeliest first, and the evidence for them."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    distribution: np.ndarray  #: float32 ``(classes,)``: all probabilities, in the checkpoint's order of classes
    regions: Regions | None  #: proposed regions; None for a model without regions
    region_weights: np.ndarray | None  #: float32 ``(R + 1,)``, sum 1, the whole image last: coefficient of each
    #: region's features in the classified feature, as a share of all; None for a plain model
    evidence: np.ndarray | None  #: float32 ``(h, w)``, in logits: contribution of each position of the last map to the
    #: first class, negative if it is evidence against it; None unless requested
    logit: float  #: logit of the first class
    attention: Attention | None = None  #: of a frame, from a network of clips that has attention


def predict(
    checkpoint: Checkpoint | str | Path,
    images: Iterable[tuple[str, np.ndarray]],
    propose: Propose,
    device: Device,
    top: int = 5,
    evidence: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Prediction]:
    """Predict images lazily, in order, reading at most one batch ahead.

    Args:
        checkpoint: Loaded checkpoint, whose network is moved to the device; or the path of a run's folder or
            checkpoint.
        images: Pairs of a name and a uint8 RGB array ``(H, W, 3)``, of any sizes.
        propose: Stage 1's function for one image, with the checkpoint's settings; not called for a model without
            regions.
        device: Device and precision.
        top: Number of classes to return.
        evidence: Whether to compute the evidence of each position for or against the first class.
        batch_size: Number of images per batch; predictions do not depend on it.

    Raises: `CheckpointError` if the network's outputs are not finite, `ConfigurationError` if memory does not suffice
        for a single image. A batch that does not fit is split.
    """
    if isinstance(checkpoint, (str, Path)):
        checkpoint = load_checkpoint(checkpoint)
    wanted = propose if checkpoint.regions else None
    samples = (sample(name, image, checkpoint.size_hw, wanted) for name, image in images)
    for prediction in predict_samples(checkpoint, samples, device, top, evidence, batch_size):
        assert isinstance(prediction, Prediction)  # the images are in memory: none is unreadable
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
    """As `predict`, for prepared samples; unreadable ones keep their position in the order.

    Args:
        say: Function called with a line of text if memory does not suffice for a batch, which is then split.

    Raises: `CheckpointError` and `ConfigurationError` as `predict`.
    """
    model = device.take(checkpoint.model)
    yield from in_batches(
        samples,
        lambda part: _predictions(checkpoint, model, part, device, top, evidence),
        batch_size,
        Pieces(device, say),
    )


def in_batches(
    samples: Iterable[Sample | Unreadable],
    compute: Callable[[list[Sample]], list[Found]],
    batch_size: int,
    pieces: Pieces,
) -> Iterator[Found | Unreadable]:
    """Apply ``compute`` to batches of the readable samples; unreadable ones keep their position in the order."""
    samples = iter(samples)
    while batch := list(islice(samples, batch_size)):
        readable = [one for one in batch if isinstance(one, Sample)]
        parts = pieces.of(len(readable), partial(_of_part, compute, readable))
        found = chain.from_iterable(parts)
        for one in batch:
            yield one if isinstance(one, Unreadable) else next(found)


def _of_part(compute: Callable[[list[Sample]], list[Found]], samples: list[Sample], cut: slice) -> list[Found]:
    return compute(samples[cut])


def inputs_of(model: Model, samples: list[Sample], device: Device) -> tuple[Tensor | None, ...]:
    """Return the inputs of a network for prepared samples, on its device."""
    pixels = torch.from_numpy(np.stack([one.pixels for one in samples])).permute(0, 3, 1, 2)  # (B, 3, H, W)
    found = [one.boxes for one in samples if one.boxes is not None]
    boxes = torch.from_numpy(np.stack(found)) if found else None  # (B, R, 4)
    return Batch.of_images(pixels, boxes).on(device).inputs(model.inputs)


def _predictions(
    checkpoint: Checkpoint, model: Model, samples: list[Sample], device: Device, top: int, evidence: bool
) -> list[Prediction]:
    inputs = inputs_of(model, samples, device)
    with device.autocast():
        if evidence:
            output, places = with_evidence(model, *inputs)
        else:
            with torch.no_grad():
                output, places = model(*inputs), None
    check_finite(output)
    scores = scores_of(output).detach().float()
    distributions = scores.softmax(dim=1).cpu()
    probabilities, orders = distributions.sort(dim=1, descending=True, stable=True)
    highest = scores.amax(dim=1).tolist()
    weights, seen = (
        [None] * len(samples) if values is None else list(values.detach().float().cpu().numpy())
        for values in (_of_image(output.region_weights), places)
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


def _of_image(weights: Tensor | None) -> Tensor | None:
    """Region weights ``(B, N)``, of a model that has them for each frame, too."""
    return weights.flatten(1) if weights is not None else None  # an image is one frame


def scores_of(output: Output) -> Tensor:
    """Scores ``(B, classes)``; all frames are valid."""
    valid = torch.ones(output.logits.shape[:2], dtype=torch.bool, device=output.logits.device)
    return CLASSIFY.scores(output, valid)


def _winner(output: Output) -> Tensor:
    return scores_of(output).amax(dim=1)


def with_evidence(
    model: Model, *inputs: Tensor | None, explained: Callable[[Output], Tensor] = _winner
) -> tuple[Output, Tensor]:
    """Output, and the contribution in logits of each position of the feature map to the winning class ``(B, h, w)``.

    With ``explained``, output -> ``(B,)``, it is the contribution to its value. A network of clips has the map of each
    frame, clip by clip: ``(B T, h, w)``.

    HiResCAM (Draelos and Carin, 2020): gradient times activation, summed over channels; negative at evidence against
    the class. For the plain model and B-CNN, the contributions and the classifier's bias add up to the logit; for
    other models they are a first-order approximation. Only layers between the map and the logits are differentiated.
    The contributions in all views of a photograph are laid back on it and added.
    """
    seen: list[Tensor] = []

    def watch(module: nn.Module, inputs: object, features: Tensor) -> Tensor:
        seen.append(features.detach().requires_grad_())
        return seen[-1]

    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handle = model.map_layer.register_forward_hook(watch)
    try:
        for parameter in learning:  # no graph of any backbone is kept
            parameter.requires_grad_(False)
        with torch.enable_grad(), model.explained():
            output = model(*inputs)
            gradients = torch.autograd.grad(explained(output).sum(), seen)
    finally:
        handle.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
    parts = [(gradient * features.detach()).sum(dim=1) for gradient, features in zip(gradients, seen, strict=True)]
    return output, parts[0] if model.views is None else _on_one_map(parts, model.views, model.input_hw)


def _on_one_map(parts: list[Tensor], views: Views, size_hw: tuple[int, int]) -> Tensor:
    """Lay the parts of the views ``(B, h, w)`` each on the photograph, on a map of the cells of the last."""
    height, width = parts[-1].shape[1:]
    if not views.sizes:  # a crop is 7/8 of the photograph
        height, width = round(height * 8 / 7), round(width * 8 / 7)
    boxes = boxes_of(views, size_hw).to(parts[-1].device)
    laid = [
        lay_back(one[:, None], box.expand(len(one), 1, 4), (height, width))
        for one, box in zip(parts, boxes, strict=True)
    ]
    return torch.stack(laid).sum(dim=0)

"""What a trained network says about images that are in no data set: regions are proposed on the fly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..data.regions import Regions
from .augmentation import View
from .checkpoints import Checkpoint, check_finite
from .dataset import Propose
from .devices import Device
from .models.build import Model
from .models.output import Output


@dataclass(frozen=True)
class Prediction:
    """One image's classes, best first, and where the network looked."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    regions: Regions | None  #: as they were proposed; None for a model that looks at none
    region_weights: np.ndarray | None  #: float32 ``(R + 1,)``, sum 1, the whole image last; None for a plain model
    evidence: np.ndarray | None  #: float32 ``(h, w)``, ≥ 0: which places speak for the first class; None unasked


def predict(
    checkpoint: Checkpoint,
    images: Iterable[tuple[str, np.ndarray]],
    propose: Propose,
    device: Device,
    top: int = 5,
    evidence: bool = False,
) -> Iterator[tuple[Prediction, np.ndarray]]:
    """Predict one image after the other.

    Args:
        checkpoint: the network; it is moved to the device.
        images: (name, uint8 RGB ``(H, W, 3)``).
        propose: stage 1's function for one image, with the checkpoint's settings; not asked for a model that looks at
            no regions.
        device: where to compute.
        top: how many classes to tell.
        evidence: whether to find out which places speak for the first class.

    Yields: the prediction and the image it is about.
    Raises: `CheckpointError` when the network's outputs are not finite numbers.
    """
    model = checkpoint.model.to(device.device)
    side = checkpoint.preprocessing.size
    for name, image in images:
        regions = propose(image) if checkpoint.regions else None
        view = View.of((image.shape[1], image.shape[0]), side)
        pixels = torch.from_numpy(view.pixels(image)).permute(2, 0, 1)[None]
        pixels = device.images(pixels, checkpoint.preprocessing)
        boxes = torch.zeros(0, 4) if regions is None else torch.from_numpy(view.boxes(regions))
        boxes = boxes[None].to(device.device)
        with device.autocast():
            if evidence:
                output, places = _with_evidence(model, pixels, boxes)
            else:
                with torch.no_grad():
                    output, places = model(pixels, boxes), None
        check_finite(output)
        probabilities, order = output.logits[0].detach().float().softmax(dim=0).sort(descending=True)
        weights = output.region_weights
        yield (
            Prediction(
                name=name,
                classes=tuple(checkpoint.classes[k] for k in order[:top].tolist()),
                probabilities=tuple(probabilities[:top].tolist()),
                regions=regions,
                region_weights=None if weights is None else weights[0].detach().float().cpu().numpy(),
                evidence=None if places is None else places[0].float().cpu().numpy(),
            ),
            image,
        )


def _with_evidence(model: Model, images: Tensor, regions: Tensor) -> tuple[Output, Tensor]:
    """The output, and ``(B, h, w)``: how much each place of the feature map speaks for the winning class.

    HiResCAM (Draelos and Carin, 2020): gradient times activation, summed over channels, what speaks against it
    set to 0. Only the head is differentiated.
    """
    seen: list[Tensor] = []

    def watch(module: nn.Module, inputs: object, features: Tensor) -> Tensor:
        seen.append(features.detach().requires_grad_())
        return seen[0]

    handle = model.backbone.last.register_forward_hook(watch)
    try:
        with torch.enable_grad():
            output = model(images, regions)
            (gradient,) = torch.autograd.grad(output.logits.amax(dim=1).sum(), seen)
    finally:
        handle.remove()
    return output, (gradient * seen[0].detach()).sum(dim=1).clamp(min=0)

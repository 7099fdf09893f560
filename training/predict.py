"""What a trained network says about images that are in no data set: regions are proposed on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..data.regions import Regions
from .augmentation import View
from .checkpoints import Checkpoint
from .engine import Device

Propose = Callable[[np.ndarray], Regions]


@dataclass(frozen=True)
class Prediction:
    """One image's classes, best first, and where the network looked."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    primary_xyxy: np.ndarray  #: float32 ``(κ, 4)``, pixels of the upright original
    region_weights: np.ndarray | None  #: float32 ``(R + 1,)``, sum 1, the whole image last; None for a plain model


@torch.no_grad()
def predict(
    checkpoint: Checkpoint,
    images: Iterable[tuple[str, np.ndarray]],
    propose: Propose,
    device: Device,
    top: int = 5,
) -> Iterator[tuple[Prediction, np.ndarray]]:
    """Predict one image after the other.

    Args:
        checkpoint: the network; it is moved to the device.
        images: (name, uint8 RGB ``(H, W, 3)``).
        propose: stage 1's function for one image, with the checkpoint's settings.
        device: where to compute.
        top: how many classes to tell.

    Yields: the prediction and the image it is about.
    """
    model = checkpoint.model.to(device.device)
    side = checkpoint.preprocessing.size
    for name, image in images:
        regions = propose(image)
        view = View.of(regions.size_wh, side)
        pixels = torch.from_numpy(view.pixels(image)).permute(2, 0, 1)[None]
        with device.autocast():
            output = model(
                device.images(pixels, checkpoint.preprocessing),
                torch.from_numpy(view.boxes(regions))[None].to(device.device),
            )
        probabilities, order = output.logits[0].float().softmax(dim=0).sort(descending=True)
        weights = output.region_weights
        yield (
            Prediction(
                name=name,
                classes=tuple(checkpoint.classes[k] for k in order[:top].tolist()),
                probabilities=tuple(probabilities[:top].tolist()),
                primary_xyxy=regions.primary_xyxy,
                region_weights=None if weights is None else weights[0].float().cpu().numpy(),
            ),
            image,
        )

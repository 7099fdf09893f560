"""Embeddings of new images, by which they are compared with one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...data.errors import ConfigurationError
from ..machine.devices import Device, Pieces
from ..models.model import Model
from ..runs.checkpoints import Checkpoint, check_finite
from ..samples.reading import Sample, Unreadable
from ..tasks import RETRIEVE
from .predict import BATCH_SIZE, in_batches, inputs_of


@dataclass(frozen=True)
class Embedding:
    """The embedding of one image: the input of the network's classifier, divided by its norm."""

    name: str
    vector: np.ndarray  #: float32 ``(E,)``, of norm 1


def embed_samples(
    checkpoint: Checkpoint,
    samples: Iterable[Sample | Unreadable],
    device: Device,
    batch_size: int = BATCH_SIZE,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Embedding | Unreadable]:
    """Embed prepared samples lazily, in order; unreadable ones keep their position.

    Args:
        checkpoint: Trained network; it is moved to the device.
        samples: Images.
        device: Device and precision.
        batch_size: Number of images per batch; embeddings do not depend on it, except for rounding.
        say: Function called with a line of text if memory does not suffice for a batch, which is then split.

    Raises: `ConfigurationError` for a network without an embedding, and as `predict`.
    """
    model = device.take(checkpoint.model)
    yield from in_batches(
        samples, lambda part: _embeddings(checkpoint, model, part, device), batch_size, Pieces(device, say)
    )


def _embeddings(checkpoint: Checkpoint, model: Model, samples: list[Sample], device: Device) -> list[Embedding]:
    inputs = inputs_of(model, samples, device)
    with torch.no_grad(), device.autocast():
        output = model(*inputs)
    check_finite(output)
    if output.embedding is None:
        raise ConfigurationError(f"the model {checkpoint.settings.model} has no embedding to compare images by")
    valid = torch.ones(output.logits.shape[:2], dtype=torch.bool, device=output.logits.device)
    vectors = RETRIEVE.scores(output, valid).float().cpu().numpy()  # (B, E)
    return [Embedding(one.name, vector) for one, vector in zip(samples, vectors, strict=True)]

"""The contract of every model: ``forward(images, regions) -> Output``, and parts of three names.

A `Backbone` is ``backbone``, the last layer ``classifier``, and what that sees goes through ``dropout``, whose share is
training's to set. The rest is the head.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """What a model says about B images. Trainer, metrics and figures ask for nothing else."""

    logits: Tensor  #: ``(B, classes)``
    region_weights: Tensor | None = None  #: ``(B, R + 1)``, ≥ 0, sum 1; the whole image is the last
    attention_map: Tensor | None = None  #: ``(B, h, w)``, ≥ 0, sum 1: where the model looks
    embedding: Tensor | None = None  #: ``(B, C)``, what the classifier sees

"""How to train, by name: the paper's recipe and a modern one. Everything in them can be overridden.

Nothing heavy is imported here: the command line takes its names and defaults from this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from ..data.errors import ConfigurationError


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and regularisation of a run."""

    optimizer: str  #: sgd or adamw
    lr: float  #: learning rate of the head, at its highest
    backbone_lr: float  #: learning rate of the backbone, as a multiple of the head's; 0 freezes it
    momentum: float  #: of SGD; the first β of AdamW
    nesterov: bool  #: look ahead, with SGD
    weight_decay: float  #: on weight matrices, not on biases and norms
    epochs: int
    batch_size: int
    schedule: str  #: step (×0.1 every ``step_epochs``) or cosine (to 0)
    step_epochs: int
    warmup_epochs: float  #: linear from 0
    label_smoothing: float
    clip_norm: float  #: gradients are scaled down to this norm; 0 leaves them
    augment: bool  #: random affine views
    regions: str  #: cached (from the boxes file, moved with the pixels) or live (found anew on every training view)

    def __post_init__(self) -> None:
        _check(self.optimizer in ("sgd", "adamw"), "optimizer", "sgd or adamw", self.optimizer)
        _check(self.schedule in ("step", "cosine"), "schedule", "step or cosine", self.schedule)
        _check(self.regions in ("cached", "live"), "regions", "cached or live", self.regions)
        _check(self.lr > 0, "lr", "a number above 0", self.lr)
        _check(self.backbone_lr >= 0, "backbone_lr", "0 or above", self.backbone_lr)
        _check(0 <= self.momentum < 1, "momentum", "at least 0 and below 1", self.momentum)
        _check(self.weight_decay >= 0, "weight_decay", "0 or above", self.weight_decay)
        _check(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        _check(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
        _check(self.step_epochs >= 1, "step_epochs", "1 or more", self.step_epochs)
        _check(self.warmup_epochs >= 0, "warmup_epochs", "0 or above", self.warmup_epochs)
        _check(0 <= self.label_smoothing < 1, "label_smoothing", "at least 0 and below 1", self.label_smoothing)
        _check(self.clip_norm >= 0, "clip_norm", "0 or above", self.clip_norm)

    def override(self, **options: object) -> Recipe:
        """The recipe with these values in place of its own; None keeps a value.

        Raises: `ConfigurationError` for an unknown name or a bad value.
        """
        unknown = set(options) - {field.name for field in fields(self)}
        if unknown:
            raise ConfigurationError(f"a recipe has no {', '.join(sorted(unknown))}")
        return replace(self, **{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]

    def lr_factor(self, epoch: float) -> float:
        """The learning rate at a moment of training, as a share of its highest; ``epoch`` counts fractions."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if self.schedule == "step":
            return 0.1 ** (int(epoch) // self.step_epochs)
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class RunSettings:
    """What a run does besides its recipe and its model."""

    weights: str = "imagenet"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"  #: fp32, bf16, or auto: bf16 on a GPU that has it
    workers: int = 2

    def __post_init__(self) -> None:
        _check(0 <= self.seed < 2**32, "seed", "0 to 4294967295", self.seed)
        _check(self.workers >= 0, "workers", "0 or more", self.workers)


def _check(condition: bool, name: str, wanted: str, got: object) -> None:
    if not condition:
        raise ConfigurationError(f"training setting {name!r}: wanted {wanted}, got {got!r}")


RECIPES: dict[str, Recipe] = {
    # Section IV of the paper, to the letter. At this momentum a step counts for a hundred.
    "paper": Recipe(
        optimizer="sgd",
        lr=1e-5,
        backbone_lr=1.0,
        momentum=0.99,
        nesterov=False,
        weight_decay=0.0,
        epochs=50,
        batch_size=8,
        schedule="step",
        step_epochs=25,
        warmup_epochs=0,
        label_smoothing=0.0,
        clip_norm=0.0,
        augment=True,
        regions="cached",
    ),
    "modern": Recipe(
        optimizer="adamw",
        lr=1e-3,
        backbone_lr=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.05,
        epochs=20,
        batch_size=16,
        schedule="cosine",
        step_epochs=25,
        warmup_epochs=1.0,
        label_smoothing=0.1,
        clip_norm=1.0,
        augment=True,
        regions="cached",
    ),
}

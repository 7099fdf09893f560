"""How a network is trained, by name: every number of a run that is not the network's own, and why it is that number.

Nothing heavy is imported here: the command line makes its options from this module.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from ..data.errors import ConfigurationError
from ..data.fields import ABOVE_0, ANY, AT_LEAST_1, NOT_NEGATIVE, SHARE, choice, setting
from ..data.spelling import did_you_mean

OPTIMISER, SCHEDULE = "Optimiser", "Schedule and choice of the epoch"
REGULARISATION, IMAGES = "Regularisation", "Images"


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and regularisation of a run. What has a default is off by default.

    A field's metadata is all there is to know of it (`setting`). The command line makes an option of each.
    """

    optimizer: str = choice(OPTIMISER, "What moves the weights.", ("sgd", "adamw"))
    lr: float = setting(OPTIMISER, "Learning rate of the head, at its highest.", ABOVE_0)
    backbone_lr: float = setting(OPTIMISER, "The backbone's, as a multiple of --lr; 0 freezes it.", NOT_NEGATIVE)
    momentum: float = setting(OPTIMISER, "Momentum of SGD, or the first beta of AdamW.", SHARE)
    weight_decay: float = setting(OPTIMISER, "On weight matrices, not on biases and norms.", NOT_NEGATIVE)
    epochs: int = setting(SCHEDULE, "How often every training image is seen.", AT_LEAST_1)
    batch_size: int = setting(OPTIMISER, "Images that go through the network at once.", AT_LEAST_1)
    schedule: str = choice(SCHEDULE, "x0.1 every --step-epochs, or a cosine to 0.", ("step", "cosine"))
    classifier_lr: float = setting(OPTIMISER, "The classifier's, as a multiple of --lr.", ABOVE_0, 1.0)
    fan_in: int = setting(
        OPTIMISER,
        "The head's weights of more inputs than this learn slower by as much; 0: all at one rate.",
        NOT_NEGATIVE,
        0,
    )
    layer_decay: float = setting(
        OPTIMISER,
        "The learning rate of a stage of the backbone, as a multiple of the next deeper one's.",
        ("above 0, at most 1", lambda value: 0 < value <= 1),
        1.0,
    )
    frozen_stages: int = setting(
        OPTIMISER, "Stages of the backbone that do not learn, counted from the image.", NOT_NEGATIVE, 0
    )
    frozen_norms: bool = setting(
        OPTIMISER, "The backbone's batch norms keep the statistics that came with its weights.", ANY, False
    )
    nesterov: bool = setting(OPTIMISER, "Look ahead, with SGD.", ANY, False)
    accumulate: int = setting(OPTIMISER, "Batches to a step of the optimiser.", AT_LEAST_1, 1)
    clip_norm: float = setting(OPTIMISER, "Gradients are scaled down to this norm; 0 leaves them.", NOT_NEGATIVE, 0.0)
    step_epochs: int = setting(SCHEDULE, "Epochs from one step of --schedule step to the next.", AT_LEAST_1, 25)
    warmup_epochs: float = setting(SCHEDULE, "The learning rate rises linearly from 0 for so long.", NOT_NEGATIVE, 0.0)
    select_by: str = choice(
        SCHEDULE,
        "The epoch is kept that is best on the validation part by this.",
        ("val_top1", "val_loss"),
        "val_top1",
    )
    patience: int = setting(
        SCHEDULE, "Stop after so many epochs without a better one; 0 goes on to the end.", NOT_NEGATIVE, 0
    )
    ema_decay: float = setting(
        REGULARISATION, "Validate and keep a running mean of the weights, of about 1 / (1 - this) steps.", SHARE, 0.0
    )
    label_smoothing: float = setting(REGULARISATION, "Share of a label given to all classes alike.", SHARE, 0.0)
    mixup: float = setting(
        REGULARISATION,
        "Mix each image with another of its batch, by shares from Beta(a, a); regions are the larger share's.",
        NOT_NEGATIVE,
        0.0,
    )
    dropout: float = setting(
        REGULARISATION, "Dropout probability of what the classifier sees, while training.", SHARE, 0.0
    )
    class_weights: str = choice(
        REGULARISATION, "Balanced: rare classes count as much as frequent ones.", ("none", "balanced"), "none"
    )
    augment: bool = setting(IMAGES, "Random affine views of training images.", ANY, True)
    regions: str = choice(
        IMAGES,
        "Move the file's regions with each augmented view, or find them anew on it, as the paper does.",
        ("cached", "live"),
        "cached",
    )
    image_size: int = setting(IMAGES, "Side of the network's input in pixels; 0: its weights' own.", NOT_NEGATIVE, 0)

    def __post_init__(self) -> None:
        for one in fields(self):
            wanted, holds = one.metadata["rule"]
            _check(holds(getattr(self, one.name)), one.name, wanted, getattr(self, one.name))
        _check(
            self.image_size == 0 or 32 <= self.image_size <= 4096,
            "image_size",
            "0 or 32 to 4096",
            self.image_size,
        )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ConfigurationError("training setting 'nesterov' needs optimizer sgd with momentum above 0")

    def override(self, **options: object) -> Recipe:
        """The recipe with these values in place of its own; None keeps a value.

        Raises: `ConfigurationError` for an unknown name or a bad value.
        """
        known = [one.name for one in fields(self)]
        if unknown := sorted(set(options) - set(known)):
            raise ConfigurationError(f"a recipe has no {', '.join(unknown)}{did_you_mean(unknown[0], known)}")
        return replace(self, **{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]

    def differences(self, other: Recipe) -> dict[str, object]:
        """What this recipe has otherwise than ``other``, by name."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != getattr(other, one.name)
        }

    def lr_factor(self, epoch: float) -> float:
        """The learning rate at a moment of training, as a share of its highest; ``epoch`` counts fractions."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if self.schedule == "step":
            return 0.1 ** (int(epoch) // self.step_epochs)
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def same_rates(self, other: Recipe, epochs: int) -> bool:
        """Whether it has the learning rates of ``other``, from which it differs in ``epochs`` alone, in the first so
        many epochs.
        """
        return self.schedule == "step" or self.epochs == other.epochs or epochs <= self.warmup_epochs


def settings_of_a_recipe() -> dict[str, Field[Any]]:
    """A recipe's fields by name, with their metadata."""
    return {one.name: one for one in fields(Recipe)}


PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SAVE_MINUTES = 10.0  #: between two states saved within an epoch


@dataclass(frozen=True)
class RunSettings:
    """What a run does besides its recipe and its model."""

    weights: str = "imagenet"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"  #: fp32, bf16, fp16, or auto: bf16 on a GPU that has it
    workers: int = 2  #: that read images; the command line takes one a core
    compile: bool = False  #: by torch.compile

    def __post_init__(self) -> None:
        _check(0 <= self.seed < 2**32, "seed", "0 to 4294967295", self.seed)
        _check(self.precision in PRECISIONS, "precision", ", ".join(PRECISIONS), self.precision)
        _check(self.workers >= 0, "workers", "0 or more", self.workers)


def _check(condition: bool, name: str, wanted: str, got: object) -> None:
    if not condition:
        raise ConfigurationError(f"training setting {name!r}: wanted {wanted}, got {got!r}")


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        optimizer="sgd",
        lr=1e-5,
        backbone_lr=1.0,
        momentum=0.99,
        weight_decay=0.0,
        epochs=50,
        batch_size=8,
        schedule="step",
        step_epochs=25,
        augment=True,
    ),
    "modern": Recipe(
        optimizer="adamw",
        lr=2.5e-3,
        backbone_lr=0.1,
        fan_in=16,
        momentum=0.9,
        weight_decay=0.05,
        epochs=20,
        batch_size=16,
        schedule="cosine",
        warmup_epochs=1.0,
        select_by="val_loss",
        label_smoothing=0.1,
        clip_norm=1.0,
        augment=True,
    ),
}

SOURCES: dict[str, str] = {
    "paper": "Bera et al., AG-Net, IEEE TIP 30, 2021, section IV, but for regions; what it does not name is off",
    "modern": "what fine-tuning on small sets commonly uses today, each with its source",
}

# Why a recipe has the values it has. A reason is shown by --dry-run and on the page Recipes.
REASONS: dict[str, dict[str, str]] = {
    "paper": {
        "optimizer": "SGD, section IV",
        "lr": "section IV; small, for at momentum 0.99 a step counts for a hundred",
        "backbone_lr": "section IV knows one rate for all layers",
        "momentum": "section IV",
        "weight_decay": "none is named",
        "epochs": "section IV (VGG-16: 100 more)",
        "batch_size": "section IV",
        "schedule": "x0.1 every 25 epochs, section IV",
        "step_epochs": "section IV",
        "select_by": "accuracy is what it reports; by what it chose the epoch it does not say",
        "augment": "rotation 15 degrees, shift 15 %, scale 0.85 to 1.15, no flip: section IV",
        "nesterov": "not named; the authors' sister code (CAP) has it",
        "regions": "moved with the pixels; the paper finds them anew (--regions live)",
        "image_size": "224 x 224, what its weights were trained on",
    },
    "modern": {
        "optimizer": "AdamW (Loshchilov and Hutter, 2019): one rate suits head and backbone, whatever their scales",
        "lr": "of the classifier, whose inputs are averages: small numbers ask for larger steps",
        "fan_in": "outputs of few and of 100,352 inputs move alike (Yang et al., 2021)",
        "backbone_lr": "a tenth: pretrained weights need less than new ones (Girshick et al., 2014)",
        "momentum": "AdamW's own",
        "weight_decay": "0.05, as DeiT and ConvNeXt (2021, 2022); 30 million weights of the head overfit easily",
        "epochs": "what a night on two cores can bear; more is better",
        "batch_size": "fits where memory is small",
        "schedule": "cosine to 0 (Loshchilov and Hutter, 2017): no step to place",
        "warmup_epochs": "one epoch: AdamW's second moments are noise at first (Liu et al., 2020)",
        "label_smoothing": "0.1 (Szegedy et al., 2016)",
        "clip_norm": "1: a bad batch moves no more than a good one",
        "select_by": "with a few dozen validation images accuracies tie and jump by a whole image; the loss does not",
        "augment": "the paper's; no flip, which would swap left and right classes",
        "regions": "cached: finding them anew on every view costs more than it moves them beyond another seed's",
        "image_size": "its weights' own, whatever the backbone; 320 for 224 gained 3 points, in twice the time",
    },
}

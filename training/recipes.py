"""How a network is trained, by name: every number of a run that is not the network's own, and why it is that number.

Nothing heavy is imported here: the command line makes its options from this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from ..data.errors import ConfigurationError
from ..data.fields import (
    A_NAME,
    A_SEED,
    A_SIZE,
    ABOVE_0,
    ANY,
    AT_LEAST_1,
    NOT_NEGATIVE,
    SHARE,
    check_rules,
    choice,
    meets,
    plain_size,
    setting,
    size_of_text,
)
from ..data.spelling import did_you_mean

OPTIMISER, SCHEDULE = "Optimiser", "Schedule and choice of the epoch"
REGULARISATION, IMAGES = "Regularisation", "Images"
RUN = "Options"
REGIONS_OF_THE_MODEL = "regions of the model"  #: no field but a need: that the model looks at regions


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and regularisation of a run. What has a default is off by default.

    Each field's metadata (`setting`) describes it. The command line makes an option from each field.
    """

    optimizer: str = choice(OPTIMISER, "Optimiser.", ("sgd", "adamw"))
    lr: float = setting(OPTIMISER, "Learning rate of the head, at its highest.", ABOVE_0)
    backbone_lr: float = setting(
        OPTIMISER, "Learning rate of the backbone, as a multiple of --lr; 0 freezes it.", NOT_NEGATIVE
    )
    momentum: float = setting(OPTIMISER, "Momentum of SGD, or the first beta of AdamW.", SHARE)
    weight_decay: float = setting(
        OPTIMISER, "Weight decay of weight matrices; biases and norms have none.", NOT_NEGATIVE
    )
    epochs: int = setting(SCHEDULE, "Number of epochs.", AT_LEAST_1)
    batch_size: int = setting(OPTIMISER, "Number of images per batch.", AT_LEAST_1)
    schedule: str = choice(
        SCHEDULE,
        "Learning rate schedule: a factor of --step-factor every --step-epochs, or a cosine to 0.",
        ("step", "cosine"),
    )
    classifier_lr: float = setting(OPTIMISER, "Learning rate of the classifier, as a multiple of --lr.", ABOVE_0, 1.0)
    fan_in: int = setting(
        OPTIMISER,
        "Number of inputs above which a weight matrix of the head learns more slowly, in proportion; 0: one rate for "
        "all.",
        NOT_NEGATIVE,
        0,
    )
    layer_decay: float = setting(
        OPTIMISER,
        "Learning rate of a stage of the backbone, as a multiple of the next deeper stage's.",
        ("above 0, at most 1", lambda value: 0 < value <= 1),
        1.0,
    )
    frozen_stages: int = setting(
        OPTIMISER, "Number of frozen stages of the backbone, counted from the image.", NOT_NEGATIVE, 0
    )
    frozen_norms: bool = setting(
        OPTIMISER, "Frozen batch norms: the backbone's keep the statistics of its weights.", ANY, False
    )
    beta2: float = setting(
        OPTIMISER, "Second beta of AdamW: decay of its second moments.", SHARE, 0.999, needs=("optimizer", "adamw")
    )
    nesterov: bool = setting(OPTIMISER, "Nesterov momentum, of SGD.", ANY, False, needs=("optimizer", "sgd"))
    accumulate: int = setting(OPTIMISER, "Number of batches per step of the optimiser.", AT_LEAST_1, 1)
    clip_norm: float = setting(
        OPTIMISER, "Norm to which larger gradients are clipped; 0: no clipping.", NOT_NEGATIVE, 0.0
    )
    step_epochs: int = setting(
        SCHEDULE, "Number of epochs between two steps of --schedule step.", AT_LEAST_1, 25, needs=("schedule", "step")
    )
    step_factor: float = setting(
        SCHEDULE,
        "Factor of the learning rate at each step of --schedule step.",
        ("above 0, at most 1", lambda value: 0 < value <= 1),
        0.1,
        needs=("schedule", "step"),
    )
    warmup_epochs: float = setting(
        SCHEDULE, "Number of epochs in which the learning rate rises linearly from --warmup-start.", NOT_NEGATIVE, 0.0
    )
    warmup_start: float = setting(
        SCHEDULE,
        "Share of the learning rate at which the warm-up starts.",
        SHARE,
        0.0,
        needs=("warmup_epochs", ABOVE_0),
    )
    select_by: str = choice(
        SCHEDULE,
        "Measure on the validation split by which the best epoch is chosen.",
        ("val_top1", "val_loss"),
        "val_top1",
    )
    patience: int = setting(
        SCHEDULE, "Number of epochs without a better one after which training stops; 0: never.", NOT_NEGATIVE, 0
    )
    ema_decay: float = setting(
        REGULARISATION,
        "Decay of a running mean of the weights, which is then validated and kept; its span is about 1 / (1 - decay) "
        "steps; 0: none.",
        SHARE,
        0.0,
    )
    ema_warmup: int = setting(
        REGULARISATION,
        "Warm-up w of the running mean: its decay at step k is at most (1 + k) / (w + k).",
        AT_LEAST_1,
        10,
        needs=("ema_decay", ABOVE_0),
    )
    label_smoothing: float = setting(
        REGULARISATION, "Label smoothing: share of a label spread over all classes.", SHARE, 0.0
    )
    mixup: float = setting(
        REGULARISATION,
        "Mixup's a: each image is mixed with another of its batch by a share from Beta(a, a), regions are those of the "
        "larger share; 0: no mixup.",
        NOT_NEGATIVE,
        0.0,
    )
    dropout: float = setting(REGULARISATION, "Dropout probability before the classifier.", SHARE, 0.0)
    class_weights: str = choice(
        REGULARISATION,
        "Class weights of the loss; balanced: rare classes count as much as frequent ones.",
        ("none", "balanced"),
        "none",
    )
    augment: bool = setting(IMAGES, "Random affine augmentation of training images.", ANY, True)
    rotation: float = setting(
        IMAGES,
        "Range of the augmentation's rotation in degrees, either way.",
        ("0 to 180", lambda value: 0 <= value <= 180),
        15.0,
        needs=("augment", True),
    )
    shift: float = setting(
        IMAGES,
        "Range of the augmentation's shift as a share of the side, either way.",
        SHARE,
        0.15,
        needs=("augment", True),
    )
    scale: float = setting(
        IMAGES,
        "Range of the augmentation's scale: 0.15 is 0.85 to 1.15.",
        SHARE,
        0.15,
        needs=("augment", True),
    )
    regions: str = choice(
        IMAGES,
        "Regions of an augmented view: those of the file, moved with the view, or found on it live, as in the paper.",
        ("cached", "live"),
        "cached",
        needs=(REGIONS_OF_THE_MODEL, True),
    )
    image_size: int | tuple[int, int] = setting(
        IMAGES,
        "Size of the network's input in pixels: a side, or height x width; 0: the size of the backbone's weights.",
        A_SIZE,
        0,
        parse=size_of_text,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", plain_size(self.image_size))
        check_rules(self, "training")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ConfigurationError("training setting 'nesterov' needs optimizer sgd with momentum above 0")

    @property
    def size_hw(self) -> tuple[int, int] | None:
        """Height and width of the network's input; None: the size its weights were trained on."""
        if isinstance(self.image_size, tuple):
            return self.image_size
        return (self.image_size, self.image_size) if self.image_size else None

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
            return self.warmup_start + (1 - self.warmup_start) * epoch / self.warmup_epochs
        if self.schedule == "step":
            return self.step_factor ** (int(epoch) // self.step_epochs)
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def same_rates(self, other: Recipe, epochs: int) -> bool:
        """Whether it has the learning rates of ``other``, from which it differs in ``epochs`` alone, in the first so
        many epochs.
        """
        return self.schedule == "step" or self.epochs == other.epochs or epochs <= self.warmup_epochs


def idle_settings(recipe: Recipe) -> set[str]:
    """Names of the settings that change nothing in a recipe, by what they need of its others."""
    needs = {one.name: one.metadata["needs"] for one in fields(recipe) if one.metadata["needs"]}
    return {
        name
        for name, (other, wanted) in needs.items()
        if other != REGIONS_OF_THE_MODEL and not meets(getattr(recipe, other), wanted)
    }


PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SAVE_MINUTES = 10.0  #: between two states saved within an epoch


@dataclass(frozen=True)
class RunSettings:
    """What a run does besides its recipe and its model. Its fields have metadata as a recipe's have."""

    weights: str = setting(
        RUN,
        "Initial weights: none, imagenet, a FILE with the backbone's, or a RUN, whose head is taken where it fits.",
        A_NAME,
        "imagenet",
    )
    seed: int = setting(RUN, "Seed of initial weights, order and augmentation.", A_SEED, 0)
    device: str = setting(RUN, "Device to compute on: cpu, cuda, cuda:1, mps or auto.", A_NAME, "auto")
    precision: str = choice(
        RUN, "Autocast precision; auto: bf16 where the GPU supports it, otherwise fp32.", PRECISIONS, "auto"
    )
    workers: int = setting(RUN, "Number of processes that read images.", NOT_NEGATIVE, 2)
    compile: bool = setting(RUN, "torch.compile: a slow start, then faster steps.", ANY, False)

    def __post_init__(self) -> None:
        check_rules(self, "training")


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
        "schedule": "section IV",
        "step_epochs": "section IV",
        "step_factor": "section IV",
        "select_by": "accuracy is what it reports; by what it chose the epoch it does not say",
        "augment": "affine, no flip: section IV",
        "rotation": "section IV",
        "shift": "section IV: 15%",
        "scale": "section IV: 0.85 to 1.15",
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
        "beta2": "AdamW's own",
        "weight_decay": "0.05, as DeiT and ConvNeXt (2021, 2022); 30 million weights of the head overfit easily",
        "epochs": "what a night on two cores can bear; more is better",
        "batch_size": "fits where memory is small",
        "schedule": "cosine to 0 (Loshchilov and Hutter, 2017): no step to place",
        "warmup_epochs": "one epoch: AdamW's second moments are noise at first (Liu et al., 2020)",
        "label_smoothing": "0.1 (Szegedy et al., 2016)",
        "clip_norm": "1: a bad batch moves no more than a good one",
        "select_by": "with a few dozen validation images accuracies tie and jump by a whole image; the loss does not",
        "augment": "the paper's; no flip, which would swap left and right classes",
        "rotation": "the paper's",
        "shift": "the paper's",
        "scale": "the paper's",
        "regions": "cached: finding them anew on every view costs more than it moves them beyond another seed's",
        "image_size": "its weights' own, whatever the backbone; 320 for 224 gained 3 points, in twice the time",
    },
}

"""Named training recipes: the hyperparameters of a run except those of the network, and the reasons for their values.

This module imports nothing heavy: the command line makes its options from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

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
from ..data.sampling import SAMPLINGS, Sampling
from ..data.spelling import did_you_mean
from .models.contract import CROPS, NONE, SIZES_WANTED, Views, are_sizes, sizes_text

OPTIMISER, SCHEDULE = "Optimiser", "Schedule and epoch selection"
REGULARISATION, IMAGES = "Regularisation", "Images"
CLIPS, RETRIEVAL = "Clips", "Retrieval"
RUN = "Options"
_OPTIMISERS = ("sgd", "adamw")
REGIONS_OF_THE_MODEL = "regions of the model"  #: not a field, but a condition: the model uses regions


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, regularisation and augmentation of a run. The defaults of fields switch features off.

    The metadata of a field (`setting`) describes it. The command line makes an option from each field.
    """

    optimizer: str = choice(OPTIMISER, "Optimiser.", _OPTIMISERS)
    lr: float = setting(OPTIMISER, "Peak learning rate of the head.", ABOVE_0)
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
        "Learning rate schedule. step: multiplied by --step-factor every --step-epochs; cosine: decays to 0.",
        ("step", "cosine"),
    )
    classifier_lr: float = setting(OPTIMISER, "Learning rate of the classifier, as a multiple of --lr.", ABOVE_0, 1.0)
    fan_in: int = setting(
        OPTIMISER,
        "Number of inputs of a weight matrix of the head above which its learning rate is reduced in proportion; 0: "
        "one rate for all.",
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
        OPTIMISER, "Frozen batch norms: those of the backbone keep the statistics of its initial weights.", ANY, False
    )
    beta2: float = setting(
        OPTIMISER, "Second beta of AdamW: decay of its second moments.", SHARE, 0.999, needs=("optimizer", "adamw")
    )
    nesterov: bool = setting(OPTIMISER, "Nesterov momentum for SGD.", ANY, False, needs=("optimizer", "sgd"))
    accumulate: int = setting(OPTIMISER, "Number of batches per optimiser step.", AT_LEAST_1, 1)
    clip_norm: float = setting(
        OPTIMISER, "Maximum norm of the gradients; larger ones are clipped; 0: no clipping.", NOT_NEGATIVE, 0.0
    )
    head_epochs: int = setting(
        SCHEDULE,
        "Number of epochs at the start in which the head learns alone, with frozen backbones; --epochs includes them, "
        "and the schedule begins anew after them; 0: none.",
        NOT_NEGATIVE,
        0,
    )
    head_optimizer: str = choice(
        SCHEDULE, "Optimiser of --head-epochs.", _OPTIMISERS, "adamw", needs=("head_epochs", AT_LEAST_1)
    )
    head_lr: float = setting(
        SCHEDULE,
        "Peak learning rate of the head in --head-epochs.",
        ABOVE_0,
        1e-3,
        needs=("head_epochs", AT_LEAST_1),
    )
    step_epochs: int = setting(
        SCHEDULE, "Number of epochs between two steps of --schedule step.", AT_LEAST_1, 25, needs=("schedule", "step")
    )
    step_factor: float = setting(
        SCHEDULE,
        "Factor applied to the learning rate at each step of --schedule step.",
        ("above 0, at most 1", lambda value: 0 < value <= 1),
        0.1,
        needs=("schedule", "step"),
    )
    warmup_epochs: float = setting(
        SCHEDULE, "Number of warm-up epochs: the learning rate rises linearly from --warmup-start.", NOT_NEGATIVE, 0.0
    )
    warmup_start: float = setting(
        SCHEDULE,
        "Fraction of the learning rate at which the warm-up starts.",
        SHARE,
        0.0,
        needs=("warmup_epochs", ABOVE_0),
    )
    select_by: str = choice(
        SCHEDULE,
        "Validation metric that selects the best epoch; val_cmc1: for retrieval, val_loss and val_top1: for classes.",
        ("val_top1", "val_loss", "val_map", "val_cmc1"),
        "val_top1",
    )
    patience: int = setting(
        SCHEDULE,
        "Number of epochs without improvement after which training stops, not counting --head-epochs; 0: never.",
        NOT_NEGATIVE,
        0,
    )
    ema_decay: float = setting(
        REGULARISATION,
        "Decay of a moving average of the weights, which is validated and saved in their place; it spans about "
        "1 / (1 - decay) steps; 0: no average.",
        SHARE,
        0.0,
    )
    ema_warmup: int = setting(
        REGULARISATION,
        "Warm-up w of the moving average: its decay at step k is at most (1 + k) / (w + k).",
        AT_LEAST_1,
        10,
        needs=("ema_decay", ABOVE_0),
    )
    label_smoothing: float = setting(
        REGULARISATION, "Label smoothing: fraction of the target that is spread over all classes.", SHARE, 0.0
    )
    mixup: float = setting(
        REGULARISATION,
        "Mixup parameter a: each image is mixed with another one of its batch, with weights from Beta(a, a); the "
        "regions are those of the image with the larger weight; 0: no mixup.",
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
        "Maximum random rotation in degrees, either way.",
        ("0 to 180", lambda value: 0 <= value <= 180),
        15.0,
        needs=("augment", True),
    )
    shift: float = setting(
        IMAGES,
        "Maximum random shift as a fraction of the side, either way.",
        SHARE,
        0.15,
        needs=("augment", True),
    )
    scale: float = setting(
        IMAGES,
        "Maximum random change of scale: 0.15 is 0.85 to 1.15.",
        SHARE,
        0.15,
        needs=("augment", True),
    )
    regions: str = choice(
        IMAGES,
        "Regions of an augmented view. cached: the boxes file's, moved with it; live: proposed on it, as in the paper.",
        ("cached", "live"),
        "cached",
        needs=(REGIONS_OF_THE_MODEL, True),
    )
    image_size: int | tuple[int, int] = setting(
        IMAGES,
        "Input size of the network in pixels: a side, or height x width; 0: the size its weights were trained at.",
        A_SIZE,
        0,
        parse=size_of_text,
    )
    sizes: str = setting(
        IMAGES,
        "Sizes in pixels at which the network sees each photograph, with the same weights: 224 448; the logarithms of "
        "its probabilities are averaged; not in the paper; none: --image-size alone.",
        (f"none, or two or more {SIZES_WANTED}", are_sizes),
        NONE,
        parse=sizes_text,
    )
    crops: str = choice(
        IMAGES,
        "Crops of each photograph that the network sees in place of all of it, averaged as --sizes are; five: the "
        "corners and the centre of the photograph at 8/7 of the input size, for models without regions.",
        CROPS,
        NONE,
    )
    frames: int = setting(CLIPS, "Number of frames of each clip, T; 0: images.", NOT_NEGATIVE, 0)
    sampling: str = choice(
        CLIPS,
        "Sampling of the frames. segments: one of each of T equal parts of the clip; window: T in a row. In training "
        "they are random with --augment.",
        SAMPLINGS,
        SAMPLINGS[0],
        needs=("frames", AT_LEAST_1),
    )
    frame_rate: float = setting(
        CLIPS, "Frames per second of a window.", ABOVE_0, 15.0, needs=("sampling", SAMPLINGS[1])
    )
    images_per_class: int = setting(
        RETRIEVAL,
        "Number of images of each class in a batch, K of P x K; --batch-size is P x K; 0: batches of any images.",
        NOT_NEGATIVE,
        0,
    )
    triplet: float = setting(
        RETRIEVAL,
        "Weight of the batch-hard triplet loss of the embedding.",
        NOT_NEGATIVE,
        0.0,
        needs=("images_per_class", ("2 or more", lambda value: value >= 2)),
    )
    margin: float = setting(
        RETRIEVAL,
        "Margin of the triplet loss.",
        ABOVE_0,
        0.3,
        needs=("triplet", ABOVE_0),
    )
    flip: bool = setting(RETRIEVAL, "Random mirroring; it swaps left and right.", ANY, False, needs=("augment", True))
    erasing: float = setting(
        RETRIEVAL,
        "Probability that a random rectangle of a training image is erased.",
        ("0 to 1", lambda value: 0 <= value <= 1),
        0.0,
        needs=("augment", True),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", plain_size(self.image_size))
        check_rules(self, "training")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ConfigurationError("training setting 'nesterov' needs optimizer sgd with momentum above 0")
        if NONE not in (self.sizes, self.crops):
            raise ConfigurationError("training settings 'sizes' and 'crops' exclude each other")
        if self.sizes != NONE and self.image_size:
            raise ConfigurationError("training settings 'sizes' and 'image_size' exclude each other")
        if self.head_epochs >= self.epochs:
            raise ConfigurationError(
                f"training setting 'head_epochs': wanted less than the number of epochs, {self.epochs}, "
                f"got {self.head_epochs}; use --epochs {self.head_epochs + 1} or more, or a smaller --head-epochs"
            )
        if self.images_per_class and self.batch_size % self.images_per_class:
            raise ConfigurationError(
                f"training setting 'batch_size': wanted a multiple of images_per_class ({self.images_per_class}), got "
                f"{self.batch_size}"
            )
        if self.triplet and self.mixup:
            raise ConfigurationError("training setting 'triplet' excludes mixup: a mixed image has no single class")

    @property
    def size_hw(self) -> tuple[int, int] | None:
        """Height and width of the network's input; None for the size its weights were trained at."""
        if isinstance(self.image_size, tuple):
            return self.image_size
        return (self.image_size, self.image_size) if self.image_size else None

    @property
    def views(self) -> Views | None:
        """Views of a photograph that the network sees; None for the photograph alone."""
        return Views.parse(self.sizes, self.crops)

    @property
    def sampling_of_clips(self) -> Sampling | None:
        """Choice of the frames of a clip; None for images."""
        return Sampling(self.frames, self.sampling, self.frame_rate) if self.frames else None

    def override(self, **options: object) -> Recipe:
        """Return the recipe with these values in place of its own; None keeps a value.

        Raises: `ConfigurationError` for an unknown name or an invalid value.
        """
        known = [one.name for one in fields(self)]
        if unknown := sorted(set(options) - set(known)):
            raise ConfigurationError(f"a recipe has no {', '.join(unknown)}{did_you_mean(unknown[0], known)}")
        return replace(self, **{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]

    def differences(self, other: Recipe) -> dict[str, object]:
        """Return the values in which this recipe differs from ``other``, by name."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != getattr(other, one.name)
        }

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases of the run in order: one, or with ``head_epochs`` that of the head and that of all parts."""
        if not self.head_epochs:
            return (Phase(self, 0),)
        head = replace(
            self,
            epochs=self.head_epochs,
            head_epochs=0,
            optimizer=self.head_optimizer,
            lr=self.head_lr,
            backbone_lr=0.0,
            nesterov=self.nesterov and self.head_optimizer == "sgd",
            beta2=self.beta2 if self.optimizer == "adamw" else Recipe.beta2,  # with SGD it is no setting of the recipe
        )
        rest = replace(self, epochs=self.epochs - self.head_epochs, head_epochs=0)
        return Phase(head, 0), Phase(rest, self.head_epochs)

    def phase(self, epoch: int) -> Phase:
        """Return the phase of an epoch, counted from 0."""
        return self.phases[0 if epoch < self.head_epochs else -1]

    def lr_factor(self, epoch: float) -> float:
        """Return the learning rate of a phase as a fraction of its peak.

        Args:
            epoch: Epochs since the beginning of the phase, fractional within an epoch.
        """
        if epoch < self.warmup_epochs:
            return self.warmup_start + (1 - self.warmup_start) * epoch / self.warmup_epochs
        if self.schedule == "step":
            return self.step_factor ** (int(epoch) // self.step_epochs)
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def same_rates(self, other: Recipe, epochs: int) -> bool:
        """Whether the first ``epochs`` epochs have the learning rates of ``other``, a recipe that differs only in its
        number of epochs.
        """
        independent = self.head_epochs + self.warmup_epochs
        return self.schedule == "step" or self.epochs == other.epochs or epochs <= independent


class Phase(NamedTuple):
    """Consecutive epochs of a run with one optimiser; another phase begins with a new one."""

    recipe: Recipe  #: of this phase alone: its number of epochs, optimiser and rates
    start: int  #: number of epochs before it

    def lr_factor(self, epoch: float) -> float:
        """Return the learning rate as a fraction of the phase's peak; ``epoch`` counts from the start of the run."""
        return self.recipe.lr_factor(epoch - self.start)

    def __str__(self) -> str:
        recipe, first = self.recipe, self.start + 1
        last = self.start + recipe.epochs
        whose = "head and backbone" if recipe.backbone_lr else "the head alone"
        rates = f"{recipe.optimizer}, learning rate {recipe.lr:g}"
        if recipe.backbone_lr:
            rates += f", of the backbone {recipe.lr * recipe.backbone_lr:g}"
        return f"{f'epochs {first} to {last}' if last > first else f'epoch {first}'}: {whose}, {rates}"


def idle_settings(recipe: Recipe) -> set[str]:
    """Return the names of the settings that change nothing in a recipe, given its other settings."""
    needs = {one.name: one.metadata["needs"] for one in fields(recipe) if one.metadata["needs"]}
    return {
        name
        for name, (other, wanted) in needs.items()
        if other != REGIONS_OF_THE_MODEL and not meets(getattr(recipe, other), wanted)
    }


PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SAVE_MINUTES = 10.0  #: minutes between states saved within an epoch


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run besides its recipe and its model. Its fields have metadata like those of a recipe."""

    weights: str = setting(
        RUN,
        "Initial weights: none, imagenet, a FILE with the weights of the only backbone, a source for each backbone "
        "(BACKBONE=FILE,BACKBONE=FILE), or a RUN, whose head is used where it fits.",
        A_NAME,
        "imagenet",
    )
    seed: int = setting(RUN, "Seed of the initial weights, the order of images and the augmentation.", A_SEED, 0)
    device: str = setting(RUN, "Device to compute on: cpu, cuda, cuda:1, mps or auto.", A_NAME, "auto")
    precision: str = choice(
        RUN, "Autocast precision; auto: bf16 where the GPU supports it, otherwise fp32.", PRECISIONS, "auto"
    )
    workers: int = setting(RUN, "Number of processes that read images.", NOT_NEGATIVE, 2)
    compile: bool = setting(RUN, "torch.compile: a slow start, then faster steps.", ANY, False)
    cache_features: bool = setting(
        RUN,
        "Cache of a frozen backbone's features: they are computed once, into a file beside the boxes file, and an "
        "epoch costs the head alone; needs --backbone-lr 0 and --no-augment.",
        ANY,
        False,
    )
    folds: int = setting(
        RUN,
        "Number of folds of train: as many runs, in the folders fold-0, fold-1, ... of --run, each trained without one "
        "fold, which it then scores; for agnet labels; 0: none.",
        ("0, or 2 or more", lambda value: value == 0 or value >= 2),
        0,
    )

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
    "bilinear": Recipe(
        optimizer="sgd",
        lr=1e-2,
        backbone_lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        epochs=70,
        batch_size=16,
        schedule="cosine",
        head_epochs=10,
        clip_norm=5.0,
        dropout=0.5,
        augment=True,
    ),
    "reid": Recipe(
        optimizer="adamw",
        lr=3.5e-4,
        backbone_lr=1.0,
        momentum=0.9,
        weight_decay=5e-4,
        epochs=120,
        batch_size=64,
        schedule="cosine",
        warmup_epochs=10.0,
        warmup_start=0.1,
        select_by="val_map",
        label_smoothing=0.1,
        images_per_class=4,
        triplet=1.0,
        margin=0.3,
        augment=True,
        rotation=0.0,
        shift=0.05,
        scale=0.0,
        flip=True,
        erasing=0.5,
        image_size=(256, 128),
    ),
    "clips": Recipe(
        optimizer="adamw",
        lr=1e-3,
        backbone_lr=0.0,
        momentum=0.9,
        weight_decay=1e-4,
        epochs=20,
        batch_size=8,
        schedule="cosine",
        clip_norm=5.0,
        dropout=0.5,
        augment=True,
        frames=16,
    ),
}

SOURCES: dict[str, str] = {
    "paper": "Bera et al., AG-Net, IEEE TIP 30, 2021, section IV, except for regions; what it does not mention is off",
    "modern": "common practice for fine-tuning on small data sets, with the source of each value",
    "bilinear": "the head alone, then all parts, as B-CNN (Lin et al., 2015); no values are published for SRBN",
    "reid": "person re-identification after Luo et al. (2019), with the source of each value",
    "clips": "the head of a network for clips, over a frozen backbone; the published recipes differ widely",
}

# The reasons for the values of a recipe, shown by --dry-run, in the help and on the page Recipes.
REASONS: dict[str, dict[str, str]] = {
    "paper": {
        "optimizer": "SGD, section IV",
        "lr": "section IV; small, because at momentum 0.99 each step counts a hundredfold",
        "backbone_lr": "section IV has one rate for all layers",
        "momentum": "section IV",
        "weight_decay": "not mentioned",
        "epochs": "section IV (VGG-16: 100 more)",
        "batch_size": "section IV",
        "schedule": "section IV",
        "step_epochs": "section IV",
        "step_factor": "section IV",
        "select_by": "the paper reports accuracy; it does not say how the epoch was chosen",
        "augment": "affine, no flip: section IV",
        "rotation": "section IV",
        "shift": "section IV: 15%",
        "scale": "section IV: 0.85 to 1.15",
        "nesterov": "not mentioned; the authors' sister code (CAP) uses it",
        "regions": "moved with the pixels; the paper proposes them on every view (--regions live)",
        "image_size": "224 x 224, the size its weights were trained at",
    },
    "modern": {
        "optimizer": "AdamW (Loshchilov and Hutter, 2019): one rate suits head and backbone, whatever their scales",
        "lr": "the inputs of the classifier are means or normalised sums: small numbers need larger steps",
        "fan_in": "layers with few inputs and with many change their outputs equally (Yang et al., 2021)",
        "backbone_lr": "pretrained weights need smaller steps than new ones (Girshick et al., 2014)",
        "momentum": "AdamW's default",
        "beta2": "AdamW's default",
        "weight_decay": "as DeiT and ConvNeXt (2021, 2022); a head of many weights overfits easily",
        "epochs": "what two cores can train in a night; more is better",
        "batch_size": "fits into little memory",
        "schedule": "Loshchilov and Hutter (2017): no step epochs to choose",
        "warmup_epochs": "AdamW's second moments are noisy at first (Liu et al., 2020)",
        "label_smoothing": "Szegedy et al. (2016)",
        "clip_norm": "a bad batch changes the weights no more than a good one",
        "select_by": "with a few dozen validation images, accuracies tie and change in steps; the loss does not",
        "augment": "as in the paper; no flip, which would swap left and right classes",
        "rotation": "as in the paper",
        "shift": "as in the paper",
        "scale": "as in the paper",
        "regions": "proposing them on every view is slow and changes them not much more than another seed does",
        "image_size": "the size its weights were trained at; 320 instead of 224 gained 3 points in twice the time",
    },
    "bilinear": {
        "optimizer": "SGD, as is customary for VGG",
        "lr": "a choice: ten times the backbone's",
        "backbone_lr": "0.001, the rate at which Lin et al. (2015) fine-tune",
        "momentum": "customary with SGD; also AdamW's default",
        "weight_decay": "VGG's (Simonyan and Zisserman, 2015)",
        "epochs": "a choice: 10 of the head and 60 of all parts",
        "batch_size": "fits into little memory",
        "schedule": "Loshchilov and Hutter (2017), in each phase by itself: no step epochs to choose",
        "head_epochs": "a new head would pass noise to the pretrained weights; Lin et al. (2015) begin with it too",
        "head_optimizer": "AdamW: one rate suits attention, LSTM and classifier, whatever their scales",
        "head_lr": "AdamW's default",
        "fan_in": "off: it would slow an LSTM's matrices of 512 inputs 32-fold",
        "clip_norm": "recurrent layers have rare, very large gradients (Pascanu et al., 2013)",
        "dropout": "a choice: few images and many features (Srivastava et al., 2014)",
        "select_by": "accuracy is what is compared; without smoothing, the loss rises with confidence",
        "augment": "as in the recipe modern; no flip, which would swap left and right classes",
        "rotation": "as in the recipe modern",
        "shift": "as in the recipe modern",
        "scale": "as in the recipe modern",
        "regions": "as in the recipe modern",
        "image_size": "the size its weights were trained at; B-CNN is published at 448, in four times the time",
    },
    "reid": {
        "optimizer": "Luo et al. (2019) have Adam; with AdamW the weight decay does not depend on the gradients",
        "lr": "Luo et al. (2019)",
        "backbone_lr": "Luo et al. (2019) have one rate for all layers",
        "momentum": "Adam's default",
        "beta2": "Adam's default",
        "weight_decay": "Luo et al. (2019), there as a term of the loss",
        "epochs": "Luo et al. (2019)",
        "batch_size": "16 persons x 4 images: Luo et al. (2019)",
        "images_per_class": "Luo et al. (2019)",
        "schedule": "Luo et al. (2019) multiply by 0.1 after epochs 40 and 70; a cosine suits any number of epochs",
        "warmup_epochs": "Luo et al. (2019)",
        "warmup_start": "Luo et al. (2019)",
        "select_by": "the measure of the test; validation persons are not trained on",
        "label_smoothing": "Luo et al. (2019)",
        "triplet": "Hermans et al. (2017), as strong as the loss of identities",
        "margin": "Hermans et al. (2017), Luo et al. (2019)",
        "rotation": "persons stand upright",
        "shift": "in place of padding by 10 pixels and cropping: up to 13 of 256 and 6 of 128",
        "scale": "boxes of detectors already vary in scale",
        "flip": "a person seen from the other side; Luo et al. (2019)",
        "erasing": "Zhong et al. (2020): hidden parts; Luo et al. (2019)",
        "image_size": "persons are upright; Luo et al. (2019)",
    },
    "clips": {
        "optimizer": "AdamW: one rate suits attention, LSTM and classifier, whatever their scales",
        "lr": "AdamW's default; published rates for frozen backbones are 1e-4 to 1e-3",
        "backbone_lr": "0, frozen, as Sharma et al. (2016): a clip costs T images, and few clips overfit a network",
        "momentum": "AdamW's default",
        "beta2": "AdamW's default",
        "weight_decay": "a choice: light, as dropout regularises, too",
        "epochs": "a choice; VideoLSTM (Li et al., 2018) trains for 300",
        "batch_size": "8 clips of 16 frames are 128 images at once",
        "schedule": "Loshchilov and Hutter (2017): no step epochs to choose",
        "fan_in": "off: it would slow a 3 x 3 kernel of a ConvLSTM with 512 inputs 288-fold",
        "clip_norm": "recurrent layers have rare, very large gradients (Pascanu et al., 2013)",
        "dropout": "Sharma et al. (2016) and Li et al. (2018): 0.5 to 0.7",
        "select_by": "accuracy is what is compared; without smoothing, the loss rises with confidence",
        "augment": "one motion for all frames of a clip; no flip, which would swap left and right classes",
        "rotation": "as in the recipe modern",
        "shift": "as in the recipe modern",
        "scale": "as in the recipe modern",
        "frames": "enough for a gesture of two seconds; Sharma et al. (2016) and Li et al. (2018) have 30",
        "sampling": "the whole clip is seen, whatever its length (Wang et al., TSN, 2016)",
        "regions": "the tubes of the boxes file, moved with the pixels",
        "image_size": "the size its weights were trained at",
    },
}

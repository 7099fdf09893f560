"""From what is asked for to a network that can learn it and its images: built, or refused with what is lacking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..data.boxes_reader import Boxes
from ..data.errors import ConfigurationError
from .augmentation import AffineRange
from .dataset import Loader, Propose, RegionDataset
from .devices import Device
from .distributed import ALONE, Processes
from .learner import Learner, is_lone_value
from .models.backbones import Backbone
from .models.build import Model, build_model
from .models.settings import ModelSettings
from .recipes import Recipe, RunSettings


def build_loaders(
    boxes: Boxes,
    root: Path,
    recipe: Recipe,
    settings: RunSettings,
    side: int,
    propose: Propose | None,
    processes: Processes = ALONE,
) -> tuple[Loader, Loader]:
    """Training images, shuffled and moved; validation images, as they are, with the regions of the file."""
    augment = AffineRange() if recipe.augment else None
    live = propose if recipe.regions == "live" else None
    train_set = RegionDataset(boxes, root, side, augment, settings.seed, live)
    plain_set = RegionDataset(boxes, root, side)
    train, val = boxes.rows("train"), boxes.rows("val")
    loader = partial(
        Loader,
        batch_size=recipe.batch_size,
        workers=settings.workers,
        rank=processes.rank,
        size=processes.size,
        postpones_signals=True,
    )
    return loader(train_set, train, shuffle_seed=settings.seed), loader(plain_set, val)


def build_learner(
    model: Model,
    recipe: Recipe,
    settings: RunSettings,
    device: Device,
    boxes: Boxes,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> Learner:
    """The network on its device, ready to learn, and ready for images of the recipe's size.

    Raises: `ConfigurationError` when the backbone cannot take those, or not a batch of a single one where there is
        such a batch, or has fewer stages than are to be frozen.
    """
    device.take(model, torch.channels_last)
    if recipe.image_size not in (0, model.backbone.preprocessing.size):
        model.backbone.preprocessing = replace(model.backbone.preprocessing, size=recipe.image_size)
        _check_takes(model.backbone, recipe.image_size, device)
    labels = boxes.labels[boxes.usable[boxes.rows("train")]]
    learner = Learner(
        model,
        recipe,
        device,
        seed=settings.seed,
        class_images=np.bincount(labels, minlength=len(boxes.classes)).tolist(),
        compiler="inductor" if settings.compile else None,
        processes=processes,
        say=say,
    )
    if (len(labels) % recipe.batch_size or recipe.batch_size) // processes.size <= 1:
        _check_takes_one(learner, len(labels))
    return learner


def _check_takes(backbone: Backbone, side: int, device: Device) -> None:
    """Raises: `ConfigurationError` when a backbone cannot see images of that size: many transformers are for one."""
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, side, side, device=device.device))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigurationError(
            f"the backbone cannot take images of {side} x {side} pixels ({str(error).splitlines()[0]}); leave out "
            "--image-size, or take another backbone"
        ) from None


def _check_takes_one(learner: Learner, images: int) -> None:
    """Raises: `ConfigurationError` when the backbone cannot learn from one image: of the last batch, an epoch later."""
    learner.start()
    backbone, size = learner.model.backbone, learner.recipe.batch_size
    image = torch.zeros(1, 3, *(2 * [backbone.preprocessing.size]), device=learner.device.device)
    statistics = {name: buffer.clone() for name, buffer in backbone.named_buffers()}  # its own stay as they are
    try:
        with torch.no_grad():
            torch.func.functional_call(backbone, statistics, (image,))
    except ValueError as error:
        if not is_lone_value(error):
            raise
        raise ConfigurationError(
            f"{images:,} training images in batches of {size} leave one image on its own, of which a batch norm "
            "of this backbone would see a single value; take another --batch-size, a larger --image-size, or "
            "--frozen-norms"
        ) from None


def build_network(settings: ModelSettings, weights: dict[str, torch.Tensor] | None = None) -> Model:
    """`build_model`, its complaints turned into the user's errors."""
    try:
        return build_model(settings, weights)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None

"""Build the model, data loaders and learner of a run, or raise an error that names what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...data.boxes.reader import Boxes
from ...data.errors import ConfigurationError
from ...data.names import TRAIN_FOLD
from ...data.sampling import Sampling
from ...data.text import first_line, rows_called
from ..machine.devices import Device
from ..machine.distributed import ALONE, Processes
from ..machine.torch_internals import is_lone_value
from ..models.backbones.entries import StateDict
from ..models.build import build_model
from ..models.contract import Settings
from ..models.model import Model
from ..recipes import Recipe, RunSettings
from ..runs.seen import UNKNOWN, count_seen
from ..runs.sources import sources_by_backbone
from ..runs.weights import find_weights
from ..samples.loader import ClassSampler, Loader, Propose, RegionDataset, dataset_of
from ..samples.views import AffineRange
from ..tasks import task_of
from .feature_cache import FeatureCache
from .learner import Learner
from .strides import IMAGES, are_misplaced, stride_blocks
from .warm_start import Parent, find_parent


def build_loaders(
    boxes: Boxes,
    root: Path,
    recipe: Recipe,
    settings: RunSettings,
    size_hw: tuple[int, int],
    regions: bool,
    propose: Propose | None,
    processes: Processes = ALONE,
    features: FeatureCache | None = None,
) -> tuple[Loader, Loader]:
    """Build the loaders of training images, shuffled and augmented, and of validation images, in order and unaugmented.

    Args:
        boxes: Boxes file of the images.
        root: Folder of the images.
        recipe: Training settings.
        settings: Seed and number of workers.
        size_hw: Height and width of the network's input in pixels.
        regions: Whether the model uses regions; if not, none are computed.
        propose: Stage 1's function for one image, used if ``recipe.regions`` is live.
        processes: Processes that share every batch.
        features: Features that are read in place of images, if any.
    """
    augment = AffineRange(recipe.rotation, recipe.shift, recipe.scale, recipe.flip) if recipe.augment else None
    live = propose if recipe.regions == "live" else None
    train_set: RegionDataset
    plain_set: RegionDataset
    if features:
        plain_set = train_set = features.dataset(regions)
    else:
        plain_set = dataset_of(boxes, root, size_hw, recipe.sampling_of_clips, regions=regions)
        train_set = dataset_of(
            boxes,
            root,
            size_hw,
            recipe.sampling_of_clips,
            augment=augment,
            seed=settings.seed,
            propose=live,
            regions=regions,
            erasing=recipe.erasing,
        )
    splits = task_of(boxes).splits
    train, val = boxes.rows(splits.trained_on), boxes.rows(splits.chosen_by)
    sampler = None
    if recipe.images_per_class:
        labels = boxes.labels[boxes.usable[train]]
        sampler = ClassSampler(train, labels, recipe.batch_size, recipe.images_per_class, settings.seed)
    loader = partial(
        Loader,
        batch_size=recipe.batch_size,
        workers=0 if features else settings.workers,  # a process costs more than the copy of features
        rank=processes.rank,
        size=processes.size,
        postpones_signals=True,
    )
    return loader(train_set, train, shuffle_seed=settings.seed, sampler=sampler), loader(plain_set, val)


def build_learner(
    model: Model,
    recipe: Recipe,
    settings: RunSettings,
    device: Device,
    boxes: Boxes,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> Learner:
    """Build the learner: the network on its device, set to the recipe's image size, with its optimiser.

    Raises: `ConfigurationError` if the backbone does not support that image size, if an epoch has a batch of a single
        image and the backbone cannot train on one, or if more stages are to be frozen than the backbone has.
    """
    device.take(model, torch.channels_last)
    own_hw, model.views = model.size_hw, recipe.views
    model.size_hw = recipe.size_hw or own_hw
    if model.size_hw != own_hw or model.views:
        _check_takes(model, device)
    task = task_of(boxes)
    labels = boxes.labels[boxes.usable[boxes.rows(task.splits.trained_on)]]
    learner = Learner(
        model,
        recipe,
        device,
        seed=settings.seed,
        class_images=np.bincount(labels, minlength=len(task.classes(boxes))).tolist(),
        task=task,
        compiler="inductor" if settings.compile else None,
        processes=processes,
        say=say,
    )
    if not recipe.images_per_class and (len(labels) % recipe.batch_size or recipe.batch_size) // processes.size <= 1:
        _check_takes_one(learner, len(labels))
    return learner


def _check_takes(model: Model, device: Device) -> None:
    """Raise `ConfigurationError` if a backbone does not support the model's image size, as many transformers do not."""
    for height, width in dict.fromkeys(model.seen_hw):
        try:
            with torch.no_grad():
                for backbone in model.backbones:
                    backbone.eval()(torch.zeros(1, 3, height, width, device=device.device))
        except (RuntimeError, ValueError, AssertionError) as error:
            option = "--sizes" if model.views else "--image-size"
            raise ConfigurationError(
                f"the backbone does not support images of {height} x {width} pixels ({first_line(error)}); leave out "
                f"{option}, or use another backbone"
            ) from None


def _check_takes_one(learner: Learner, images: int) -> None:
    """Raise `ConfigurationError` if a backbone cannot train on a single image, as in an epoch's last batch."""
    size, of_frames = learner.recipe.batch_size, learner.recipe.frames > 1
    if of_frames and (learner.model.neck is None or "images" in learner.model.inputs):
        return  # a batch norm sees every frame of the clip
    learner.start(learner.recipe.epochs - 1)  # when no part rests that ever learns
    if learner.model.neck is not None:
        raise ConfigurationError(_lone_image(images, size, "of the neck", rows_called(of_frames)))
    image = torch.zeros(1, 3, *min(learner.model.seen_hw), device=learner.device.device)
    try:
        with torch.no_grad():
            for backbone in learner.model.backbones:
                # Copies, so that the running statistics do not change.
                statistics = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
                torch.func.functional_call(backbone, statistics, (image,))
        learner.begin_phase(0)
    except ValueError as error:
        if not is_lone_value(error):
            raise
        raise ConfigurationError(_lone_image(images, size, "of this backbone")) from None


def _lone_image(images: int, size: int, whose: str, called: str = "images") -> str:
    others = ", a larger --image-size, or --frozen-norms" if whose == "of this backbone" else ""
    return (
        f"{images:,} training {called} in batches of {size} leave one {called[:-1]} on its own, from which a "
        f"batch norm {whose} would get a single value per channel; use another --batch-size{others}"
    )


def begin_network(
    settings: Settings, source: str, boxes: Boxes, say: Callable[[str], None]
) -> tuple[Model, Parent | None]:
    """Build the network with its initial weights, and return the run they come from, if ``source`` is a run.

    Args:
        settings: Settings of the model.
        source: Source of the weights: none, imagenet, a file of backbone weights, one of these for each backbone, or a
            run.
        boxes: Boxes file of the images.
        say: Function called with a line of text for the user.

    Raises: `ConfigurationError` and `CheckpointError` as in `build_network`, `find_parent`, `sources_by_backbone`
        and `find_weights`; `ConfigurationError` for a run that has seen images of the fold that is left out.
    """
    parent = find_parent(source, settings)
    if parent is None:
        sources = sources_by_backbone(source, [stream.backbone for stream in settings.streams])
        found = {name: find_weights(one, name) for name, one in sources.items()}
        return build_network(settings, {name: weights for name, weights in found.items() if weights is not None}), None
    model = build_network(settings)
    say(parent.hand_over(model, settings, task_of(boxes).classes(boxes)))
    _check_left_out(boxes, parent)
    seen = count_seen(boxes, "test", frozenset(parent.contents))
    if seen:
        say(f"{seen:,} of the test images were seen by {parent.name}, byte for byte: agnet evaluate will refuse them")
    return model, parent


def _check_left_out(boxes: Boxes, parent: Parent) -> None:
    """Raise `ConfigurationError` if the run that provides the weights has or may have seen the fold left out."""
    contents = frozenset(parent.contents)
    seen = count_seen(boxes, TRAIN_FOLD, contents)
    if seen or (UNKNOWN in contents and len(boxes.rows(TRAIN_FOLD))):
        what = f"has seen {seen:,} images" if seen else "has no record of its images, and may have seen those"
        raise ConfigurationError(f"{parent.name} {what} of the fold that is left out; use other --weights with --folds")


_OTHER_STRIDES = {"resnet50": "resnet50-v1", "resnet50-v1": "resnet50"}


def doubt_of_strides(model: Model, settings: Settings, boxes: Boxes, root: Path, device: Device) -> str:
    """Return a warning if a file's weights seem to come from a ResNet with its strides elsewhere; otherwise empty.

    The batch-norm statistics of the weights are compared with those of a few training images.

    Args:
        model: Network on its device, with its initial weights.
        settings: Settings of the model.
        boxes: Boxes file of the images.
        root: Folder of the images.
        device: Device of the model.
    """
    rows = boxes.rows(task_of(boxes).splits.trained_on)
    names = (stream.backbone for stream in settings.streams)
    doubtful = {
        name: backbone for name, backbone in zip(names, model.backbones, strict=True) if stride_blocks(backbone)
    }
    if not doubtful or len(rows) < IMAGES / 2:  # too few for reliable statistics
        return ""
    some = rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows)), dtype=np.int64)].tolist()
    dataset = dataset_of(boxes, root, model.size_hw, Sampling(1) if boxes.of_clips else None, regions=False)
    images = device.pixels(next(Loader(dataset, np.array(some), len(some), 0).epoch(0)).images)
    name = next((name for name, backbone in doubtful.items() if are_misplaced(backbone, images)), None)
    if name is None:
        return ""
    remedy = f"use --backbone {_OTHER_STRIDES[name]}" if name in _OTHER_STRIDES else "no such backbone is available"
    return (
        f"Warning: on {len(some)} training images, these weights seem to come from a network that has {name}'s strides "
        f"in other convolutions (the original ResNet's are in the first 1 x 1, torchvision's in the 3 x 3): {remedy}"
    )


def build_network(settings: Settings, weights: Mapping[str, StateDict] | None = None) -> Model:
    """Call `build_model` and turn its exceptions into `ConfigurationError`."""
    try:
        return build_model(settings, weights)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None

"""The story of a run: build, train epoch by epoch, choose the best by validation, keep what is needed to go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.boxes_reader import Boxes
from ..data.errors import CheckpointError, ConfigurationError, DatasetError
from .augmentation import AffineRange
from .checkpoints import Checkpoint, load_training_state, save_checkpoint, save_training_state
from .dataset import Loader, Propose, RegionDataset, check_images_present
from .devices import Device, choose_training_device
from .engine import Watch, evaluate, steps_of_epoch, train_epoch
from .learner import Learner
from .models.backbones import Backbone
from .models.build import Model, build_model
from .models.settings import ModelSettings
from .recipes import Recipe, RunSettings
from .run_folder import BEST, LAST, LOG, check_same_run, configuration, cut_log, start_folder
from .seen_images import SEEN, write_seen
from .selection import Selection
from .weights import find_weights


def fit(
    run: Path,
    boxes: Boxes,
    root: Path,
    model_settings: ModelSettings,
    recipe: Recipe,
    settings: RunSettings,
    *,
    propose: Propose | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    watch: Watch = lambda what, images: lambda done, values: None,
    report: Callable[[dict[str, object]], None] = lambda line: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train a network into the folder ``run``.

    Args:
        run: gets the configuration, a JSON line for each epoch, the best and the last checkpoint, and what it has seen.
        boxes: the boxes file; its ``train`` part is trained on, its ``val`` part chooses the epoch, ``test`` is
            not looked at.
        root: where the images are.
        model_settings, recipe, settings: what to train and how.
        propose: stage 1's function for one image, for ``recipe.regions`` live.
        resume: go on from the last finished epoch in ``run``.
        stop_after: stop once this many epochs are finished; ``resume`` goes on as if it had not stopped.
        watch: told what is going on, for progress bars.
        report: told each epoch's log line.
        say: told in a line what a user should know.

    Returns: the best checkpoint's path.
    Raises: `AgnetError` children for whatever the input lacks, `TrainingError` when training diverges.
    """
    device = check_can_start(run, boxes, root, recipe, settings, propose, resume)
    config = configuration(run, boxes, root, model_settings, recipe, settings, device)
    if resume:
        check_same_run(run, config)

    torch.manual_seed(settings.seed)
    model = build(model_settings, None if resume else find_weights(settings.weights, model_settings.backbone))
    learner = build_learner(model, recipe, settings, device, boxes, say)
    preprocessing = model.backbone.preprocessing
    selection = Selection(recipe.select_by, recipe.patience)
    first_epoch = 0
    if resume:
        state = load_training_state(run / LAST, model, learner.optimizer)
        first_epoch, selection = int(str(state["epoch"])), Selection(**state["selection"])  # type: ignore[arg-type]
        cut_log(run / LOG, first_epoch)
    else:
        start_folder(run, config)
    if not resume or not (run / SEEN).exists():  # a run begun by an older version has none
        write_seen(run, boxes)

    training, validation = build_loaders(boxes, root, recipe, settings, preprocessing.size, propose)
    for epoch in range(first_epoch, min(recipe.epochs, stop_after or recipe.epochs)):
        if selection.is_over(epoch):
            say(f"no better {selection.by} for {recipe.patience} epochs: stopped; epoch {selection.best_epoch} is kept")
            break
        line = _one_epoch(learner, training, validation, epoch, watch)
        if selection.is_best(epoch + 1, line):
            line["best"] = True
            checkpoint = Checkpoint(
                model=learner.judged,
                settings=model_settings,
                classes=boxes.classes,
                preprocessing=preprocessing,
                proposals=boxes.settings["proposals"],
                fingerprint=boxes.fingerprint,
                epoch=epoch + 1,
                val_top1=line.get("val_top1"),
            )
            save_checkpoint(run / BEST, checkpoint)
        with (run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        save_training_state(run / LAST, model, learner.optimizer, {"epoch": epoch + 1, "selection": vars(selection)})
        report(line)
    return run / BEST


def check_can_start(
    run: Path,
    boxes: Boxes,
    root: Path,
    recipe: Recipe,
    settings: RunSettings,
    propose: Propose | None,
    resume: bool = False,
) -> Device:
    """What can be said before any network is built. Returns the device to train on.

    Raises: `AgnetError` children for whatever the input lacks, or when ``run`` already holds a run.
    """
    if recipe.regions == "live" and propose is None:
        raise ConfigurationError("live regions need stage 1's function for one image")
    if not len(boxes.rows("train")):
        raise DatasetError(f"{boxes.path} has no usable training images")
    if recipe.patience and not len(boxes.rows("val")):
        raise ConfigurationError("training setting 'patience' needs a validation part, and this boxes file has none")
    check_images_present(boxes, root)
    if not resume and (run / LAST).exists():
        raise CheckpointError(f"{run} already holds a run; go on with --resume or name another folder with --run")
    return choose_training_device(settings.device, settings.precision)


def build_loaders(
    boxes: Boxes, root: Path, recipe: Recipe, settings: RunSettings, side: int, propose: Propose | None
) -> tuple[Loader, Loader]:
    """Training images, shuffled and moved; validation images, as they are, with the regions of the file."""
    augment = AffineRange() if recipe.augment else None
    live = propose if recipe.regions == "live" else None
    train_set = RegionDataset(boxes, root, side, augment, settings.seed, live)
    plain_set = RegionDataset(boxes, root, side)
    return (
        Loader(train_set, boxes.rows("train"), recipe.batch_size, settings.workers, shuffle_seed=settings.seed),
        Loader(plain_set, boxes.rows("val"), recipe.batch_size, settings.workers),
    )


def _one_epoch(learner: Learner, training: Loader, validation: Loader, epoch: int, watch: Watch) -> dict[str, Any]:
    """Train on everything once, then look at validation. Returns the epoch's log line."""
    trained = train_epoch(
        learner,
        training.epoch(epoch),
        epoch,
        steps=steps_of_epoch(len(training), learner.recipe.accumulate),
        progress=watch(f"epoch {epoch + 1}/{learner.recipe.epochs}", training.images),
    )
    line: dict[str, Any] = {"epoch": epoch + 1, **trained.line()}
    if learner.micro_batch:
        line["images_at_once"] = learner.micro_batch
    if validation.images:
        scored = evaluate(
            learner.judged,
            validation.epoch(0),
            device=learner.device,
            preprocessing=learner.model.backbone.preprocessing,
            progress=watch("validation", validation.images),
        )
        line |= {"val_loss": scored.loss, "val_top1": scored.top1}
    return line


def build_learner(
    model: Model, recipe: Recipe, settings: RunSettings, device: Device, boxes: Boxes, say: Callable[[str], None]
) -> Learner:
    """The network on its device, ready to learn, and ready for images of the recipe's size.

    Raises: `ConfigurationError` when the backbone cannot take those, or has fewer stages than are to be frozen.
    """
    model.to(device=device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.image_size not in (0, model.backbone.preprocessing.size):
        model.backbone.preprocessing = replace(model.backbone.preprocessing, size=recipe.image_size)
        _check_takes(model.backbone, recipe.image_size, device)
    labels = boxes.labels[boxes.usable[boxes.rows("train")]]
    return Learner(
        model,
        recipe,
        device,
        seed=settings.seed,
        class_images=np.bincount(labels, minlength=len(boxes.classes)).tolist(),
        compiler="inductor" if settings.compile else None,
        say=say,
    )


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


def build(settings: ModelSettings, weights: dict[str, torch.Tensor] | None = None) -> Model:
    """`build_model`, its complaints turned into the user's errors."""
    try:
        return build_model(settings, weights)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None

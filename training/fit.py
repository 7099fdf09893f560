"""The story of a run: build, train epoch by epoch, choose the best by validation, keep what is needed to go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..data.boxes_reader import Boxes
from ..data.errors import CheckpointError, ConfigurationError, DatasetError
from .augmentation import AffineRange
from .checkpoints import Checkpoint, load_training_state, save_checkpoint, save_training_state
from .dataset import Loader, Propose, RegionDataset, check_images_present
from .devices import Device, choose_device
from .engine import Watch, evaluate, train_epoch
from .models.build import Model, build_model
from .models.settings import ModelSettings
from .optimizer import build_optimizer
from .recipes import Recipe, RunSettings
from .run_folder import BEST, LAST, LOG, check_same_run, configuration, cut_log, start_folder
from .seen_images import SEEN, write_seen
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

    Returns: the best checkpoint's path.
    Raises: `AgnetError` children for whatever the input lacks; `FloatingPointError` when training diverges.
    """
    if recipe.regions == "live" and propose is None:
        raise ConfigurationError("live regions need stage 1's function for one image")
    if not len(boxes.rows("train")):
        raise DatasetError(f"{boxes.path} has no usable training images")
    check_images_present(boxes, root)
    device = choose_device(settings.device, settings.precision)
    config = configuration(run, boxes, root, model_settings, recipe, settings, device)
    if resume:
        check_same_run(run, config)
    elif (run / LAST).exists():
        raise CheckpointError(f"{run} already holds a run; go on with --resume or name another folder with --run")

    torch.manual_seed(settings.seed)
    model = build(model_settings, None if resume else find_weights(settings.weights, model_settings.backbone))
    model.to(device=device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocessing = model.backbone.preprocessing
    optimizer = build_optimizer(model, recipe)
    first_epoch, best = 0, -1.0
    if resume:
        state = load_training_state(run / LAST, model, optimizer)
        first_epoch, best = int(str(state["epoch"])), float(str(state["best"]))
        cut_log(run / LOG, first_epoch)
    else:
        start_folder(run, config)
    if not resume or not (run / SEEN).exists():  # a run begun by an older version has none
        write_seen(run, boxes)

    training, validation = _loaders(boxes, root, recipe, settings, preprocessing.size, propose)
    for epoch in range(first_epoch, min(recipe.epochs, stop_after or recipe.epochs)):
        # Whatever layer draws random numbers, a resumed run draws the same.
        torch.manual_seed(settings.seed + (epoch + 1) * 2**32)
        line = _one_epoch(model, optimizer, recipe, device, training, validation, epoch, watch)
        # Without a validation part there is nothing to choose by: the last epoch counts.
        val_top1 = line.get("val_top1")
        if val_top1 is None or val_top1 > best:
            best = -1.0 if val_top1 is None else val_top1
            line["best"] = True
            checkpoint = Checkpoint(
                model=model,
                settings=model_settings,
                classes=boxes.classes,
                preprocessing=preprocessing,
                proposals=boxes.settings["proposals"],
                fingerprint=boxes.fingerprint,
                epoch=epoch + 1,
                val_top1=val_top1,
            )
            save_checkpoint(run / BEST, checkpoint)
        with (run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        save_training_state(run / LAST, model, optimizer, {"epoch": epoch + 1, "best": best})
        report(line)
    return run / BEST


def _loaders(
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


def _one_epoch(
    model: Model,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    device: Device,
    training: Loader,
    validation: Loader,
    epoch: int,
    watch: Watch,
) -> dict[str, Any]:
    """Train on everything once, then look at validation. Returns the epoch's log line."""
    preprocessing = model.backbone.preprocessing
    trained = train_epoch(
        model,
        training.epoch(epoch),
        optimizer,
        device=device,
        preprocessing=preprocessing,
        # The middle of the step: no step is wasted at a rate of 0, none gets the next epoch's rate.
        lr_of_step=lambda step: recipe.lr_factor(epoch + (step + 0.5) / len(training)),
        label_smoothing=recipe.label_smoothing,
        clip_norm=recipe.clip_norm,
        frozen_backbone=recipe.backbone_lr == 0,
        progress=watch(f"epoch {epoch + 1}/{recipe.epochs}", training.images),
    )
    line: dict[str, Any] = {"epoch": epoch + 1, "train_loss": trained["loss"], "train_top1": trained["top1"]}
    if validation.images:
        seen = watch("validation", validation.images)
        scored = evaluate(model, validation.epoch(0), device=device, preprocessing=preprocessing, progress=seen)
        line |= {"val_loss": scored.loss, "val_top1": scored.top1}
    return line


def build(settings: ModelSettings, weights: dict[str, torch.Tensor] | None = None) -> Model:
    """`build_model`, its complaints turned into the user's errors."""
    try:
        return build_model(settings, weights)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None

"""The story of a run: build, train epoch by epoch, choose the best by validation, keep what is needed to go on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from .. import __version__
from ..data.boxes_reader import Boxes
from ..data.errors import CheckpointError, ConfigurationError, DatasetError, MismatchError
from ..data.index import SPLITS
from ..data.places import relative_hint
from .augmentation import AffineRange
from .checkpoints import Checkpoint, load_training_state, save_checkpoint, save_training_state
from .dataset import Loader, Propose, RegionDataset, check_images_present
from .engine import Device, evaluate, train_epoch
from .models.build import Model, build_model
from .models.settings import ModelSettings
from .recipes import Recipe, RunSettings
from .seen_images import SEEN, write_seen
from .weights import find_weights

BEST, LAST, LOG, CONFIG = "best.safetensors", "last.safetensors", "log.jsonl", "config.json"

# (what is going on, its number of images) -> a function that is told images done and current values
Watch = Callable[[str, int], Callable[[int, dict[str, float]], None]]


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
    config = _configuration(run, boxes, root, model_settings, recipe, settings, device)
    if resume:
        _check_same_run(run, config)
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
        _cut_log(run / LOG, first_epoch)
    else:
        _start_folder(run, config)
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


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW in groups: head and backbone, each with and without weight decay.

    A group's ``highest_lr`` is what the schedule multiplies. A frozen backbone's parameters are in no group and
    ask for no gradient.
    """
    frozen = recipe.backbone_lr == 0
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_backbone = name.startswith("backbone.")
        if in_backbone and frozen:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((in_backbone, parameter.ndim > 1), []).append(parameter)
    parameter_groups = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "highest_lr": recipe.lr * (recipe.backbone_lr if in_backbone else 1.0),
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameter_groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    # Fused, it reads and writes parameters and moments once a step instead of ten times: the head has 31 million.
    fused = {parameter.device.type for parameter in model.parameters()} <= {"cpu", "cuda"}
    return torch.optim.AdamW(parameter_groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused or None)


def choose_device(name: str, precision: str = "auto") -> Device:
    """The device of that name; ``auto`` takes a GPU where there is one. Raises: `ConfigurationError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("wanted cpu, cuda, cuda:N, mps or auto")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if precision not in ("fp32", "bf16"):  # auto
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Device(device, precision)


def read_config(run: Path) -> dict[str, dict[str, object]]:
    """A run's configuration. Raises: `CheckpointError` when ``run`` is no run folder."""
    try:
        config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(f"{run} is not a run folder (no {CONFIG} in it); agnet train --run makes one") from None
    except ValueError as error:
        raise CheckpointError(f"{run / CONFIG} is damaged: {error}") from None
    sections = ("model", "recipe", "run", "boxes", "versions")
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in sections):
        raise CheckpointError(f"{run / CONFIG} is not a run's configuration")
    return config


def _configuration(
    run: Path,
    boxes: Boxes,
    root: Path,
    model: ModelSettings,
    recipe: Recipe,
    settings: RunSettings,
    device: Device,
) -> dict[str, dict[str, object]]:
    return {
        "model": asdict(model),
        "recipe": asdict(recipe),
        "run": {
            # A weights file is named, its folder is nobody's business.
            "weights": Path(settings.weights).name,
            "seed": settings.seed,
            "device": device.device.type,
            "precision": device.precision,
            "workers": settings.workers,
        },
        "boxes": {
            "file_relative_to_run": relative_hint(boxes.path, run),
            "root_relative_to_run": relative_hint(root, run),
            "fingerprint": boxes.fingerprint,
            "dataset": boxes.dataset,
            "images": {split: len(boxes.rows(split)) for split in SPLITS},
            "left_out_unreadable": len(boxes.failures),
            "opened_with": {key: value for key, value in boxes.settings.get("dataset", {}).items() if key != "name"},
            "split_blake2b": split_hash(boxes),
        },
        "versions": {
            "agnet": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


def split_hash(boxes: Boxes) -> str:
    """What image is in which split, in 16 hexadecimal digits: equal for equal splits, whatever the regions."""
    lines = sorted(f"{name.decode()}\n{split}\n" for name, split in zip(boxes.names, boxes.splits, strict=True))
    return hashlib.blake2b("".join(lines).encode(), digest_size=8).hexdigest()


def _start_folder(run: Path, config: dict[str, dict[str, object]]) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (run / LOG).write_text("", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write to {run}: {error.strerror}") from None


def _check_same_run(run: Path, config: dict[str, dict[str, object]]) -> None:
    """Raise `MismatchError` when a resumed run would not be the run that was started."""
    before = read_config(run)
    if not (run / LAST).exists():
        raise CheckpointError(f"{run} has no finished epoch to go on from; train without --resume")
    remedy = "resume with the options the run was started with"
    # A run older than a setting is one with the setting's default.
    before["model"] = {field.name: field.default for field in fields(ModelSettings)} | before["model"]
    for part in ("model", "recipe", "run"):
        for name, value in json.loads(json.dumps(config[part])).items():
            if name != "workers" and before.get(part, {}).get(name) != value:
                raise MismatchError(
                    f"{run} was started with {name} = {before.get(part, {}).get(name)!r}, now it is {value!r}; {remedy}"
                )
    if before["boxes"].get("fingerprint") != config["boxes"]["fingerprint"]:
        raise MismatchError(f"{run} was started with another boxes file; {remedy}")


def _cut_log(path: Path, epochs: int) -> None:
    """Drop the lines of epochs after ``epochs``: a stop between log and state makes them happen again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines[:epochs]), encoding="utf-8")

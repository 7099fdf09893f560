"""Estimate what a run would do, cost and write from a few real training steps, without writing anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import count, islice

import torch

from ...data.fields import size_text
from ...data.text import rough_size, rough_time, rows_called
from ..machine.devices import choose_training_device
from ..models.model import BACKBONE, CLASSIFIER, HEAD, kind_of
from ..models.registry import comparable, needs_of, record_of
from ..recipes import REASONS, RECIPES, SOURCES, Phase, Recipe
from ..runs.curves import CURVES, VECTOR
from ..runs.folder import BEST, CONFIG, LAST, LOG, PREVIOUS, check_free
from ..runs.seen import SEEN
from ..runs.sources import needs_no_file
from ..samples.features import FeatureFile, NoFeatures
from ..samples.loader import Batch, Loader
from .engine import evaluate, steps_of_epoch, train_epoch
from .feature_cache import FeatureCache
from .job import SILENT, Console, Job
from .learner import Learner
from .preflight import check_cacheable, check_input, check_same_images
from .preparation import begin_network, build_learner, build_loaders

WARM_UP, MEASURED = 2, 8  #: numbers of steps
ENOUGH_SECONDS = 30.0  #: limit on the measurement; at least two steps are measured

# Approximate sizes in bytes: configuration, a log line, an image in the list of seen images, a picture of the curves.
_CONFIG_BYTES, _LINE_BYTES, _SEEN_BYTES, _CURVES_BYTES = 2500, 250, 23, 60_000


@dataclass(frozen=True)
class Setting:
    """A setting of the recipe and the reason for its value."""

    value: object
    reason: str  #: the recipe's reason, empty if the setting only disables a feature; if overridden, the recipe's value
    overridden: bool


@dataclass(frozen=True)
class PhasePlan:
    """The plan and estimated cost of one phase of a run."""

    about: str  #: its epochs, what learns in them, optimiser and rates
    epochs: int
    trainable: int  #: number of parameters
    seconds_per_step: float
    seconds_per_epoch: float  #: including validation
    data_wait: float  #: fraction of the time spent waiting for images


@dataclass(frozen=True)
class FeaturePlan:
    """The features of a frozen backbone, which are computed once for all seeds."""

    file: str  #: name, beside the boxes file; runs that share the features have the same
    bytes: int
    seconds: float


class _PlannedFeatures(FeatureCache):
    """Features that are not computed."""

    def open(self) -> FeatureFile:
        return NoFeatures(self.shape)


@dataclass(frozen=True)
class DryRun:
    """The plan and estimated cost of a run."""

    recipe: str
    source: str
    settings: dict[str, Setting]
    model: dict[str, object]  #: settings of the model's family
    run: dict[str, object]  #: `RunSettings` with the chosen device and precision
    parameters: dict[str, dict[str, int]]  #: total and trainable, for backbone, head, classifier and all
    images: dict[str, int]  #: number of images in train and val
    steps_per_epoch: int
    images_per_step: int
    steps: int  #: total number of optimiser steps
    device: str
    precision: str
    phases: list[PhasePlan]  #: in order; the figures per step and epoch below are those of the last one
    seconds_per_step: float
    data_wait: float  #: fraction of the time spent waiting for images
    seconds_per_epoch: float  #: including validation
    seeds: int  #: number of seeds or folds, trained one after the other
    features: FeaturePlan | None  #: with --cache-features
    seconds: float  #: total for all seeds or folds, without early stopping
    peak_memory_bytes: int | None  #: tensors on the GPU, or this process without its data workers
    images_at_once: int  #: less than the batch size if memory was too small
    folder: str
    files: dict[str, int]  #: name -> approximate bytes at the end of the run, for one seed or fold
    states: dict[str, int]  #: likewise for the files that are deleted when the run has finished

    def to_dict(self) -> dict[str, object]:
        """Return all fields as a dictionary of plain values."""
        return asdict(self)


def dry_run(job: Job, console: Console = SILENT, *, recipe_name: str, seeds: int = 1) -> DryRun:
    """Run a few training steps of the job and estimate the cost of the run that `fit` would do.

    ImageNet weights are not downloaded: random weights take the same time.

    Args:
        job: The job of a complete new run.
        console: Receives progress and warnings while the images are checked.
        recipe_name: Key of `RECIPES`; the job's recipe may differ from it.
        seeds: Number of seeds or folds trained one after the other; the job has the first.

    Raises: The errors that `fit` raises before its first epoch, and `TrainingError`.
    """
    boxes, recipe, settings = job.boxes, job.recipe, job.settings
    check_input(boxes, recipe, proposes=job.proposes)
    if settings.cache_features:
        check_cacheable(recipe)
    check_free(job.run)
    check_same_images(boxes, job.root, watch=console.watch, say=console.say)
    device = choose_training_device(settings.device, settings.precision)
    torch.manual_seed(settings.seed)
    source = "none" if needs_no_file(settings.weights) else settings.weights
    model, _ = begin_network(job.model, source, boxes, SILENT.say)
    learner = build_learner(model, recipe, settings, device, boxes, SILENT.say)
    regions = needs_of(job.model).regions > 0
    loaders = partial(build_loaders, boxes, job.root, recipe, settings, model.size_hw, regions, job.propose)
    features = plan = None
    if settings.cache_features:
        features = _PlannedFeatures(model, job.model, boxes, job.root, recipe, device)
        images, others = loaders()
        with closing(images), closing(others):
            seconds = len(features.rows) * _seconds_to_evaluate(learner, images)
        plan = FeaturePlan(features.path.name, features.bytes, seconds)
        features.use_in(learner.model, learner.judged)
    training, validation = loaders(features=features)
    with closing(training), closing(validation):
        phases = [_measure(learner, training, phase) for phase in recipe.phases]
        peak = device.peak_memory()
        validating = validation.images * _seconds_to_evaluate(learner, validation)
    phases = [replace(phase, seconds_per_epoch=phase.seconds_per_epoch + validating) for phase in phases]
    last = phases[-1]
    files, states = _files(learner, training.images + validation.images), _states(learner)
    steps = steps_of_epoch(len(training), recipe.accumulate)
    return DryRun(
        recipe=recipe_name,
        source=SOURCES[recipe_name],
        settings=_settings(recipe_name, recipe),
        model=comparable(record_of(job.model)),
        run=asdict(replace(settings, device=str(device.device), precision=device.precision)),
        parameters=_parameters(learner),
        images={"train": training.images, "val": validation.images},
        steps_per_epoch=steps,
        images_per_step=_images_per_step(recipe, training),
        steps=steps * recipe.epochs,
        device=str(device.device),
        precision=device.precision,
        phases=phases,
        seconds_per_step=last.seconds_per_step,
        data_wait=last.data_wait,
        seconds_per_epoch=last.seconds_per_epoch,
        seeds=seeds,
        features=plan,
        seconds=sum(phase.seconds_per_epoch * phase.epochs for phase in phases) * seeds + (plan.seconds if plan else 0),
        peak_memory_bytes=peak,
        images_at_once=min(learner.micro_batch or recipe.batch_size, training.images),
        folder=str(job.run),
        files=files | states if job.keep_states else files,
        states={} if job.keep_states else states,
    )


def _measure(learner: Learner, training: Loader, phase: Phase) -> PhasePlan:
    """Measure a phase of training, including the loading of images, after a warm-up."""
    recipe = phase.recipe
    batches = (batch for epoch in count() for batch in training.epoch(epoch))
    train_epoch(learner, islice(batches, WARM_UP * recipe.accumulate), phase.start, steps=WARM_UP)
    started, asked = time.perf_counter(), count()

    def enough() -> bool:
        return next(asked) >= 2 and time.perf_counter() - started > ENOUGH_SECONDS

    measured = train_epoch(learner, batches, phase.start, steps=MEASURED, stop=enough)
    return PhasePlan(
        about=str(phase),
        epochs=recipe.epochs,
        trainable=_parameters(learner)["all"]["trainable"],
        seconds_per_step=_images_per_step(recipe, training) / measured.images_per_second,
        seconds_per_epoch=training.images / measured.images_per_second,
        data_wait=measured.data_wait,
    )


def _images_per_step(recipe: Recipe, training: Loader) -> int:
    return min(recipe.batch_size * recipe.accumulate, training.images)


def _seconds_to_evaluate(learner: Learner, loader: Loader) -> float:
    """Return the seconds to load and evaluate an image; the first batch is a warm-up unless it is the only one."""
    if not loader.images:
        return 0.0
    batches = loader.epoch(0)

    def look(some: Iterator[Batch]) -> tuple[int, float]:
        started, found = time.perf_counter(), list(some)
        if found:
            evaluate(learner.judged, found, device=learner.device, task=learner.task)
        return sum(len(batch.labels) for batch in found), time.perf_counter() - started

    first = look(islice(batches, 1))
    images, seconds = look(islice(batches, 3))
    return seconds / images if images else first[1] / first[0]


def _settings(name: str, recipe: Recipe) -> dict[str, Setting]:
    changed = recipe.differences(RECIPES[name])

    def reason(field: str) -> str:
        own = f"given; the recipe has {_value(getattr(RECIPES[name], field))}"
        return own if field in changed else REASONS[name].get(field, "")

    return {
        field.name: Setting(getattr(recipe, field.name), reason(field.name), field.name in changed)
        for field in fields(Recipe)
    }


def _parameters(learner: Learner) -> dict[str, dict[str, int]]:
    found = {part: {"total": 0, "trainable": 0} for part in (BACKBONE, HEAD, CLASSIFIER, "all")}
    parts = learner.model.parts()
    for name, parameter in learner.model.named_parameters():
        for part in (kind_of(parts, name), "all"):
            found[part]["total"] += parameter.numel()
            found[part]["trainable"] += parameter.numel() if parameter.requires_grad else 0
    return found


def _files(learner: Learner, images: int) -> dict[str, int]:
    """Return the approximate size in bytes of each file of a run, except its states."""
    return {
        BEST: _weights(learner),
        CURVES: _CURVES_BYTES,
        VECTOR: _CURVES_BYTES,
        LOG: _LINE_BYTES * learner.recipe.epochs,
        CONFIG: _CONFIG_BYTES,
        SEEN: _SEEN_BYTES * images,
    }


def _states(learner: Learner) -> dict[str, int]:
    """Return the approximate size in bytes of each saved state, from the optimiser's state after some steps."""
    state = sum(
        value.nbytes
        for values in learner.optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )
    whole = _weights(learner) * (2 if learner.average else 1) + state
    return {LAST: whole, PREVIOUS: whole}


def _weights(learner: Learner) -> int:
    return sum(tensor.nbytes for tensor in learner.model.state_dict().values())


def dry_run_text(found: DryRun) -> str:
    """Format a dry run as readable text."""
    lines = [f"recipe {found.recipe}: {found.source}"]
    lines += [_line(name, setting.value, setting.reason) for name, setting in found.settings.items()]
    for title, values in ((f"model {found.model['model']}", found.model), ("run", found.run)):
        lines += [title, *(_line(name, value) for name, value in values.items() if name != "model")]
    lines.append(f"{'':20}{'parameters':>14}{'trainable':>14}")
    lines += [f"  {part:18}{n['total']:14,}{n['trainable']:14,}" for part, n in found.parameters.items()]
    several, last = (found.phases, "at the end ") if len(found.phases) > 1 else ([], "")
    lines += [
        f"{phase.about}; {phase.trainable:,} parameters, {phase.seconds_per_step:.3g} s a step, about "
        f"{rough_time(phase.seconds_per_epoch)} an epoch"
        for phase in several
    ]
    called = rows_called(bool(found.settings["frames"].value))
    at_once = f", {found.images_at_once} at once" if found.images_at_once < found.images_per_step else ""
    kind = "folds" if found.run["folds"] else "seeds"
    of_seeds, each = (f" for {found.seeds} {kind}", " each") if found.seeds > 1 else ("", "")
    lines += [
        f"{found.images['train']:,} training {called}: {found.steps_per_epoch:,} steps of {found.images_per_step} "
        f"{called}{at_once} an epoch, {found.steps:,} in all; {found.images['val']:,} validation {called}",
        f"on {found.device} in {found.precision}: {last}{found.seconds_per_step:.3g} s a step, {found.data_wait:.0%} "
        f"of it waiting for {called}; about {rough_time(found.seconds_per_epoch)} an epoch, "
        f"{rough_time(found.seconds)} in all{of_seeds}",
    ]
    if found.features:
        lines.append(
            f"of that once about {rough_time(found.features.seconds)} for the features of the frozen backbone, "
            f"{rough_size(found.features.bytes)} beside the boxes file"
        )
    if found.peak_memory_bytes is not None:
        whose = "of this process" if found.device == "cpu" else "on the device"
        lines.append(f"peak memory {whose}: {rough_size(found.peak_memory_bytes)}")
    size = rough_size(found.seeds * sum(found.files.values()))
    lines.append(f"would write to {found.folder}, about {size}{of_seeds}: {_listed(found.files)}{each}")
    if found.states:
        current = each and f", for the current {kind[:-1]}"
        lines.append(f"and until the run has finished{current}: {_listed(found.states)}")
    return "\n".join([*lines, "nothing was written"])


def _line(name: str, value: object, why: str = "") -> str:
    return f"  {name:18}{_value(value):10}{why and f' {why}'}".rstrip()


def _listed(files: dict[str, int]) -> str:
    return ", ".join(f"{name} {rough_size(size)}" for name, size in files.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return size_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value)

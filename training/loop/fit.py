"""Fit a network: build it, train epoch by epoch, keep the best epoch by validation, save states to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ...data.errors import CheckpointError
from ...data.sampling import Sampling
from ...data.text import rows_called
from ..machine.devices import Pieces, choose_training_device
from ..machine.distributed import ALONE, Processes
from ..models.registry import needs_of
from ..runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from ..runs.curves import CURVES, draw_curves, how_measured
from ..runs.folder import (
    BEST,
    check_free,
    check_same_run,
    configuration,
    has_state,
    one_training,
    read_config,
    retitle,
    seconds_of,
    start_folder,
    title_of,
    write_log,
)
from ..runs.model_card import write_card
from ..runs.seen import SEEN, UNKNOWN, write_seen
from ..runs.sources import needs_no_file
from ..runs.trackers import Trackers
from ..samples.loader import Batch, Loader
from .engine import Trained, evaluate, steps_of_epoch, timings, train_epoch
from .feature_cache import FeatureCache
from .interruption import Interrupted, Interruption
from .job import SILENT, Console, Job
from .learner import Learner, means
from .preflight import check_cacheable, check_input, check_same_images, check_views, ending_of
from .preparation import (
    begin_network,
    build_learner,
    build_loaders,
    build_network,
    doubt_of_strides,
)
from .selection import Selection
from .state import Progress, change_epochs, check_same_past, drop_states, load_state, save_state
from .warm_start import STARTED_FROM, Parent

CURVES_SECONDS = 10.0  #: least time between two drawings of the training curves


def fit(job: Job, console: Console = SILENT, processes: Processes = ALONE) -> Path:
    """Train a network and write the run into the job's folder.

    The folder holds the configuration, a JSON line per epoch, training curves, the best checkpoint, its model card, and
    the list of images the network has seen. Until the run has finished it also holds the latest state and the one
    before it. Only process 0 writes; all processes read when a run is resumed.

    Args:
        job: The network, data and settings to train with.
        console: Receives progress, each epoch's log line, and messages.
        processes: Processes that train together.

    Returns: Path of the best checkpoint.
    Raises: Subclasses of `AgnetError` for invalid input, `TrainingError` if training diverges, and `Interrupted` on
        SIGINT or SIGTERM, after the state is saved.
    """
    started = time.monotonic()
    run, boxes, recipe, settings, say = job.run, job.boxes, job.recipe, job.settings, console.say
    check_input(boxes, recipe, proposes=job.proposes, processes=processes.size)
    check_views(recipe.views, job.model, boxes)
    if settings.cache_features:
        check_cacheable(recipe)
    device = choose_training_device(processes.device(settings.device), settings.precision)
    config = configuration(
        run,
        boxes,
        job.root,
        job.model,
        recipe,
        settings,
        device,
        command=job.command,
        processes=processes.size,
        fold=job.fold,
    )
    with _one_training(run, processes):
        goes_on, ending = processes.from_first(lambda: _beginning(job, config, say))
        if ending:
            say(ending)
            return run / BEST
        processes.from_first(lambda: check_same_images(boxes, job.root, watch=console.watch, say=say))
        torch.manual_seed(settings.seed)
        if goes_on:
            model, parent = build_network(job.model), None
        else:
            model, parent = begin_network(job.model, settings.weights, boxes, say)
            config |= parent.provenance() if parent else {}
            if parent is None and not needs_no_file(settings.weights) and processes.first:
                doubt = doubt_of_strides(device.take(model), job.model, boxes, job.root, device)
                if doubt:
                    say(doubt)
        learner = build_learner(model, recipe, settings, device, boxes, say, processes)
        progress = Progress()
        if goes_on:
            progress, said = load_state(run, learner)
            check_same_past(run, progress, recipe)
            say(f"{said}, {progress.describe(recipe.epochs)}")
        features = FeatureCache(model, job.model, boxes, job.root, recipe, device) if settings.cache_features else None
        if features:
            processes.from_first(lambda: features.prepare(settings.workers, console.watch, say))
            features.use_in(learner.model, learner.judged)
        if goes_on:
            processes.gather(None)  # every process has read the configuration
            processes.from_first(lambda: change_epochs(run, progress, recipe.epochs))
        else:  # only once everything is built: a failed start leaves no files
            processes.from_first(lambda: start_folder(run, {"title": job.title, **config}))
        processes.gather(None)  # every process has read it: from here on it may be replaced
        regions = needs_of(job.model).regions > 0
        training, validation = build_loaders(
            boxes, job.root, recipe, settings, model.input_hw, regions, job.propose, processes, features
        )
        with closing(training), closing(validation), Interruption() as interruption, ExitStack() as opened:
            trackers = opened.enter_context(Trackers(run, job.log, say)) if processes.first else None
            story = _Story(job, console, learner, training, validation, progress, interruption, trackers, started)
            story.begin(parent)
            while progress.epoch < min(recipe.epochs, job.stop_after or recipe.epochs) and not story.is_over:
                console.report(story.one_epoch())
                story.leave_if_asked()
            if story.is_over:
                if not job.keep_states:  # everything else is already written
                    processes.from_first(lambda: drop_states(run))
                say(story.why_over)
    return run / BEST


@dataclass
class _Story:
    """A run in progress. All processes call its public methods at the same time."""

    job: Job
    console: Console
    learner: Learner
    training: Loader
    validation: Loader
    progress: Progress
    interruption: Interruption
    trackers: Trackers | None  #: of process 0
    started: float  #: time at which this process began with the run, of `time.monotonic`

    def __post_init__(self) -> None:
        recipe = self.learner.recipe
        self._run, self._processes = self.job.run, self.learner.processes
        self._steps = steps_of_epoch(len(self.training), recipe.accumulate)
        self._saved_at = self._drawn_at = time.monotonic()
        called = rows_called(self.job.boxes.of_clips)
        self._pieces = Pieces(self.learner.device, self.learner.say, called=called)
        self._selection = Selection.of(recipe, self.progress.log)
        self._seconds_before = seconds_of(self.progress.log) + self.progress.seconds

    @property
    def is_over(self) -> bool:
        """Whether the run has finished or stopped early."""
        return bool(self.why_over)

    @property
    def why_over(self) -> str:
        return self._selection.ending(self.progress.epoch, self.learner.recipe.epochs)

    def begin(self, parent: Parent | None) -> None:
        """Reset the folder's files to the state: whatever was logged after it will be repeated.

        Args:
            parent: Run whose weights initialise a new run, if any.
        """
        if not self.trackers:
            return
        if not (self._run / SEEN).exists():  # a new run, or the file was deleted
            lost = parent is None and STARTED_FROM in read_config(self._run)
            write_seen(self._run, self.job.boxes, parent.contents if parent else [UNKNOWN] * lost)
        write_log(self._run, self.progress.log)
        self.trackers.update(self.progress.log)
        # The state at the end of an epoch is saved before that epoch's checkpoint.
        just_chosen = self.progress.step == 0 < self.progress.epoch == self._selection.best_epoch
        if just_chosen and not self._best_is_kept():
            self._keep_best()

    def one_epoch(self) -> dict[str, Any]:
        """Train on the rest of the epoch, validate, save, and return the epoch's log line.

        Raises: `Interrupted` after a signal, once the state is saved.
        """
        line = self._train() | self._validate()
        line["total_seconds"] = round(time.monotonic() - self.started + self._seconds_before, 3)
        # One process decides: on other machines the last digits may differ.
        line = self._processes.from_first(lambda: line)
        progress = self.progress
        progress.log.append(line)
        progress.epoch, progress.step, progress.totals, progress.seconds = progress.epoch + 1, 0, [], 0.0
        if self._selection.is_best(progress.epoch, line):
            line["best"] = True
        self._save()
        if self.trackers:
            with self.interruption.saving():
                if "best" in line:
                    self._keep_best()
                write_log(self._run, progress.log)
                self.trackers.update(progress.log)
                write_card(self._run)
                self._draw()
        return line

    def _draw(self) -> None:
        """Draw the curves at the end, and before that from time to time: a picture takes half a second."""
        over = self.is_over or self.progress.epoch == self.job.stop_after
        if not over and time.monotonic() - self._drawn_at < CURVES_SECONDS:
            return
        model, seed = self.job.model, self.learner.seed
        title = f"{self.job.boxes.title}: {model.model} on {model.backbones}, seed {seed}"
        if given := title_of(self._run):
            title = f"{given} - {title}"
        recipe = self.learner.recipe
        draw_curves(self.progress.log, self._run / CURVES, title, how_measured(recipe), recipe.select_by)
        self._drawn_at = time.monotonic()

    def _train(self) -> dict[str, Any]:
        """Train on the rest of the epoch and return the training values of its log line, earlier parts included."""
        progress, learner = self.progress, self.learner
        epoch, images = progress.epoch, self.training.images
        shown = self.console.watch(f"epoch {epoch + 1}/{learner.recipe.epochs}", images)
        parts: list[Trained] = []  # a state is saved between parts; parts before resuming are only in the totals
        while progress.step < self._steps:
            self._steps_asked = 0
            # The totals of earlier steps are summed over all processes already: only one process starts from them.
            earlier = torch.tensor(progress.totals, dtype=torch.float64) if progress.totals else None
            trained = train_epoch(
                learner,
                self.training.epoch(epoch, progress.step * learner.recipe.accumulate),
                epoch,
                steps=self._steps,
                first_step=progress.step,
                totals=earlier if self._processes.first else None,
                stop=self._pause,
                progress=lambda done, values: shown(min(done, images), values),
            )
            parts.append(trained)
            progress.step = trained.step
            progress.totals = self._processes.sum(trained.totals).tolist()
            progress.losses = list(learner.loss_names or ())  # names what the totals hold, also within the first epoch
            progress.seconds += trained.seconds
            if progress.step < self._steps:
                self._save()
                self.leave_if_asked()
        found = means(torch.tensor(progress.totals, dtype=torch.float64), progress.losses)
        return {
            "epoch": epoch + 1,
            "train_loss": found["loss"],
            "train_top1": found["top1"],
            **{f"train_{name}": found[name] for name in progress.losses},
            "lr": learner.phase.recipe.lr * learner.phase.lr_factor(epoch + 1 - 0.5 / self._steps),
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(images / progress.seconds, 2),
            **timings(parts),
            **({"images_at_once": learner.micro_batch} if learner.micro_batch else {}),
        }

    def _validate(self) -> dict[str, Any]:
        if not self.validation.images:
            return {}
        shown = self.console.watch("validation", self.validation.images)
        self._processes.share_buffers(self.learner.judged)
        scored = evaluate(
            self.learner.judged,
            self._while_nobody_asks(self.validation.epoch(0)),
            device=self.learner.device,
            task=self.learner.task,
            processes=self._processes,
            progress=lambda done, values: shown(min(done, self.validation.images), values),
            pieces=self._pieces,
        )
        cameras = self.job.boxes.camera_numbers[self.job.boxes.usable]
        return {f"val_{name}": value for name, value in scored.measures(self.learner.task, cameras).items()}

    def _while_nobody_asks(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches; after a signal, save the state at the epoch's last step and stop."""
        for batch in batches:
            if self._processes.any(self.interruption.number > 0):
                self._save()
                self.leave_if_asked()
            yield batch

    def _pause(self) -> bool:
        """Whether to save now: a signal has reached any process, or the last state is too old."""
        late = self._processes.first and time.monotonic() - self._saved_at > 60 * self.job.save_every
        late &= self._steps_asked > 0  # at least one step between two states, however slow the disk
        self._steps_asked += 1
        return self._processes.any(self.interruption.number > 0 or late)

    def _save(self) -> None:
        if self._processes.first:
            with self.interruption.saving():
                save_state(self._run, self.progress, self.learner)
        self._saved_at = time.monotonic()

    def leave_if_asked(self) -> None:
        """Raise `Interrupted` if any process has received a signal, unless the run is over anyway."""
        number = max(self._processes.gather(self.interruption.number))
        if number and not self.is_over:
            raise Interrupted(number, self.progress.describe(self.learner.recipe.epochs))

    def _best_is_kept(self) -> bool:
        try:
            return load_checkpoint(self._run / BEST).epoch == self.progress.epoch
        except CheckpointError:
            return False

    def _keep_best(self) -> None:
        checkpoint = Checkpoint(
            model=self.learner.judged,
            settings=self.job.model,
            classes=self.learner.task.classes(self.job.boxes),
            proposals=self.job.boxes.settings["proposals"],
            fingerprint=self.job.boxes.fingerprint,
            epoch=self.progress.epoch,
            val_top1=self.progress.log[-1].get("val_top1"),
            sampling=self._sampling(),
            views=self.learner.recipe.views,
        )
        save_checkpoint(self._run / BEST, checkpoint)

    def _sampling(self) -> Sampling | None:
        """Choice of the frames, with windows as long as the training clips; None for images."""
        sampling, clips = self.learner.recipe.sampling_of_clips, self.job.boxes.clips
        if sampling is None or clips is None:
            return None
        boxes = self.job.boxes
        trained_on = boxes.usable[boxes.rows(self.learner.task.splits.trained_on)].tolist()
        return sampling.lasting(median(clips.last(one) for one in trained_on))


def _beginning(job: Job, config: dict[str, dict[str, object]], say: Callable[[str], None]) -> tuple[bool, str]:
    """Return whether the folder has a state to resume from, and why the run is over if it finished without one.

    Raises: `CheckpointError` or `MismatchError` if the folder cannot hold this run.
    """
    run = job.run
    if not job.resume:
        check_free(run)
        return False, ""
    check_same_run(run, config, job.other_epochs)
    if job.title:
        retitle(run, job.title)
    if has_state(run):
        return True, ""
    if not (run / BEST).is_file():
        say("the run stopped before its first state was saved: starting from scratch")
        return False, ""
    return False, ending_of(run, job.recipe)


@contextmanager
def _one_training(run: Path, processes: Processes) -> Iterator[None]:
    """Hold the folder's lock, so that only one training uses it; process 0 holds it for all processes."""
    with ExitStack() as held:
        processes.from_first(lambda: held.enter_context(one_training(run)))
        yield

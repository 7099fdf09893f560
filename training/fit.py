"""The story of a run: build, train epoch by epoch, choose the best by validation, keep what is needed to go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.boxes_reader import Boxes
from ..data.errors import CheckpointError
from .checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from .curves import CURVES, append_events, draw_curves
from .dataset import Batch, Loader, Propose
from .devices import Pieces, choose_training_device
from .distributed import ALONE, Processes
from .engine import Trained, Watch, evaluate, steps_of_epoch, timings, train_epoch
from .interruption import Interrupted, Interruption
from .learner import Learner, means
from .models.settings import ModelSettings
from .preflight import check_input
from .preparation import build_learner, build_loaders, build_network
from .recipes import SAVE_MINUTES, Recipe, RunSettings
from .run_folder import (
    BEST,
    Progress,
    check_free,
    check_same_run,
    configuration,
    has_state,
    load_state,
    one_training,
    save_state,
    start_folder,
    write_log,
)
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
    save_every: float = SAVE_MINUTES,
    processes: Processes = ALONE,
    command: Mapping[str, object] | None = None,
    watch: Watch = lambda what, images: lambda done, values: None,
    report: Callable[[dict[str, object]], None] = lambda line: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train a network into the folder ``run``.

    Args:
        run: gets the configuration, a JSON line for each epoch, curves, the best checkpoint, the state to go on from
            and the one before it, and what it has seen. Process 0 alone writes; on resuming, all read.
        boxes: the boxes file; its ``train`` part is trained on, its ``val`` part chooses the epoch, ``test`` is
            not looked at.
        root: where the images are.
        model_settings, recipe, settings: what to train and how.
        propose: stage 1's function for one image, for ``recipe.regions`` live.
        resume: go on from the newest state in ``run``, in the middle of an epoch or not.
        stop_after: stop once this many epochs are finished; ``resume`` goes on as if it had not stopped.
        save_every: minutes between states saved in the middle of an epoch; after every epoch one is saved anyway.
        processes: that train together.
        command: the recipe's name and the options given, for the configuration.
        watch: told what is going on, for progress bars.
        report: told each epoch's log line.
        say: told what else a person wants to know.

    Returns: the best checkpoint's path.
    Raises: `AgnetError` children for whatever the input lacks, `TrainingError` when training diverges; `Interrupted`
        on SIGINT or SIGTERM, when the state is saved.
    """
    check_input(boxes, root, recipe, proposes=propose is not None)
    device = choose_training_device(processes.device(settings.device), settings.precision)
    config = configuration(
        run, boxes, root, model_settings, recipe, settings, device, command=command or {}, processes=processes.size
    )
    with _one_training(run, processes):
        goes_on = processes.from_first(lambda: _goes_on(run, config, resume, say))
        torch.manual_seed(settings.seed)
        weights = None if goes_on else find_weights(settings.weights, model_settings.backbone)
        model = build_network(model_settings, weights)
        learner = build_learner(model, recipe, settings, device, boxes, say, processes)
        progress = Progress()
        if goes_on:
            progress, said = load_state(run, learner)
            say(f"{said}, {progress.describe(recipe.epochs)}")
        elif not resume:  # not before all is built: a run that cannot be leaves nothing behind
            processes.from_first(lambda: start_folder(run, config))
        processes.gather(None)  # all have read it: from here on it may be replaced
        side = model.backbone.preprocessing.size
        training, validation = build_loaders(boxes, root, recipe, settings, side, propose, processes)
        with closing(training), closing(validation), Interruption() as interruption:
            story = _Story(
                run, boxes, model_settings, learner, training, validation, progress, interruption, save_every, watch
            )
            story.begin()
            while progress.epoch < min(recipe.epochs, stop_after or recipe.epochs) and not story.is_over:
                report(story.one_epoch())
                story.leave_if_asked()
            if story.is_over:
                say(story.why_over)
    return run / BEST


@dataclass
class _Story:
    """A run under way. Its public methods are called by all processes at the same time."""

    run: Path
    boxes: Boxes
    model_settings: ModelSettings
    learner: Learner
    training: Loader
    validation: Loader
    progress: Progress
    interruption: Interruption
    save_every: float  #: minutes
    watch: Watch

    def __post_init__(self) -> None:
        recipe = self.learner.recipe
        self._processes = self.learner.processes
        self._steps = steps_of_epoch(len(self.training), recipe.accumulate)
        self._saved_at = time.monotonic()
        self._pieces = Pieces(self.learner.device, self.learner.say)
        self._selection = Selection(recipe.select_by, recipe.patience)
        for line in self.progress.log:
            self._selection.is_best(line["epoch"], line)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do, stopped early or not."""
        return self.progress.epoch >= self.learner.recipe.epochs or self._selection.is_over(self.progress.epoch)

    @property
    def why_over(self) -> str:
        selection, recipe = self._selection, self.learner.recipe
        if self.progress.epoch >= recipe.epochs:
            epochs = f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''}"
            return f"finished: {epochs}; epoch {selection.best_epoch} is kept"
        patience = f"{recipe.patience} epoch{'s' if recipe.patience > 1 else ''}"
        return f"no better {selection.by} for {patience}: finished; epoch {selection.best_epoch} is kept"

    def begin(self) -> None:
        """Make the folder agree with the state: whatever was written after it happens again."""
        if not self._processes.first:
            return
        if not (self.run / SEEN).exists():  # a run begun by an older version has none
            write_seen(self.run, self.boxes)
        write_log(self.run, self.progress.log)
        append_events(self.run, self.progress.log, anew=True)
        # A state of an epoch's end is saved before the epoch's weights are kept.
        just_chosen = self.progress.step == 0 < self.progress.epoch == self._selection.best_epoch
        if just_chosen and not self._best_is_kept():
            self._keep_best()

    def one_epoch(self) -> dict[str, Any]:
        """Train on the rest of the epoch, look at validation, save. Returns the epoch's log line.

        Raises: `Interrupted` when a signal came, once the state is saved.
        """
        line = self._train() | self._validate()
        # Decided once: other processes may be on other machines, whose numbers differ in their last digits.
        line = self._processes.from_first(lambda: line)
        progress = self.progress
        progress.log.append(line)
        progress.epoch, progress.step, progress.totals, progress.seconds = progress.epoch + 1, 0, [], 0.0
        if self._selection.is_best(progress.epoch, line):
            line["best"] = True
        self._save()
        if self._processes.first:
            with self.interruption.saving():
                if "best" in line:
                    self._keep_best()
                write_log(self.run, progress.log)
                append_events(self.run, [line])
                settings, seed = self.model_settings, self.learner.seed
                title = f"{self.boxes.dataset}: {settings.model} on {settings.backbone}, seed {seed}"
                draw_curves(progress.log, self.run / CURVES, title)
        return line

    def _train(self) -> dict[str, Any]:
        """The rest of the epoch's steps. Returns their part of the log line, with that of earlier parts."""
        progress, learner = self.progress, self.learner
        epoch, images = progress.epoch, self.training.images
        shown = self.watch(f"epoch {epoch + 1}/{learner.recipe.epochs}", images)
        parts: list[Trained] = []  # between them a state is saved; those before this process are in its totals alone
        while progress.step < self._steps:
            self._steps_asked = 0
            # The sum of earlier steps is over all processes: one of them goes on from it.
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
            progress.seconds += trained.seconds
            if progress.step < self._steps:
                self._save()
                self.leave_if_asked()
        found = means(torch.tensor(progress.totals, dtype=torch.float64))
        return {
            "epoch": epoch + 1,
            "train_loss": found["loss"],
            "train_top1": found["top1"],
            "lr": learner.recipe.lr * learner.recipe.lr_factor(epoch + 1 - 0.5 / self._steps),
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(images / progress.seconds, 2),
            **timings(parts),
            **({"images_at_once": learner.micro_batch} if learner.micro_batch else {}),
        }

    def _validate(self) -> dict[str, Any]:
        if not self.validation.images:
            return {}
        shown = self.watch("validation", self.validation.images)
        self._processes.share_buffers(self.learner.judged)
        scored = evaluate(
            self.learner.judged,
            self._while_nobody_asks(self.validation.epoch(0)),
            device=self.learner.device,
            preprocessing=self.learner.model.backbone.preprocessing,
            processes=self._processes,
            progress=lambda done, values: shown(min(done, self.validation.images), values),
            pieces=self._pieces,
        )
        return {"val_loss": scored.loss, "val_top1": scored.top1}

    def _while_nobody_asks(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; when the run is to stop, it does so with the state after the epoch's last step."""
        for batch in batches:
            if self._processes.any(self.interruption.number > 0):
                self._save()
                self.leave_if_asked()
            yield batch

    def _pause(self) -> bool:
        """Whether it is time to save, in any process's view."""
        late = self._processes.first and time.monotonic() - self._saved_at > 60 * self.save_every
        late &= self._steps_asked > 0  # a step at least between two states, however slow the disk
        self._steps_asked += 1
        return self._processes.any(self.interruption.number > 0 or late)

    def _save(self) -> None:
        if self._processes.first:
            with self.interruption.saving():
                save_state(self.run, self.progress, self.learner)
        self._saved_at = time.monotonic()

    def leave_if_asked(self) -> None:
        """Raise `Interrupted` when a signal came to any process; not when there is nothing left to do anyway."""
        number = max(self._processes.gather(self.interruption.number))
        if number and not self.is_over:
            raise Interrupted(number, self.progress.describe(self.learner.recipe.epochs))

    def _best_is_kept(self) -> bool:
        try:
            return load_checkpoint(self.run / BEST).epoch == self.progress.epoch
        except CheckpointError:
            return False

    def _keep_best(self) -> None:
        checkpoint = Checkpoint(
            model=self.learner.judged,
            settings=self.model_settings,
            classes=self.boxes.classes,
            preprocessing=self.learner.model.backbone.preprocessing,
            proposals=self.boxes.settings["proposals"],
            fingerprint=self.boxes.fingerprint,
            epoch=self.progress.epoch,
            val_top1=self.progress.log[-1].get("val_top1"),
        )
        save_checkpoint(self.run / BEST, checkpoint)


def _goes_on(run: Path, config: dict[str, dict[str, object]], resume: bool, say: Callable[[str], None]) -> bool:
    """Whether there is a state in the folder to go on from.

    Raises: `CheckpointError` or `MismatchError` when this run may not go into the folder.
    """
    if not resume:
        check_free(run)
        return False
    check_same_run(run, config)
    if not has_state(run):
        say("stopped before anything was saved: begins anew")
    return has_state(run)


@contextmanager
def _one_training(run: Path, processes: Processes) -> Iterator[None]:
    """The block, in one training at a time for the folder; the first process holds it for all."""
    with ExitStack() as held:
        processes.from_first(lambda: held.enter_context(one_training(run)))
        yield

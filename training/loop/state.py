"""The saved state of a run: its progress and everything needed to resume it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ...data.errors import CheckpointError, MismatchError
from ..recipes import Recipe
from ..runs.checkpoint_header import read_values
from ..runs.checkpoints import load_training_state, save_training_state
from ..runs.folder import LAST, PREVIOUS, epochs_of, read_config, write_config, writing
from .learner import CROSS_ENTROPY, IMAGES, WEIGHT, Learner
from .preflight import start_from


@dataclass
class Progress:
    """Progress of a run; with the weights and the optimiser's state it determines the rest of the run."""

    epoch: int = 0  #: number of finished epochs
    step: int = 0  #: number of finished steps of the next epoch
    totals: list[float] = field(default_factory=list)  #: totals of those steps
    seconds: float = 0.0  #: duration of those steps
    log: list[dict[str, Any]] = field(default_factory=list)  #: one line per finished epoch
    losses: list[str] = field(default_factory=list)  #: names of the losses in ``totals`` after its first four

    def describe(self, epochs: int) -> str:
        """Describe the progress through ``epochs`` epochs as text."""
        if not self.step:
            return f"after epoch {self.epoch} of {epochs}"
        return f"after {self.step:,} step{'s' if self.step > 1 else ''} of epoch {self.epoch + 1} of {epochs}"


def check_same_past(run: Path, progress: Progress, recipe: Recipe) -> None:
    """Check that a run can continue to ``recipe.epochs`` epochs.

    Raises: `MismatchError` if its learning rates so far would have been different with that number of epochs, or if it
        has already trained for longer.
    """
    before = recipe.override(epochs=epochs_of(run))
    reached = progress.epoch + (progress.step > 0)
    if recipe.epochs < reached:
        raise MismatchError(f"{run} is already {progress.describe(before.epochs)}; use --epochs {reached} or more")
    if not recipe.same_rates(before, reached):
        raise MismatchError(
            f"{run} was started with epochs = {before.epochs}, on which its learning rates so far depend (schedule "
            f"cosine): {start_from(run, recipe.epochs)}, or continue with --epochs {before.epochs}; with --schedule "
            "step the epochs may change"
        )


def change_epochs(run: Path, progress: Progress, epochs: int) -> None:
    """Record the new number of epochs in the configuration, along with the previous one."""
    config: dict[str, Any] = read_config(run)
    then = {"epochs": config["recipe"].get("epochs"), "finished_epochs": progress.epoch, "steps": progress.step}
    if then["epochs"] == epochs:
        return
    config["recipe"]["epochs"] = epochs
    write_config(run, config | {"epochs_before": [*config.get("epochs_before", ()), then]})


def save_state(run: Path, progress: Progress, learner: Learner) -> None:
    """Save everything needed to resume; the last state is kept as `PREVIOUS`. Raises: `CheckpointError`."""
    header = asdict(progress) | {"scaler": learner.scaler.state_dict()}
    save_training_state(run / LAST, learner.model, learner.optimizer, header, _average(learner), keep=run / PREVIOUS)


def drop_states(run: Path) -> None:
    """Delete the states of a finished run, the older one first: a kill in between leaves the final state."""
    with writing(run):
        for name in (PREVIOUS, LAST):
            (run / name).unlink(missing_ok=True)


def load_state(run: Path, learner: Learner) -> tuple[Progress, str]:
    """Load the newest valid state of the folder into ``learner``.

    Returns: The progress, and a text that names the file and any newer one that was damaged.
    Raises: `CheckpointError` if no state is valid.
    """
    complaints = []
    for name in (LAST, PREVIOUS):
        if not (run / name).exists():
            continue
        try:
            progress = _progress(run, name, read_values(run / name))
            # After an epoch's last step, the optimiser is still that of this epoch.
            learner.begin_phase(progress.epoch if progress.step else max(progress.epoch - 1, 0))
            header = load_training_state(run / name, learner.model, learner.optimizer, _average(learner))
            _load_scaler(run / name, header.get("scaler"), learner)
            learner.loss_names = tuple(progress.losses) or None
            learner.tells_cross_entropy = CROSS_ENTROPY in progress.losses
        except CheckpointError as error:
            complaints.append(str(error))
            continue
        return progress, "; ".join([*complaints, f"resuming from {name}"])
    raise CheckpointError(
        f"{run} has no valid state to resume from: {'; '.join(complaints)}; train again into another folder"
    )


def _average(learner: Learner) -> nn.Module | None:
    return learner.average.model if learner.average else None


def _load_scaler(path: Path, state: object, learner: Learner) -> None:
    """Load the state of fp16's gradient scaler, if enabled. Raises: `CheckpointError` for an invalid state."""
    if not learner.scaler.is_enabled():
        return
    wanted = learner.scaler.state_dict().keys()
    if not isinstance(state, dict) or state.keys() != wanted or not all(map(_is_finite, state.values())):
        raise CheckpointError(f"{path} is damaged or foreign: it has no valid state of the gradient scaler")
    learner.scaler.load_state_dict(state)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e300


def _progress(run: Path, name: str, header: dict[str, Any]) -> Progress:
    try:
        older: dict[str, Any] = {"losses": []}  # missing in states written before auxiliary losses existed
        progress = Progress(**{key: (older | header)[key] for key in asdict(Progress())})
        _check_progress(progress)
        return progress
    except (OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{run / name} is damaged or foreign: {str(error)[:200]!r}") from None


def _check_progress(progress: Progress) -> None:
    """Raise `ValueError`, `TypeError` or `LookupError` for a progress that no run can have."""
    counts = (progress.epoch, progress.step)
    if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
        raise ValueError("its epochs and steps are not counts")
    if [line["epoch"] for line in progress.log] != list(range(1, progress.epoch + 1)):
        raise ValueError("its epochs and its log do not match")
    figures = [value for line in progress.log for value in line.values()]
    if not all(type(figure) in (bool, float) or (type(figure) is int and abs(figure) < 2**63) for figure in figures):
        raise ValueError("its log contains values that are not numbers")
    if not all(isinstance(name, str) and name.isidentifier() for name in progress.losses):
        raise ValueError("its auxiliary losses have invalid names")
    sums = len(progress.totals) in (0, 4 + len(progress.losses))
    if not sums or not all(map(_is_finite, [*progress.totals, progress.seconds])):
        raise ValueError("its sums are not finite numbers, or are too few or too many")
    if progress.step and not (progress.totals and min(progress.totals[WEIGHT], progress.totals[IMAGES]) > 0):
        raise ValueError("its steps have seen no images")
    if progress.step and progress.seconds <= 0:
        raise ValueError("its steps have taken no time")

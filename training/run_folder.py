"""A run's folder: what is in it, and whether a resumed run is the one that was started."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from ..data.atomic import atomic_file, one_process
from ..data.boxes_reader import Boxes
from ..data.errors import CheckpointError, MismatchError
from ..data.index import SPLITS
from ..data.places import relative_hint
from .checkpoints import load_training_state, save_training_state
from .devices import Device
from .learner import Learner
from .models.settings import ModelSettings
from .provenance import code_revision, split_hash, versions
from .recipes import Recipe, RunSettings
from .seen_images import SEEN

BEST, LAST, PREVIOUS, LOG, CONFIG = (
    *("best.safetensors", "last.safetensors", "previous.safetensors"),
    *("log.jsonl", "config.json"),
)
_LOCK = "training.lock"
_FREE = ("workers", "processes")  # of the run's settings: may be others when it goes on


@dataclass
class Progress:
    """How far a run has come. With the weights and the optimiser it decides all that follows."""

    epoch: int = 0  #: finished epochs
    step: int = 0  #: finished steps of the next one
    totals: list[float] = field(default_factory=list)  #: what those steps summed up
    seconds: float = 0.0  #: what those steps took
    log: list[dict[str, Any]] = field(default_factory=list)  #: a line for each finished epoch

    def describe(self, epochs: int) -> str:
        """Where that is, of so many epochs, for people."""
        where = f"after epoch {self.epoch} of {epochs}"
        return f"{where} and {self.step:,} steps of the next" if self.step else where


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


def configuration(
    run: Path,
    boxes: Boxes,
    root: Path,
    model: ModelSettings,
    recipe: Recipe,
    settings: RunSettings,
    device: Device,
    *,
    command: Mapping[str, object],
    processes: int = 1,
) -> dict[str, dict[str, object]]:
    """All that decides a run, as JSON: no path but relative ones, no user, no host.

    Args:
        command: the recipe's name and the options given, for people.
        processes: how many train together.
    """
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
            "processes": processes,
            "compile": settings.compile,
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
        "versions": versions(),
        "code": code_revision(),
        "command": dict(command),
    }


@contextmanager
def one_training(run: Path) -> Iterator[None]:
    """A block in one process at a time for a folder. Raises: `CheckpointError` where another is in it."""
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
    with one_process(run / _LOCK, CheckpointError(f"another process is training into {run}; wait for it or stop it")):
        yield


def start_folder(run: Path, config: dict[str, dict[str, object]]) -> None:
    """Begin a run's folder, which must hold no run. Raises: `CheckpointError`."""
    if has_state(run):
        raise CheckpointError(f"{run} already holds a run; go on with --resume or name another folder with --run")
    if any(run.glob(f"seed-*/{CONFIG}")):
        raise CheckpointError(f"{run} holds runs of several seeds; name another folder with --run")
    with _writing(run):
        for old in (BEST, LOG, SEEN):  # of a run that was stopped before it had anything to go on from
            (run / old).unlink(missing_ok=True)
        with atomic_file(run / CONFIG) as unfinished:
            unfinished.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check_same_run(run: Path, config: dict[str, dict[str, object]]) -> None:
    """Raise `MismatchError` when a resumed run would not be the run that was started."""
    before = read_config(run)
    remedy = "resume with the options the run was started with"
    for part, kind in (("model", ModelSettings), ("recipe", Recipe), ("run", RunSettings)):
        # A run older than a setting is one with the setting's default.
        defaults = {setting.name: setting.default for setting in fields(kind) if setting.default is not MISSING}
        started = json.loads(json.dumps(defaults)) | before[part]
        for name, value in json.loads(json.dumps(config[part])).items():
            if name not in _FREE and started.get(name) != value:
                raise MismatchError(
                    f"{run} was started with {name} = {started.get(name)!r}, now it is {value!r}; {remedy}"
                )
    if before["boxes"].get("fingerprint") != config["boxes"]["fingerprint"]:
        raise MismatchError(f"{run} was started with another boxes file; {remedy}")


def has_state(run: Path) -> bool:
    """Whether there is a state in the folder to go on from, sound or not."""
    return (run / LAST).exists() or (run / PREVIOUS).exists()


def save_state(run: Path, progress: Progress, learner: Learner) -> None:
    """Save all that is needed to go on; the state saved before stays as `PREVIOUS`. Raises: `CheckpointError`."""
    header = asdict(progress) | {"scaler": learner.scaler.state_dict()}
    save_training_state(run / LAST, learner.model, learner.optimizer, header, _average(learner), keep=run / PREVIOUS)


def load_state(run: Path, learner: Learner) -> tuple[Progress, str]:
    """Put the newest sound state of the folder back into ``learner``.

    Returns: how far it had come, and which file that was and why, for people.
    Raises: `CheckpointError` when none is sound.
    """
    complaints = []
    for name in (LAST, PREVIOUS):
        if not (run / name).exists():
            continue
        try:
            header = load_training_state(run / name, learner.model, learner.optimizer, _average(learner))
            progress = _progress(run, name, header)
            learner.scaler.load_state_dict(header.get("scaler") or {})
        except CheckpointError as error:
            complaints.append(str(error))
            continue
        return progress, "; ".join([*complaints, f"going on from {name}"])
    raise CheckpointError(
        f"{run} has no sound state to go on from: {'; '.join(complaints)}; train anew into another folder"
    )


def _average(learner: Learner) -> nn.Module | None:
    return learner.average.model if learner.average else None


def _progress(run: Path, name: str, header: dict[str, Any]) -> Progress:
    try:
        if "log" not in header:  # an earlier version's; it saved finished epochs only
            lines = (run / LOG).read_text(encoding="utf-8").splitlines()[: int(header["epoch"])]
            return Progress(epoch=int(header["epoch"]), log=[json.loads(line) for line in lines])
        progress = Progress(**{key: header[key] for key in asdict(Progress())})
        counts = (progress.epoch, progress.step, *(line["epoch"] for line in progress.log))
        if not all(type(count) is int and count >= 0 for count in counts) or len(progress.log) != progress.epoch:
            raise ValueError("its epochs, steps and log do not fit together")
        return progress
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{run / name} is damaged or foreign: {error!r}") from None


def write_log(run: Path, lines: list[dict[str, Any]]) -> None:
    """Write the log, a JSON line for each finished epoch."""
    with _writing(run), atomic_file(run / LOG) as unfinished:
        unfinished.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def chosen_line(run: Path) -> dict[str, Any]:
    """The log line of the epoch that a run keeps; empty before there is one. Raises: `CheckpointError`."""
    try:
        lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
        return next((line for line in reversed(lines) if line.get("best")), {})
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{run / LOG} cannot be read: {error}") from None


@contextmanager
def _writing(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write to {run}: {error.strerror}") from None


def runs_of(run: Path) -> list[Path]:
    """The single runs of a folder: itself, or one for each seed (``seed-0``, ``seed-1``, …), by seed.

    Raises: `CheckpointError` when ``run`` is neither.
    """
    if (run / CONFIG).is_file():
        return [run]
    seeds = [path for path in run.glob("seed-*") if (path / CONFIG).is_file() and path.name[5:].isdecimal()]
    if not seeds:
        raise CheckpointError(f"{run} is not a run folder (no {CONFIG} in it); agnet train --run makes one")
    return sorted(seeds, key=lambda path: int(path.name[5:]))


def checkpoint_of(run: Path) -> Path:
    """Where a single run keeps its chosen epoch's network, which need not be there.

    Raises: `CheckpointError` when ``run`` holds a run for each of several seeds.
    """
    if not (run / BEST).is_file() and not (run / CONFIG).is_file() and any(run.glob("seed-*")):
        first = runs_of(run)[0]
        raise CheckpointError(f"{run} holds a run for each of several seeds; name one of them, such as --run {first}")
    return run / BEST

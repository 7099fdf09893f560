"""A run's folder: what is in it, and whether a resumed run is the one that was started."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.errors import CheckpointError, MismatchError
from ...data.files import atomic_file, one_process
from ...data.places import relative_hint
from ..models.contract import Settings
from ..models.registry import comparable, record_of
from ..recipes import Recipe, RunSettings
from .provenance import code_revision, split_hash, versions
from .seen import SEEN

# Whether a folder is a run is asked before PyTorch is loaded, which takes seconds: what needs it is imported where it
# is used.
if TYPE_CHECKING:
    from torch import nn

    from ...data.boxes.reader import Boxes
    from ..loop.learner import Learner
    from ..machine.devices import Device

BEST, LAST, PREVIOUS, LOG, CONFIG = (
    *("best.safetensors", "last.safetensors", "previous.safetensors"),
    *("log.jsonl", "config.json"),
)
SUFFIX = ".safetensors"
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
        if not self.step:
            return f"after epoch {self.epoch} of {epochs}"
        return f"after {self.step:,} step{'s' if self.step > 1 else ''} of epoch {self.epoch + 1} of {epochs}"


def read_config(run: Path) -> dict[str, dict[str, object]]:
    """A run's configuration. Raises: `CheckpointError` when ``run`` is no run folder."""
    try:
        config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(_no_run(run)) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{run / CONFIG} is damaged: {error}") from None
    sections = ("model", "recipe", "run", "boxes", "versions")
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in sections):
        raise CheckpointError(f"{run / CONFIG} is not a run's configuration")
    return config


def configuration(
    run: Path,
    boxes: Boxes,
    root: Path,
    model: Settings,
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
    from ...data.index import SPLITS  # and NumPy with it

    return {
        "model": record_of(model),
        "recipe": asdict(recipe),
        "run": {
            "weights": weights_name(settings.weights),
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


def weights_name(source: str) -> str:
    """What ``--weights`` names, for a run's record: a file's name, or a run's; its folder is nobody's business."""
    path = Path(source)
    name = path.parent if path.name == BEST else path
    return name.name if name.name not in ("", "..") else name.resolve().name


@contextmanager
def one_training(run: Path) -> Iterator[None]:
    """A block in one process at a time for a folder, which it makes, and takes away again if nothing came into it.

    Raises: `CheckpointError` where another is in it.
    """
    made = [place for place in (run, *run.parents) if not place.exists()]
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
    complaint = CheckpointError(f"another process is training into {run}; wait for it or stop it")
    try:
        with one_process(run / _LOCK, complaint):
            yield
    finally:
        for place in made:
            with suppress(OSError):  # not empty
                place.rmdir()


def check_free(run: Path) -> None:
    """Raises: `CheckpointError` when the folder holds a run, or runs of several seeds."""
    if has_state(run) or (run / BEST).exists():  # a finished one has no states
        raise CheckpointError(f"{run} already holds a run; go on with --resume or name another folder with --run")
    if any(run.glob(f"seed-*/{CONFIG}")):
        raise CheckpointError(f"{run} holds runs of several seeds; name another folder with --run")


def start_folder(run: Path, config: dict[str, dict[str, object]]) -> None:
    """Begin a run's folder, which must be free (`check_free`). Raises: `CheckpointError`."""
    with _writing(run):
        for old in (LOG, SEEN):  # of a run that was stopped before it had anything to go on from
            (run / old).unlink(missing_ok=True)
    _write_config(run, config)


def _write_config(run: Path, config: Mapping[str, object]) -> None:
    with _writing(run), atomic_file(run / CONFIG) as unfinished:
        unfinished.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check_same_run(run: Path, config: dict[str, dict[str, object]], other_epochs: bool = False) -> None:
    """Raise `MismatchError` when a resumed run would not be the run that was started.

    Args:
        other_epochs: it may be to go on to another number of epochs, for `check_same_past` to judge.
    """
    before = read_config(run)
    free = (*_FREE, "epochs") if other_epochs else _FREE
    remedy = "resume with the options the run was started with"
    for part, kind in (("model", None), ("recipe", Recipe), ("run", RunSettings)):
        # A run older than a setting is one with the setting's default.
        complete = comparable if kind is None else partial(_with_defaults, kind)
        started = json.loads(json.dumps(complete(before[part])))
        asked = config[part] if kind else comparable(config[part])  # of a run the command line asks only for some
        for name, value in json.loads(json.dumps(asked)).items():
            if name not in free and started.get(name) != value:
                raise MismatchError(
                    f"{run} was started with {name} = {started.get(name)!r}, now it is {value!r}; {remedy}"
                )
    if before["boxes"].get("fingerprint") != config["boxes"]["fingerprint"]:
        raise MismatchError(f"{run} was started with another boxes file; {remedy}")


def _with_defaults(kind: type[Recipe | RunSettings], values: Mapping[str, object]) -> dict[str, object]:
    return {one.name: one.default for one in fields(kind) if one.default is not MISSING} | dict(values)


def epochs_of(run: Path) -> int:
    """How many epochs a run is to have by its configuration."""
    return int(str(read_config(run)["recipe"].get("epochs")))


def check_same_past(run: Path, progress: Progress, recipe: Recipe) -> None:
    """Raises: `MismatchError` where a run that has come so far, and is now to have ``recipe.epochs``, would have had
    other learning rates until now, or has come further than that.
    """
    before = recipe.override(epochs=epochs_of(run))
    reached = progress.epoch + (progress.step > 0)
    if recipe.epochs < reached:
        raise MismatchError(f"{run} is {progress.describe(before.epochs)} already; take --epochs {reached} or more")
    if not recipe.same_rates(before, reached):
        raise MismatchError(
            f"{run} was started with epochs = {before.epochs}, on which its learning rates so far depend (schedule "
            f"cosine): begin a new run with its weights, --weights {run} --epochs {recipe.epochs} --run ANOTHER, or go "
            f"on with --epochs {before.epochs}; of --schedule step the epochs may change"
        )


def change_epochs(run: Path, progress: Progress, epochs: int) -> None:
    """Record in the configuration that the run goes on to so many epochs, and how many there were to be until now."""
    config: dict[str, Any] = read_config(run)
    then = {"epochs": config["recipe"].get("epochs"), "finished_epochs": progress.epoch, "steps": progress.step}
    if then["epochs"] == epochs:
        return
    config["recipe"]["epochs"] = epochs
    _write_config(run, config | {"epochs_before": [*config.get("epochs_before", ()), then]})


def has_state(run: Path) -> bool:
    """Whether there is a state in the folder to go on from, sound or not."""
    return (run / LAST).exists() or (run / PREVIOUS).exists()


def save_state(run: Path, progress: Progress, learner: Learner) -> None:
    """Save all that is needed to go on; the state saved before stays as `PREVIOUS`. Raises: `CheckpointError`."""
    from .checkpoints import save_training_state

    header = asdict(progress) | {"scaler": learner.scaler.state_dict()}
    save_training_state(run / LAST, learner.model, learner.optimizer, header, _average(learner), keep=run / PREVIOUS)


def drop_states(run: Path) -> None:
    """Delete the states of a finished run. The older goes first: a kill in between leaves the one of the end."""
    with _writing(run):
        for name in (PREVIOUS, LAST):
            (run / name).unlink(missing_ok=True)


def load_state(run: Path, learner: Learner) -> tuple[Progress, str]:
    """Put the newest sound state of the folder back into ``learner``.

    Returns: how far it had come, and which file that was and why, for people.
    Raises: `CheckpointError` when none is sound.
    """
    from .checkpoints import load_training_state

    complaints = []
    for name in (LAST, PREVIOUS):
        if not (run / name).exists():
            continue
        try:
            header = load_training_state(run / name, learner.model, learner.optimizer, _average(learner))
            progress = _progress(run, name, header)
            _load_scaler(run / name, header.get("scaler"), learner)
        except CheckpointError as error:
            complaints.append(str(error))
            continue
        return progress, "; ".join([*complaints, f"going on from {name}"])
    raise CheckpointError(
        f"{run} has no sound state to go on from: {'; '.join(complaints)}; train anew into another folder"
    )


def _average(learner: Learner) -> nn.Module | None:
    return learner.average.model if learner.average else None


def _load_scaler(path: Path, state: object, learner: Learner) -> None:
    """Raises: `CheckpointError` for a state that is none of fp16's gradient scaler, where that is used."""
    if not learner.scaler.is_enabled():
        return
    wanted = learner.scaler.state_dict().keys()
    if not isinstance(state, dict) or state.keys() != wanted or not all(map(_is_finite, state.values())):
        raise CheckpointError(f"{path} is damaged or foreign: it has no sound state of the gradients' scale")
    learner.scaler.load_state_dict(state)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e300


def _progress(run: Path, name: str, header: dict[str, Any]) -> Progress:
    try:
        if "log" not in header:  # an earlier version's; it saved finished epochs only
            lines = (run / LOG).read_text(encoding="utf-8").splitlines()[: int(header["epoch"])]
            progress = Progress(epoch=int(header["epoch"]), log=[json.loads(line) for line in lines])
        else:
            progress = Progress(**{key: header[key] for key in asdict(Progress())})
        _check_progress(progress)
        return progress
    except (OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{run / name} is damaged or foreign: {str(error)[:200]!r}") from None


def _check_progress(progress: Progress) -> None:
    """Raises: `ValueError`, `TypeError` or `LookupError` for what no run can have come to."""
    from ..loop.learner import IMAGES, WEIGHT

    counts = (progress.epoch, progress.step)
    if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
        raise ValueError("its epochs and steps are no counts")
    if [line["epoch"] for line in progress.log] != list(range(1, progress.epoch + 1)):
        raise ValueError("its epochs and its log do not fit together")
    figures = [value for line in progress.log for value in line.values()]
    if not all(type(figure) in (bool, float) or (type(figure) is int and abs(figure) < 2**63) for figure in figures):
        raise ValueError("its log has other things than numbers")
    if not all(map(_is_finite, [*progress.totals, progress.seconds])) or len(progress.totals) not in (0, 4):
        raise ValueError("its sums are no numbers")
    if progress.step and not (progress.totals and min(progress.totals[WEIGHT], progress.totals[IMAGES]) > 0):
        raise ValueError("its steps have seen no images")
    if progress.step and progress.seconds <= 0:
        raise ValueError("its steps have taken no time")


def write_log(run: Path, lines: list[dict[str, Any]]) -> None:
    """Write the log, a JSON line for each finished epoch."""
    with _writing(run), atomic_file(run / LOG) as unfinished:
        unfinished.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def read_log(run: Path) -> list[dict[str, Any]]:
    """The log's lines. Raises: `CheckpointError`."""
    try:
        lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line is no object")
        return lines
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{run / LOG} cannot be read: {error}") from None


def chosen_line(run: Path) -> dict[str, Any]:
    """The log line of the epoch that a run keeps; empty before there is one. Raises: `CheckpointError`."""
    return next((line for line in reversed(read_log(run)) if line.get("best")), {})


@contextmanager
def _writing(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write to {run}: {error.strerror}") from None


def folder_of(run: str | Path) -> Path:
    """The folder of a run that is named by its folder, or by the checkpoint in it. Neither need be there.

    Raises: `CheckpointError` for any other file.
    """
    run = Path(run)
    if not run.is_file():
        return run
    if run.name != BEST:
        raise CheckpointError(f"{run} is not a run: name its folder, or the {BEST} in it")
    return run.parent


def _no_run(folder: Path) -> str:
    return f"{folder} is not a run folder (no {CONFIG} in it); agnet train --run {shlex.quote(str(folder))} makes one"


def runs_of(run: str | Path) -> list[Path]:
    """The single runs of a folder: itself, or one for each seed (``seed-0``, ``seed-1``, …), by seed.

    Args:
        run: a run's folder or its checkpoint (`folder_of`), or the folder of several seeds.

    Raises: `CheckpointError` when ``run`` is none of them.
    """
    folder = folder_of(run)
    if (folder / CONFIG).is_file():
        return [folder]
    seeds = [path for path in folder.glob("seed-*") if (path / CONFIG).is_file() and path.name[5:].isdecimal()]
    if not seeds:
        raise CheckpointError(_no_run(folder))
    return sorted(seeds, key=lambda path: int(path.name[5:]))


def checkpoint_of(run: str | Path) -> Path:
    """Where a single run keeps its chosen epoch's network, which need not be there.

    Args:
        run: the run's folder, or the file itself, whatever its name is.

    Raises: `CheckpointError` when ``run`` holds a run for each of several seeds.
    """
    run = Path(run)
    if run.suffix == SUFFIX and not run.is_dir():
        return run
    if run.is_file():
        raise CheckpointError(f"{run} is not a run: name its folder, or the {BEST} in it")
    if not (run / BEST).is_file() and not (run / CONFIG).is_file() and any(run.glob("seed-*")):
        first = runs_of(run)[0]
        raise CheckpointError(
            f"{run} holds a run for each of several seeds; name one of them, such as --run {shlex.quote(str(first))}"
        )
    return run / BEST


def predictions_of(run: str | Path, split: str) -> dict[Path, Path]:
    """The single runs of `runs_of`, and of each the file with what it said of ``split`` of its own boxes file.

    Raises: `CheckpointError` when ``run`` is no run, or one of them was not evaluated.
    """
    found = {}
    for single in runs_of(run):
        found[single] = single / f"predictions-{split}{SUFFIX}"
        if not found[single].is_file():
            remedy = f"agnet evaluate --run {shlex.quote(str(folder_of(run)))}"
            remedy += "" if split == "test" else f" --split {split}"
            remedy += " --force" if split == "train" else ""
            raise CheckpointError(f"{single} has no predictions for {split}; make them with: {remedy}")
    return found


def checkpoint_hash(path: Path) -> str:
    """What a checkpoint is, in 16 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(digest_size=8)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()

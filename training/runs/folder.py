"""Files of a run folder, and the check that a resumed run matches the one that was started."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.errors import CheckpointError, MismatchError
from ...data.files import atomic_file, one_process
from ...data.names import TRAIN_FOLD
from ...data.places import relative_hint
from ...data.text import printable
from ..aggregates import Aggregate
from ..models.contract import NONE, Settings, Views
from ..models.registry import comparable, needs_of, record_of, settings_of
from ..recipes import Recipe, RunSettings
from .checkpoint_header import how_to_get
from .provenance import code_revision, identity, same_boxes, split_hash, versions
from .seen import SEEN
from .sources import recorded_source

# Commands check run folders before they load PyTorch, which takes seconds, so modules that need it are imported only
# where they are used.
if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes
    from ..machine.devices import Device

BEST, LAST, PREVIOUS, LOG, CONFIG = (
    *("best.safetensors", "last.safetensors", "previous.safetensors"),
    *("log.jsonl", "config.json"),
)
SUFFIX = ".safetensors"
WEIGHTS = "model.safetensors"  #: checkpoint in a folder of the Hugging Face hub, in place of `BEST`
SEED, FOLD = "seed", "fold"
SEVERAL = (SEED, FOLD)  #: what a folder may hold several runs of, and how their folders' names begin
_HOLDING = {
    SEED: "holds a run for each of several seeds; name one of them",
    FOLD: "holds a run for each fold of train; name one of them",
}
PULLED = "pulled"  #: section of the configuration of a run from the Hugging Face hub: its repository and revision
_LOCK = "training.lock"
_FREE = ("workers", "processes")  # run settings that may change on resume


def read_config(run: Path) -> dict[str, dict[str, object]]:
    """Read the configuration of a run. Raises: `CheckpointError` when ``run`` is not a run folder."""
    try:
        config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(_no_run(run)) from None
    except OSError as error:
        raise CheckpointError(f"{run / CONFIG} cannot be read: {error.strerror}") from None
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
    fold: int | None = None,
) -> dict[str, dict[str, object]]:
    """Everything that determines a run, as JSON values. Paths are relative; no user or host name is recorded.

    Args:
        command: Name of the recipe and the command-line options given, for reference only.
        processes: Number of training processes.
        fold: Number of the fold that the run leaves out (`folds.without_fold`), if any.
    """
    from ...data.index import ALL_SPLITS, SPLITS  # imports NumPy
    from ..machine.hardware import hardware

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
            "cache_features": settings.cache_features,
            **({"folds": settings.folds} if settings.folds else {}),
        },
        **fold_record(fold, len(boxes.rows(TRAIN_FOLD))),
        "boxes": {
            "file_relative_to_run": relative_hint(boxes.path, run),
            "root_relative_to_run": relative_hint(root, run),
            **identity(boxes),
            "dataset": boxes.dataset,
            "title": boxes.title,
            "images": {split: len(boxes.rows(split)) for split in ALL_SPLITS if split in SPLITS or boxes.is_retrieval},
            "left_out_unreadable": len(boxes.failures),
            "proposals": boxes.settings.get("proposals", {}),
            "opened_with": {key: value for key, value in boxes.settings.get("dataset", {}).items() if key != "name"},
            "split_blake2b": split_hash(boxes),
        },
        "versions": versions(),
        "hardware": hardware(device.device),
        "code": code_revision(),
        "command": dict(command),
    }


def fold_record(fold: int | None, images: int) -> dict[str, dict[str, object]]:
    """The section of a configuration about the fold that the run leaves out, and its number of images; empty if none.

    Its images are those that `folds.without_fold` leaves out for this number, and for ``seed`` and ``folds`` of the
    section ``run``; ``split_blake2b`` of the section ``boxes`` tells whether they still are.
    """
    return {} if fold is None else {"fold": {"number": fold, "images_left_out": images}}


def weights_name(source: str) -> str:
    """Value of ``--weights`` as recorded for a run: the name of a file or of a run, without its private path."""
    return recorded_source(source, BEST)


@contextmanager
def one_training(run: Path) -> Iterator[None]:
    """Lock a run folder for one training process at a time.

    The folder is created, and removed again at the end if it is still empty.

    Raises: `CheckpointError` when another process holds the lock.
    """
    made = [place for place in (run, *run.parents) if not place.exists()]
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
    complaint = CheckpointError(f"another process is training into {run}; wait for it or stop it")
    try:
        with one_process(run / _LOCK, complaint):
            yield
    finally:
        for place in made:
            with suppress(OSError):  # not empty
                place.rmdir()


def check_free(run: Path, remedy: str = "") -> None:
    """Raise `CheckpointError` when the folder holds a run, or the runs of several seeds or folds.

    Args:
        remedy: What the caller can do then; by default the options of `agnet train`.
    """
    if has_state(run) or (run / BEST).exists():  # finished runs have no training state
        to_do = remedy or "continue it with --resume or name another folder with --run"
        raise CheckpointError(f"{run} already holds a run; {to_do}")
    for kind in SEVERAL:
        if any(run.glob(f"{kind}-*/{CONFIG}")):
            raise CheckpointError(f"{run} holds runs of several {kind}s; {remedy or 'name another folder with --run'}")


def start_folder(run: Path, config: Mapping[str, object]) -> None:
    """Start a run in a folder that holds no other (see `check_free`). Raises: `CheckpointError` on failed writes."""
    with writing(run):
        for old in (LOG, SEEN):  # left by a run that stopped before its first checkpoint
            (run / old).unlink(missing_ok=True)
    write_config(run, config)


def write_config(run: Path, config: Mapping[str, object]) -> None:
    """Write the configuration of a run. Raises: `CheckpointError` on failed writes."""
    with writing(run), atomic_file(run / CONFIG) as unfinished:
        unfinished.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def title_of(run: Path) -> str:
    """Title that a person gave the run; empty if there is none. Raises: as `read_config`."""
    config: Mapping[str, object] = read_config(run)
    return printable(str(config.get("title") or ""))


def retitle(run: Path, title: str) -> None:
    """Record another title of a run. Raises: as `read_config`, and `CheckpointError` on failed writes."""
    if title_of(run) != title:
        write_config(run, {**read_config(run), "title": title})


def check_same_run(run: Path, config: dict[str, dict[str, object]], other_epochs: bool = False) -> None:
    """Raise `MismatchError` unless a resumed run has the settings that it was started with.

    Args:
        other_epochs: Whether the number of epochs may differ; the training loop then checks it.
    """
    before = read_config(run)
    free = (*_FREE, "epochs") if other_epochs else _FREE
    remedy = "resume with the options the run was started with"
    for part, kind in (("model", None), ("recipe", Recipe), ("run", RunSettings)):
        # Runs that were started before a setting existed had its default.
        complete = comparable if kind is None else partial(_with_defaults, kind)
        started = json.loads(json.dumps(complete(before[part])))
        asked = config[part] if kind else comparable(config[part])  # commands pass some of `run` only
        for name, value in json.loads(json.dumps(asked)).items():
            if name not in free and started.get(name) != value:
                raise MismatchError(
                    f"{run} was started with {name} = {started.get(name)!r}, now it is {value!r}; {remedy}"
                )
    if before.get("fold") != config.get("fold"):
        raise MismatchError(f"{run} was started without another fold of the images; {remedy}")
    regions = needs_of(settings_of(config["model"])).regions > 0
    if not same_boxes(before["boxes"], config["boxes"], regions=regions):
        raise MismatchError(f"{run} was started with another boxes file; {remedy}")


def _with_defaults(kind: type[Recipe | RunSettings], values: Mapping[str, object]) -> dict[str, object]:
    return {one.name: one.default for one in fields(kind) if one.default is not MISSING} | dict(values)


def epochs_of(run: Path) -> int:
    """Number of epochs in the configuration of a run."""
    return int(str(read_config(run)["recipe"].get("epochs")))


def has_state(run: Path) -> bool:
    """Whether the folder holds a training state to resume from, valid or not."""
    return (run / LAST).exists() or (run / PREVIOUS).exists()


def write_log(run: Path, lines: list[dict[str, Any]]) -> None:
    """Write the log, one JSON line per finished epoch."""
    with writing(run), atomic_file(run / LOG) as unfinished:
        unfinished.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read the lines of the log. Raises: `CheckpointError` when it is missing or damaged."""
    try:
        lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line is not a JSON object")
        return lines
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{run / LOG} cannot be read: {error}") from None


def chosen_line(run: Path) -> dict[str, Any]:
    """Log line of the epoch whose checkpoint is kept; empty if there is none yet. Raises: as `read_log`."""
    return next((line for line in reversed(read_log(run)) if line.get("best")), {})


def seconds_of(log: Sequence[Mapping[str, Any]]) -> float:
    """Time that the logged epochs took, in seconds: everything, or of older runs only the training itself."""
    return float(log[-1].get("total_seconds") or sum(line["seconds"] for line in log)) if log else 0.0


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Convert an `OSError` inside the block to a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write to {run}: {error.strerror}") from None


def folder_of(run: str | Path) -> Path:
    """Folder of a run, given the folder or the checkpoint in it. Neither need exist.

    Raises: `CheckpointError` for any other file.
    """
    run = Path(run)
    if not run.is_file():
        return run
    if run.name != BEST:
        raise CheckpointError(f"{run} is not a run: name its folder, or the {BEST} in it")
    return run.parent


def _no_run(folder: Path) -> str:
    return f"{folder} is not a run folder (no {CONFIG} in it); {how_to_get(folder)}"


def display_name(run: Path) -> str:
    """Name of a run's folder, given the folder or the checkpoint in it; of one in the hub's cache, OWNER/NAME."""
    folder = (run if run.is_dir() else run.parent).resolve()
    if folder.parent.name == "snapshots":  # models--OWNER--NAME/snapshots/COMMIT
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def runs_of(run: str | Path) -> list[Path]:
    """List the single runs of a folder: the folder itself, or one per seed (``seed-0``, ``seed-1``, …), sorted by seed.

    Args:
        run: Folder of a run or its checkpoint (`folder_of`), or the folder of several seeds.

    Raises: `CheckpointError` when ``run`` is none of these, or the folder of several folds, which are no repetitions of
        one training.
    """
    folder = folder_of(run)
    if (folder / CONFIG).is_file():
        return [folder]
    if found := numbered(folder, SEED):
        return found
    if folds := numbered(folder, FOLD):
        raise CheckpointError(f"{folder} {_HOLDING[FOLD]}, such as {_quoted(folds[0])}, or use agnet labels")
    raise CheckpointError(_no_run(folder))


def numbered(folder: Path, kind: str) -> list[Path]:
    """Run folders ``seed-0``, ``seed-1``, … or ``fold-0``, ``fold-1``, … in a folder, by their numbers.

    Args:
        kind: One of `SEVERAL`.
    """
    paths = {path: path.name.removeprefix(f"{kind}-") for path in folder.glob(f"{kind}-*") if (path / CONFIG).is_file()}
    return sorted((path for path, number in paths.items() if number.isdecimal()), key=lambda path: int(paths[path]))


def folders_of(run: Path, kind: str, numbers: Sequence[int], resume: bool) -> list[Path]:
    """One run folder for each of several seeds or folds.

    Args:
        kind: One of `SEVERAL`.

    Raises: `CheckpointError` when ``run`` is a single run, or, with ``resume``, holds none of these.
    """
    folders = [run / f"{kind}-{number}" for number in numbers]
    (other,) = (one for one in SEVERAL if one != kind)
    if (run / CONFIG).exists():
        raise CheckpointError(f"{run} is a single run; name another folder with --run")
    if numbered(run, other):
        raise CheckpointError(f"{run} holds runs of several {other}s; name another folder with --run")
    if resume and not any((folder / CONFIG).exists() for folder in folders):
        raise CheckpointError(f"{run} holds no run with these {kind}s; train without --resume")
    return folders


def _quoted(run: Path) -> str:
    return f"--run {shlex.quote(str(run))}"


def checkpoint_of(run: str | Path) -> Path:
    """Path of the checkpoint of a single run's chosen epoch. The file need not exist.

    Args:
        run: Folder of the run, or the checkpoint file itself, under any name.

    Raises: `CheckpointError` when ``run`` holds the runs of several seeds or folds.
    """
    run = Path(run)
    if run.suffix == SUFFIX and not run.is_dir():
        return run
    if run.is_file():
        raise CheckpointError(f"{run} is not a run: name its folder, or the {BEST} in it")
    if not (run / BEST).is_file() and not (run / CONFIG).is_file():
        for kind, holding in _HOLDING.items():
            if found := numbered(run, kind):
                raise CheckpointError(f"{run} {holding}, such as {_quoted(found[0])}")
    return run / (WEIGHTS if (run / WEIGHTS).is_file() and not (run / BEST).is_file() else BEST)


def measured_split(run: Path) -> str:
    """The split that a single run is measured on unless another is named: query if it was trained for retrieval."""
    images = read_config(run)["boxes"].get("images")
    return "query" if isinstance(images, dict) and images.get("query") else "test"


def views_of_run(run: Path) -> Views | None:
    """Views of a photograph that a single run was trained with. Raises: `CheckpointError` as `read_config`."""
    recipe = read_config(run)["recipe"]
    try:
        return Views.parse(*(str(recipe.get(name, NONE)) for name in ("sizes", "crops")))
    except ValueError as error:
        raise CheckpointError(f"{run / CONFIG} is damaged: {error}") from None


def predictions_of(
    run: str | Path,
    split: str,
    aggregate: Aggregate | None = None,
    seeds: Collection[int] | None = None,
    views: Views | None = None,
) -> dict[Path, Path]:
    """Map each single run (see `runs_of`) to the file of its predictions for ``split`` of its own boxes file, of videos
    by a rule other than the default, in views other than those that it was trained with. With ``seeds``, only the runs
    in the folders of these seeds.

    Raises: `CheckpointError` when ``run`` is not a run, or a single run was not evaluated.
    """
    found = {}
    wanted = None if seeds is None else {f"seed-{seed}" for seed in seeds}
    for single in (one for one in runs_of(run) if wanted is None or one.name in wanted):
        others = views if views and views != views_of_run(single) else None
        part = f"{aggregate.part if aggregate else ''}{others.part if others else ''}"
        found[single] = single / f"predictions-{split}{part}{SUFFIX}"
        if not found[single].is_file():
            remedy = f"agnet evaluate --run {shlex.quote(str(folder_of(run)))}"
            remedy += "" if split in ("test", "query") else f" --split {split}"
            remedy += " --force" if split == "train" else ""
            remedy += f" --aggregate {aggregate}" if aggregate else ""
            remedy += f" {others.options}" if others else ""
            by = (f" by {aggregate}" if aggregate else "") + (f" with {others.options}" if others else "")
            raise CheckpointError(f"{single} has no predictions for {split}{by}; make them with: {remedy}")
    return found


def checkpoint_hash(path: Path) -> str:
    """Hash of a checkpoint file, 16 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(digest_size=8)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()

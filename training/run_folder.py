"""A run's folder: what is in it, and whether a resumed run is the one that was started."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import torch
import torchvision

from .. import __version__
from ..data.boxes_reader import Boxes
from ..data.errors import CheckpointError, MismatchError
from ..data.index import SPLITS
from ..data.places import relative_hint
from .devices import Device
from .models.settings import ModelSettings
from .recipes import Recipe, RunSettings

BEST, LAST, LOG, CONFIG = "best.safetensors", "last.safetensors", "log.jsonl", "config.json"


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


def start_folder(run: Path, config: dict[str, dict[str, object]]) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (run / LOG).write_text("", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write to {run}: {error.strerror}") from None


def check_same_run(run: Path, config: dict[str, dict[str, object]]) -> None:
    """Raise `MismatchError` when a resumed run would not be the run that was started."""
    before = read_config(run)
    if not (run / LAST).exists():
        raise CheckpointError(f"{run} has no finished epoch to go on from; train without --resume")
    remedy = "resume with the options the run was started with"
    # A run older than a setting is one with the setting's default.
    before["model"] = _defaults(ModelSettings) | before["model"]
    before["recipe"] = _defaults(Recipe) | before["recipe"]
    before["run"] = _defaults(RunSettings) | before["run"]
    for part in ("model", "recipe", "run"):
        for name, value in json.loads(json.dumps(config[part])).items():
            if name != "workers" and before.get(part, {}).get(name) != value:
                raise MismatchError(
                    f"{run} was started with {name} = {before.get(part, {}).get(name)!r}, now it is {value!r}; {remedy}"
                )
    if before["boxes"].get("fingerprint") != config["boxes"]["fingerprint"]:
        raise MismatchError(f"{run} was started with another boxes file; {remedy}")


def _defaults(kind: type) -> dict[str, object]:
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def cut_log(path: Path, epochs: int) -> None:
    """Drop the lines of epochs after ``epochs``: a stop between log and state makes them happen again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines[:epochs]), encoding="utf-8")


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

"""Sentences about how a run was made, from its configuration and its log: what they say, and no more."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.fields import size_text
from ...data.places import own_name, without_paths
from ...data.sets.catalogue import CATALOGUE
from ...data.text import rough_time
from ..models.registry import settings_of
from .folder import seconds_of

Config = Mapping[str, Any]
Log = Sequence[Mapping[str, Any]]  #: lines of the finished epochs

FAMILIES = {
    "agnet": "AG-Net",
    "plain": "plain backbone",
    "srbn": "SRBN",
    "bcnn": "B-CNN",
    "alstm": "ALSTM",
    "conv-alstm": "ConvALSTM",
}


def name_of(run: Path, config: Config) -> str:
    """The title that was given to a run, or the name of its folder."""
    return str(config.get("title") or folder_name(run))


def folder_name(run: Path) -> str:
    """The name of a run's folder, that of a seed with the folder around it; no private path."""
    name = own_name(run)
    around = own_name(run.parent) if name.startswith("seed-") else ""
    return (f"{around}/{name}" if around else name) or "run"


def data_name(config: Config, title: str = "") -> str:
    """The data set's name for people.

    Args:
        config: Configuration of the run.
        title: Title of the data set in the boxes file of the run, if that is known.
    """
    dataset = str(config["boxes"].get("dataset", ""))
    if title or (title := str(config["boxes"].get("title") or "")):
        return title
    entry = CATALOGUE.get(dataset)
    root = str(without_paths((config.get("command") or {}).get("options", {}).get("root") or ""))
    own = root.rstrip("/").rsplit("/", 1)[-1] if entry and entry.is_own else ""
    return own or (entry.title if entry else dataset)


def model_name(record: Mapping[str, Any]) -> str:
    """The network in a few words, from the record of its settings."""
    family = str(record.get("model", "agnet"))
    try:
        backbones = settings_of(record).backbones
    except (LookupError, TypeError, ValueError):  # of another version
        backbones = str(record.get("backbone", ""))
    return f"{FAMILIES[family]}, {backbones}" if family in FAMILIES else family


def command(config: Config) -> str:
    """The options that the run was started with, as a command."""
    made = config.get("command") or {}
    words = ["agnet", "train", *(["--recipe", str(made["recipe"])] if made.get("recipe") else [])]
    for name, value in (made.get("options") or {}).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif name == "image_size":
            words += [f"--{option}", size_text(value)]
        elif value is not None:
            words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def epochs(config: Config, log: Log) -> str:
    """The epochs of a run with their time, and which one was kept, as a sentence. ``log`` is not empty."""
    recipe = config["recipe"]
    chosen = next((line for line in reversed(log) if line.get("best")), log[-1])
    took = rough_time(seconds_of(log))
    why = f"the best by {_chosen_by(recipe.get('select_by'))}" if has_validation([log]) else "the last"
    return f"{len(log)} of {recipe.get('epochs')} epochs in {took}; epoch {chosen.get('epoch')} was kept, {why}."


def has_validation(logs: Sequence[Log]) -> bool:
    """Whether the epochs were validated."""
    return any(name.startswith("val_") for log in logs for line in log for name in line)


def _chosen_by(measure: object) -> str:
    """The measure that chose the epoch, in words."""
    return str(measure or "val_loss").replace("val_", "validation ").replace("top1", "top-1").replace("map", "mAP")


def training_limits(config: Config, logs: Mapping[object, Log]) -> Iterator[str]:
    """What is to be said against the training, as sentences.

    Args:
        config: Configuration of the run.
        logs: Log of each seed.
    """
    yield from _epochs_limits(config["recipe"], logs)
    if config["recipe"].get("backbone_lr") == 0:
        yield "The backbone was not trained: its weights are those it came with."
    if not (config["boxes"].get("images") or {}).get("val"):
        yield "There was no validation split."


def _epochs_limits(recipe: Mapping[str, Any], logs: Mapping[object, Log]) -> Iterator[str]:
    last = []
    for seed, log in logs.items():
        if log and len(log) < int(recipe.get("epochs") or 0) and not recipe.get("patience"):
            yield f"Seed {seed} was not trained to the end: {len(log)} of {recipe['epochs']} epochs."
        elif len(log) > 1 and log[-1].get("best") and has_validation([*logs.values()]):
            last.append(str(seed))
    if last:
        seeds = f"seed{'s' if len(last) > 1 else ''} {', '.join(last)}"
        yield f"The last epoch was the best of {seeds}: a longer training may change the result."


def flaws(config: Config) -> str | None:
    """Known flaws of a named data set."""
    entry = CATALOGUE.get(str(config["boxes"].get("dataset")))
    return (entry.flaws or None) if entry else None


def making(config: Config) -> Iterator[tuple[str, str]]:
    """Code, device, hardware and versions that the run was made with, as names and values."""
    run, code, versions = config["run"], config.get("code") or {}, config["versions"]
    if code:
        changed = ", with changes that are not committed" if code.get("git_dirty") else ""
        yield "revision", f"{code.get('git_revision') or 'unknown'}{changed}"
    yield "command", command(config)
    yield "device", f"{run.get('device')}, {run.get('precision')}"
    if (hardware := config.get("hardware")) is not None:
        cores = f"cores: {hardware.get('cores')}, threads: {hardware.get('threads')}"
        yield "hardware", ", ".join(str(part) for part in (hardware.get("gpu"), hardware.get("cpu"), cores) if part)
    yield "starting weights", str(run.get("weights"))
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)

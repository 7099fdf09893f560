"""All runs below a folder, from the JSON files of their folders; neither PyTorch nor NumPy is needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ...data.errors import CheckpointError
from ..models.registry import MODELS, comparable, settings_of
from .folder import BEST, CONFIG, LAST, LOG, PULLED, chosen_line, read_config, read_log, seconds_of, title_of

FINISHED, STOPPED, UNFINISHED, UNREADABLE = "finished", "stopped early", "unfinished", "unreadable"
_OF_THE_DATA = ("model", "classes", "regions", "backbone", "second_backbone")  # settings that are no switches
_VALIDATION = {"val_top1": "top-1", "val_map": "mAP"}  # the first that a log line has
_MEASURED = {"metrics-test.json": ("top1", "top-1", "images"), "metrics-query.json": ("map", "mAP", "queries")}


@dataclass(frozen=True)
class Score:
    """A share that a run reached."""

    value: float  #: of several seeds the mean
    measure: str  #: top-1, or mAP of a search
    sd: float | None = None  #: over seeds, with n - 1; None for a single run


@dataclass(frozen=True)
class RunSummary:
    """One run, or the seeds of one; what is not known is None or empty."""

    run: str  #: folder, relative to the one that was searched
    title: str = ""
    model: str = ""  #: family, and the settings that differ from its defaults
    backbone: str = ""
    data: str = ""
    seeds: tuple[int, ...] = ()
    epochs: int | None = None  #: finished ones; of several seeds the fewest
    asked: int | None = None  #: epochs of the recipe
    chosen: tuple[int, ...] = ()  #: the epoch that is kept, of each seed
    validation: Score | None = None  #: at the chosen epoch
    test: Score | None = None
    tested: int | None = None  #: images, videos or queries that the test score is of
    seconds: float | None = None  #: time of training; of several seeds the sum
    state: str = UNREADABLE
    note: str = ""  #: why the run is unreadable, unfinished, or without a test score

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def runs_below(folder: Path) -> list[RunSummary]:
    """Summarise every run in ``folder`` or below it, by the names of their folders.

    A run that cannot be read is listed with the reason. Files that other programs call config.json are passed over.
    """
    return [_summary(folder, run) for run in sorted(_folders(folder))]


def by_seeds(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Join the runs of the folders seed-0, seed-1, ... of one folder to one summary."""
    joined: dict[tuple[str, bool], list[RunSummary]] = {}
    for run in runs:
        parent, _, name = run.run.rpartition("/")
        is_seed = name.startswith("seed-") and name[5:].isdecimal()
        joined.setdefault((parent or "." if is_seed else run.run, is_seed), []).append(run)
    return [_joined(name, members) if are_seeds else members[0] for (name, are_seeds), members in joined.items()]


def _folders(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if BEST in files or LAST in files or (CONFIG in files and (LOG in files or _is_ours(Path(place)))):
            yield Path(place)


def _is_ours(run: Path) -> bool:
    """Whether the folder's configuration is that of a run, one that has finished no epoch yet."""
    try:
        return bool(read_config(run))
    except CheckpointError:
        return False


def _summary(folder: Path, run: Path) -> RunSummary:
    name = run.relative_to(folder).as_posix()
    try:
        return _read(name, run)
    # A file that another program wrote may have anything in place of a number.
    except (CheckpointError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = str(error) if isinstance(error, CheckpointError) else f"{CONFIG} or {LOG} has an unexpected entry"
        return RunSummary(name, note=reason.replace(f"{run}{os.sep}", ""))


def _read(name: str, run: Path) -> RunSummary:
    config: Mapping[str, Any] = read_config(run)
    log = read_log(run) if (run / LOG).exists() else []
    best: Mapping[str, Any] = chosen_line(run) if log else {}
    done, asked = len(log), int(config["recipe"]["epochs"])
    state, note = (FINISHED, "") if PULLED in config else _state(run, config["recipe"], done, best)
    tested, measured, stale = _test(run, best)
    if tested is None and "fold" in config:
        stale = f"without fold {config['fold']['number']} of train"
    validation = next((Score(float(best[key]), its) for key, its in _VALIDATION.items() if key in best), None)
    boxes = config["boxes"]
    return RunSummary(
        run=name,
        title=title_of(run),
        model=_model(config["model"]),
        backbone=_backbone(config["model"]),
        data=str(boxes.get("title") or boxes.get("dataset") or ""),
        seeds=(int(config["run"]["seed"]),) if "seed" in config["run"] else (),
        epochs=None if PULLED in config else done,
        asked=asked,
        chosen=(int(best["epoch"]),) if best else (),
        validation=validation,
        test=tested,
        tested=measured,
        seconds=seconds_of(log) if log else None,
        state=state,
        note=note or stale,
    )


def _state(run: Path, recipe: Mapping[str, Any], done: int, best: Mapping[str, Any]) -> tuple[str, str]:
    if not (run / BEST).exists():
        return UNFINISHED, "no epoch is finished" if not done else f"{BEST} is missing"
    if done >= int(recipe["epochs"]):
        return FINISHED, ""
    patience, start = int(recipe.get("patience", 0)), int(recipe.get("head_epochs", 0))
    if 0 < patience <= done - max(int(best.get("epoch", 0)), start):
        return STOPPED, ""
    return UNFINISHED, "in training, or --resume continues" if (run / LAST).exists() else "no saved state"


def _test(run: Path, best: Mapping[str, Any]) -> tuple[Score | None, int | None, str]:
    """The score of the test split, the number of its images, and why there is none or an old one."""
    for name, (key, measure, counted) in _MEASURED.items():
        if not (run / name).exists():
            continue
        try:
            found = json.loads((run / name).read_text(encoding="utf-8"))
            score, images, epoch = Score(float(found[key]), measure), int(found[counted]), found.get("epoch")
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None, None, f"{name} is damaged"
        old = best and epoch != best.get("epoch")
        return score, images, f"tested at epoch {epoch}, not the chosen one; evaluate again" if old else ""
    return None, None, "not evaluated" if (run / BEST).exists() else ""


def _model(record: Mapping[str, Any]) -> str:
    """Name of the family and its settings other than the defaults, as in "agnet, units 8, self-attention off"."""
    found = comparable(record)
    name = str(found.pop("model", ""))
    usual = comparable({"model": name}) if name in MODELS else found
    changed = {key: value for key, value in found.items() if key not in _OF_THE_DATA and value != usual.get(key)}
    return ", ".join([name, *(f"{key.replace('_', '-')} {_value(value)}" for key, value in changed.items())])


def _value(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _backbone(record: Mapping[str, Any]) -> str:
    with suppress(ValueError, TypeError):  # a family or a setting of another version
        return settings_of(record).backbones
    return str(record.get("backbone", ""))


def _joined(name: str, seeds: Sequence[RunSummary]) -> RunSummary:
    """Summary of the runs of several seeds, in the order of the seeds; the first readable one describes all."""
    read = sorted((run for run in seeds if run.state != UNREADABLE), key=lambda run: run.seeds)
    if not read:
        return RunSummary(name, note=f"{seeds[0].run}: {seeds[0].note}")
    first, counts = read[0], {run.tested for run in read if run.test}
    notes = dict.fromkeys(f"{run.run.rpartition('/')[2]}: {run.note}" for run in seeds if run.note)
    states = [run.state for run in seeds]
    return RunSummary(
        run=name,
        title=first.title,
        model=_alike([run.model for run in read]),
        backbone=_alike([run.backbone for run in read]),
        data=_alike([run.data for run in read]),
        seeds=tuple(seed for run in read for seed in run.seeds),
        epochs=min(run.epochs or 0 for run in read),
        asked=max(run.asked or 0 for run in read),
        chosen=tuple(epoch for run in read for epoch in run.chosen),
        validation=_mean([run.validation for run in read if run.validation]),
        test=_mean([run.test for run in read if run.test]),
        tested=counts.pop() if len(counts) == 1 else None,
        seconds=sum(run.seconds or 0.0 for run in read),
        state=next(state for state in (UNREADABLE, UNFINISHED, STOPPED, FINISHED) if state in states),
        note="; ".join(notes),
    )


def _alike(values: Sequence[str]) -> str:
    return " | ".join(dict.fromkeys(values))


def _mean(scores: Sequence[Score]) -> Score | None:
    if not scores or len({score.measure for score in scores}) > 1:
        return None
    values = [score.value for score in scores]
    return Score(mean(values), scores[0].measure, stdev(values) if len(values) > 1 else None)

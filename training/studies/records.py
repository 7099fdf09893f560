"""What a study remembers of its units, one small file each, and which of them are done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...data.boxes.reader import read_listing
from ...data.errors import CheckpointError, ConfigurationError
from ...data.files import write_text
from ...data.places import follow_hint
from ..runs.folder import BEST, CONFIG, LOG, checkpoint_hash, has_state, measured_split, predictions_of
from .study import EVALUATE, PROPOSE, TRAIN, Row, Study, Unit


@dataclass(frozen=True)
class Record:
    """A unit that was started, written before and after every attempt."""

    row: str
    options: dict[str, Any]  #: values that decide its result
    code: int | None = None  #: exit code of the last attempt; None while it runs, or if it was killed with the study
    seconds: float = 0.0  #: of all attempts
    started: float | None = None  #: clock time of an attempt that has not ended


def record_file(study: Study, unit: Unit) -> Path:
    return study.folder / "records" / f"{unit.name}.json"


def log_file(study: Study, unit: Unit) -> Path:
    return study.folder / "logs" / f"{unit.name}.txt"


def read_record(file: Path) -> Record | None:
    """Read a record; None if there is none, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Record(**{one.name: found[one.name] for one in fields(Record)})
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_record(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(record), indent=1) + "\n")


def options_of(unit: Unit) -> dict[str, Any]:
    """Values that decide the result of a unit: its command's, and the boxes file's name, which has a hash of them."""
    own = {PROPOSE: unit.row.propose, TRAIN: unit.row.train, EVALUATE: unit.row.evaluate}[unit.kind].values
    shared = {} if unit.kind == PROPOSE else {"boxes": unit.row.boxes_name}
    found: dict[str, Any] = json.loads(json.dumps({**shared, **own}))
    return found


def is_done(study: Study, unit: Unit) -> bool:
    """Whether the unit's command succeeded and its files are complete."""
    record = read_record(record_file(study, unit))
    if record is None or record.code != 0 or record.options != options_of(unit):
        return False
    if unit.kind == PROPOSE:
        return unit.target.is_file()  # it appears complete or not at all
    if not (unit.target / BEST).is_file() or has_state(unit.target):
        return False
    return unit.kind == TRAIN or _is_evaluated(unit)


def _is_evaluated(unit: Unit) -> bool:
    """Whether the predictions of the run's own checkpoint are there, and the metrics, which are written last."""
    try:
        split = unit.row.split or measured_split(unit.target)
        (file,) = predictions_of(unit.target, split).values()
        with safe_open(file, framework="np") as predictions:
            header = json.loads((predictions.metadata() or {}).get("agnet", "{}"))
    except (CheckpointError, SafetensorError, OSError, ValueError):
        return False
    metrics = unit.target / f"metrics-{split}.json"
    return metrics.is_file() and header.get("network") == checkpoint_hash(unit.target / BEST)


def to_resume(unit: Unit) -> bool:
    """Whether a training goes on from what is in its folder; one killed before its first state starts anew."""
    run = unit.target
    return unit.kind == TRAIN and (run / CONFIG).is_file() and (has_state(run) or (run / BEST).is_file())


def share_trained(unit: Unit) -> float:
    """Share of the epochs of a training that are finished."""
    try:
        lines = len((unit.target / LOG).read_text(encoding="utf-8").splitlines())
    except OSError:
        return 0.0
    return min(lines / unit.row.epochs, 1.0) if unit.row.epochs else 0.0


@dataclass
class _Changed:
    row: str
    before: dict[str, Any]
    now: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        names = [name for name in {**self.before, **self.now} if self.before.get(name) != self.now.get(name)]
        told = (f"{name} was {_shown(self.before.get(name))}, is {_shown(self.now.get(name))}" for name in names)
        return f"row {self.row}: {', '.join(told)}"


def _shown(value: object) -> str:
    return "not given" if value is None else f"{value}"


def check_unchanged(study: Study) -> None:
    """Raise `ConfigurationError` for rows whose options differ from those that their runs were trained with, and for
    boxes files of images in another folder that still exists.
    """
    _check_same_folder(study)
    changed = {}
    for unit in study.units:
        record = read_record(record_file(study, unit))
        if unit.kind == TRAIN and record and record.options != options_of(unit):
            changed[unit.row.name] = str(_Changed(unit.row.key, record.options, options_of(unit)))
    if changed:
        raise ConfigurationError(
            f"{study.folder} was run with other options ({'; '.join(changed.values())}): remove these runs and train "
            f"them anew with --restart {' '.join(changed)}, or give the rows other names"
        )


def _check_same_folder(study: Study) -> None:
    for unit in study.units:
        if unit.kind == PROPOSE and unit.row.root is not None and unit.target.is_file():
            told = read_listing(unit.target).attributes.get("root_relative_to_this_file")
            before, now = follow_hint(told, unit.target.parent), unit.row.root.resolve()
            if before is not None and now not in (before.resolve(), *before.resolve().parents):
                raise ConfigurationError(
                    f"{unit.target} has the regions of the images in {before}, and the data set is now in {now}; name "
                    "another folder with --output"
                )


def forget(study: Study, names: list[str]) -> list[Row]:
    """Remove the runs and records of rows, on all data sets; boxes files stay. Returns the rows that had any."""
    found = [row for row in study.rows if row.name in names and study.run(row).exists()]
    for row in study.rows:
        if row.name in names:
            for file in _records_of(study, row):
                file.unlink()
            shutil.rmtree(study.run(row), ignore_errors=True)
    return found


def _records_of(study: Study, row: Row) -> Iterator[Path]:
    for file in sorted((study.folder / "records").glob("*.json")):
        record = read_record(file)
        if record and record.row == row.key and not file.name.startswith(f"{PROPOSE}-"):
            yield file

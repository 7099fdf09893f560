"""The time of a study, told beforehand: from units that have finished, and from a few measured steps."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from ...data.errors import ConfigurationError
from ...data.files import write_text
from ...data.text import first_line
from .process import process_of, process_of_nothing
from .records import is_done, read_record, record_file, share_trained
from .study import EVALUATE, PROPOSE, TRAIN, Row, Study, Unit

FILE = "estimates.json"
SAMPLE = 96  #: images that are proposed, and trained on for a few steps, to measure the time of a whole data set
FINISHED, MEASURED = "units that finished", "a few measured steps"

Ask = Callable[[Sequence[str]], tuple[float, str]]
"""Runs agnet with these words, or without any only loads it; returns seconds and standard output."""


@dataclass(frozen=True)
class DataSize:
    """Numbers of images of a data set."""

    images: Mapping[str, int]  #: by split
    least: int = 0  #: of the smallest sample that has all classes and splits

    @property
    def sample(self) -> int:
        return min(max(SAMPLE, self.least), sum(self.images.values()))


@dataclass(frozen=True)
class Estimate:
    """Expected time of a unit that has not finished."""

    seconds: float
    source: str  #: `FINISHED` or `MEASURED`


@dataclass(frozen=True)
class Estimates:
    """Expected times of the units of a study."""

    study: Study
    measured: Mapping[str, float] = field(default_factory=dict)  #: seconds by name of the unit
    jobs: int = 1

    @classmethod
    def read(cls, study: Study, jobs: int = 1) -> Estimates:
        """Read what `measure` wrote; empty if it never did."""
        try:
            units = json.loads((study.folder / FILE).read_text(encoding="utf-8"))["units"]
            return cls(study, {str(name): float(seconds) for name, seconds in units.items()}, jobs)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return cls(study, jobs=jobs)

    def of(self, unit: Unit) -> Estimate | None:
        """Expected time of the whole unit: that of the row's other seeds, else the measured one; None if unknown."""
        others = [record.seconds for other in self._alike(unit) if (record := self._record(other)) and record.code == 0]
        if others:
            return Estimate(mean(others), FINISHED)
        return Estimate(self.measured[unit.name], MEASURED) if unit.name in self.measured else None

    def left(self, units: Sequence[Unit] | None = None) -> float | None:
        """Expected time of everything that has not succeeded yet; None if that of any unit is unknown."""
        total = 0.0
        for unit in self.study.units if units is None else units:
            record = self._record(unit)
            if record is None or record.code != 0:
                found = self.of(unit)
                if found is None:
                    return None
                total += found.seconds * (1 - share_trained(unit) if unit.kind == TRAIN else 1)
        return total / self.jobs

    def _alike(self, unit: Unit) -> list[Unit]:
        if unit.kind == PROPOSE:
            return []
        alike = [one for one in self.study.units if (one.kind, one.row.key) == (unit.kind, unit.row.key)]
        return [one for one in alike if one.name != unit.name]

    def _record(self, unit: Unit) -> Any:
        return read_record(record_file(self.study, unit))


def ask_agnet(words: Sequence[str]) -> tuple[float, str]:
    """Run agnet in a process of its own. Raises: `ConfigurationError` with the last line of its errors if it fails."""
    begun = time.perf_counter()
    command = process_of(words) if words else process_of_nothing()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise ConfigurationError(f"agnet {' '.join(words[:1])} failed: {lines[-1].removeprefix('Error: ')}")
    return time.perf_counter() - begun, done.stdout


@dataclass(frozen=True)
class _Rates:
    """Seconds of training and evaluation on a sample, by image."""

    epochs: Sequence[tuple[int, float]]  #: number of epochs and seconds per training image, by phase
    validation: float  #: seconds per image
    features: float  #: seconds per image to compute features once, 0 without --cache-features
    feature_file: str | None  #: name of the file of these features, which other rows may share

    @classmethod
    def of(cls, dry_run: Mapping[str, Any]) -> _Rates:
        """Args: dry_run: What ``agnet train --dry-run --json`` printed."""
        images, step = dry_run["images"], dry_run["images_per_step"]
        last = dry_run["phases"][-1]
        validating = last["seconds_per_epoch"] - images["train"] * last["seconds_per_step"] / step
        features = dry_run["features"] or {"seconds": 0.0, "file": None}
        return cls(
            [(phase["epochs"], phase["seconds_per_step"] / step) for phase in dry_run["phases"]],
            max(validating, 0.0) / images["val"] if images["val"] else 0.0,
            features["seconds"] / max(1, images["train"] + images["val"]),
            features["file"],
        )

    def training(self, images: Mapping[str, int]) -> float:
        val = images.get("val", 0) * self.validation
        return sum(epochs * (images.get("train", 0) * each + val) for epochs, each in self.epochs)

    def evaluating(self, images: int) -> float:
        """Test images are not among the cached features."""
        return images * (self.validation + self.features)


def measure(
    study: Study,
    size: Callable[[Row], DataSize],
    *,
    ask: Ask = ask_agnet,
    say: Callable[[str], None] = lambda text: None,
    jobs: int = 1,
) -> Estimates:
    """Measure what is not done yet, on a sample of the images, and write it to `FILE`.

    A sample of each boxes file is proposed twice, the second time from what is there already, which leaves the time
    of starting up. ``agnet train --dry-run`` runs a few steps of each row. Nothing else is written.

    Args:
        size: Returns the size of a row's data set.
        ask: Runs agnet.
        say: Called with a line of text about every measurement.
        jobs: Number of units side by side. Each is measured alone, so that the sum is a little optimistic then.

    What cannot be measured, as when the sample suits no batch, is told and stays unknown.
    """
    found = dict(Estimates.read(study).measured)
    units = study.units
    with TemporaryDirectory(prefix="agnet-study-") as place:
        starting = ask(())[0]
        for unit in (one for one in units if one.kind == PROPOSE):
            try:
                found |= _measure_boxes(study, unit, Path(place), size(unit.row), starting, ask, say)
            except ConfigurationError as error:
                say(f"not measured: {error}")
    study.folder.mkdir(parents=True, exist_ok=True)
    write_text(study.folder / FILE, json.dumps({"format": "agnet study estimates", "units": found}, indent=1) + "\n")
    return Estimates.read(study, jobs)


def _measure_boxes(
    study: Study, unit: Unit, place: Path, size: DataSize, starting: float, ask: Ask, say: Callable[[str], None]
) -> dict[str, float]:
    """Seconds of a boxes file and of the rows that use it. Raises: `ConfigurationError` if it cannot be proposed."""
    found, boxes = {}, unit.target
    if not is_done(study, unit):
        say(f"measuring {unit.told}")
        boxes = place / unit.target.name
        found[unit.name] = _proposing(unit, boxes, size, ask)
    rows = {one.row.key: one.row for one in study.units if one.row.boxes_name == unit.row.boxes_name}
    feature_files = {path.name for path in boxes.parent.glob(f"{boxes.stem}.features-*.h5")}
    for row in rows.values():
        waiting = [one for one in study.units if one.row is row and one.kind != PROPOSE and not is_done(study, one)]
        if waiting:
            say(f"measuring {TRAIN} {row.key}")
            try:
                found |= _training(waiting, boxes, place, size.images, starting, ask, feature_files)
            except ConfigurationError as error:
                say(f"not measured: {error}")
    return found


def _proposing(unit: Unit, boxes: Path, size: DataSize, ask: Ask) -> float:
    """Seconds to propose all images of a data set; the sample stays at ``boxes``."""
    words = (PROPOSE, *unit.words, "--boxes", str(boxes), "--limit", str(size.sample))
    whole, again = ask(words)[0], ask(words)[0]
    return again + max(whole - again, 0.0) * sum(size.images.values()) / max(1, size.sample)


def _training(
    waiting: Sequence[Unit],
    boxes: Path,
    place: Path,
    images: Mapping[str, int],
    starting: float,
    ask: Ask,
    feature_files: set[str],
) -> dict[str, float]:
    """Seconds of each unit of a row.

    Features, if they are cached, are computed by the first unit that trains with them; their file is then added to
    ``feature_files``, those that are there.
    """
    row, found = waiting[0].row, {}
    words = (TRAIN, *row.train.words, "--boxes", str(boxes), "--run", str(place / "run"))
    _, told = ask((*words, "--dry-run", "--json"))
    try:
        rates = _Rates.of(json.loads(told))
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"agnet train --dry-run told no times: {first_line(error)}") from None
    trained = [unit for unit in waiting if unit.kind == TRAIN]
    measured = images.get(row.split or "test", images.get("query", 0) + images.get("gallery", 0))
    for unit in waiting:
        if unit.kind == EVALUATE:
            found[unit.name] = starting + rates.evaluating(measured)
        else:
            found[unit.name] = starting + rates.training(images)
    if trained and rates.feature_file and rates.feature_file not in feature_files:
        found[trained[0].name] += sum(images.get(split, 0) for split in ("train", "val")) * rates.features
        feature_files.add(rates.feature_file)
    return found

"""The table of a study: every row's measures over seeds, its paired difference from the control, and its cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from ...data.errors import AgnetError
from ...data.text import first_line
from ..measure.compare import Challenge, Comparison, Difference, compare_runs
from ..measure.metrics import MEASURES
from ..measure.searches import SEARCH_MEASURES
from ..measure.statistics import Spread, holm, resampled_test, spread
from ..runs.folder import measured_split, read_config
from .estimate import Estimates
from .records import is_done, read_record, record_file
from .study import EVALUATE, TRAIN, Row, Study

# Of images and videos, and of searches; the first of each is tested.
_SHOWN = (("top1", "mean_average_precision"), ("cmc1", "map"))
TITLES = {**SEARCH_MEASURES, **MEASURES}


@dataclass(frozen=True)
class Line:
    """A row of the table. What is not known yet is None or empty."""

    row: str
    note: str
    seeds: list[int]  #: seeds that are trained and evaluated
    wanted: int  #: number of seeds of the study
    measures: dict[str, Spread]  #: over the seeds that are there
    differences: dict[str, Difference] = field(default_factory=dict)  #: in each measure, row minus control
    p: float | None = None  #: that the tested measure is equal
    p_holm: float | None = None  #: corrected for all rows of the study, finished or not
    test: str = ""
    mcnemar: dict[int, float] = field(default_factory=dict)  #: p by seed, of images in pairs
    seconds: float | None = None  #: mean time of a training, with starting up
    parameters: int | None = None
    gflops: float | None = None  #: of one image

    @property
    def difference(self) -> Difference | None:
        """The difference in the tested measure."""
        return next(iter(self.differences.values()), None)

    @property
    def state(self) -> str:
        """What is missing, in words; empty for a finished row."""
        if len(self.seeds) == self.wanted:
            return ""
        return f"{len(self.seeds)} of {self.wanted} seeds" if self.seeds else "not finished"


@dataclass(frozen=True)
class Table:
    """The rows on one data set."""

    data: str
    title: str  #: that of videos, which tells whether their protocol leaks; else empty
    split: str
    images: int | None
    measures: dict[str, str]  #: titles by name, the tested measure first
    lines: list[Line]  #: the control first
    cautions: list[str] = field(default_factory=list)
    trouble: str = ""  #: why rows cannot be compared


@dataclass(frozen=True)
class SplitLine:
    """A row over repeated splits of one data set."""

    row: str
    value: Spread  #: of the tested measure, mean over seeds, by split
    difference: Difference | None  #: row minus control, with the interval of `resampled_test`
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class OverSplits:
    """The rows over repeated splits of one data set."""

    data: str
    measure: str
    splits: int
    lines: list[SplitLine]


@dataclass(frozen=True)
class Times:
    """Times that --dry-run told beforehand and those it took, in seconds, of commands that have both."""

    units: int
    predicted: float
    real: float


@dataclass(frozen=True)
class Results:
    """Everything a study has found so far."""

    name: str
    title: str
    control: str
    seeds: list[int]
    tables: list[Table]
    over_splits: list[OverSplits]
    times: Times | None

    def to_dict(self) -> dict[str, Any]:
        return {"format": "agnet study results", "format_version": 1, **asdict(self)}


def results_of(study: Study) -> Results:
    """Read what has finished and compare it. Rows with all seeds are compared; the others are shown as they are."""
    done = {unit.name for unit in study.units if is_done(study, unit)}
    tables = [_table(study, data, done) for data in study.datasets]
    repeated = _over_splits(study, tables) if len(study.splits) > 1 else []
    return Results(study.name, study.title, study.control, list(study.seeds), tables, repeated, _times(study))


def _table(study: Study, data: str, done: set[str]) -> Table:
    rows = study.rows_of(data)
    finished = {row.name: _finished(study, row, done) for row in rows}
    split = next((_split(study, row, seeds) for row in rows if (seeds := finished[row.name])), rows[0].split or "test")
    names = _SHOWN[1] if split == "query" else _SHOWN[0]
    lines = {row.name: _line(study, row, finished[row.name], split, names) for row in rows}
    complete = [row for row in rows if len(finished[row.name]) == len(study.seeds)]
    found: Comparison | None = None
    trouble = ""
    if len(complete) > 1 and complete[0].name == study.control:
        try:
            found = compare_runs([study.run(row) for row in complete], split, seeds=study.seeds)
        except AgnetError as error:
            trouble = first_line(error)
    if found is None:
        return Table(data, "", split, None, _titles(names), list(lines.values()), trouble=trouble)
    # Rows that are not finished count as tests, too: what is found early must not be easier to find.
    others = [1.0] * (len(rows) - len(complete))
    corrected = holm([*(challenge.p for challenge in found.challenges), *others])
    for row, challenge, p_holm in zip(complete[1:], found.challenges, corrected, strict=False):
        lines[row.name] = _compared(lines[row.name], challenge, names, p_holm)
    called = {str(study.run(row)): row.name for row in complete}
    cautions = [_renamed(caution, called) for caution in found.cautions]
    title = found.dataset if found.aggregate else ""
    return Table(data, title, split, found.images, _titles(names), list(lines.values()), cautions, trouble)


def _titles(names: Sequence[str]) -> dict[str, str]:
    return {name: TITLES[name] for name in names}


def _renamed(text: str, called: dict[str, str]) -> str:
    """Name rows instead of the paths of their folders."""
    for path in sorted(called, key=len, reverse=True):
        text = text.replace(path, called[path])
    return text


def _finished(study: Study, row: Row, done: set[str]) -> list[int]:
    units = [unit for unit in study.units if unit.kind == EVALUATE and unit.row.key == row.key]
    return [unit.seed for unit in units if unit.name in done and unit.seed is not None]


def _split(study: Study, row: Row, seeds: Sequence[int]) -> str:
    return row.split or measured_split(study.run(row) / f"seed-{seeds[0]}")


def _line(study: Study, row: Row, seeds: list[int], split: str, names: Sequence[str]) -> Line:
    runs = [study.run(row) / f"seed-{seed}" for seed in seeds]
    metrics = [json.loads((run / f"metrics-{split}.json").read_text(encoding="utf-8")) for run in runs]
    measures = {name: spread([float(one[name]) for one in metrics]) for name in names} if metrics else {}
    parameters, gflops = _cost(runs[0]) if runs else (None, None)
    return Line(
        row=row.name,
        note=row.note,
        seeds=seeds,
        wanted=len(study.seeds),
        measures=measures,
        seconds=_seconds(study, row, seeds),
        parameters=parameters,
        gflops=gflops,
    )


def _cost(run: Path) -> tuple[int | None, float | None]:
    from ..measure.complexity import run_cost  # PyTorch takes seconds to load

    try:
        cost = run_cost(run)
    except AgnetError:
        return None, None
    return cost.parameters, cost.gflops


def _seconds(study: Study, row: Row, seeds: Sequence[int]) -> float | None:
    trained = [unit for unit in study.units if unit.kind == TRAIN and unit.row.key == row.key and unit.seed in seeds]
    records = [read_record(record_file(study, unit)) for unit in trained]
    seconds = [record.seconds for record in records if record]
    return mean(seconds) if seconds else None


def _compared(line: Line, challenge: Challenge, names: Sequence[str], p_holm: float) -> Line:
    return replace(
        line,
        differences={name: challenge.differences[name] for name in names},
        p=challenge.p,
        p_holm=p_holm,
        test=challenge.test,
        mcnemar={test.second_seed: test.p for test in challenge.tests},
    )


def _over_splits(study: Study, tables: Sequence[Table]) -> list[OverSplits]:
    """Rows that are finished on all splits, the control among them."""
    found = []
    endings = tuple(f"-split-{split}" for split in study.splits)
    bases = dict.fromkeys(
        table.data.removesuffix(end) for table in tables for end in endings if table.data.endswith(end)
    )
    for base in bases:
        own = [table for table in tables if table.data in {f"{base}{end}" for end in endings}]
        measure = next(iter(own[0].measures))
        values = _by_row(own, measure)
        if study.control in values:
            share = _test_share(study, own[0])
            found.append(OverSplits(base, TITLES[measure], len(own), _split_lines(values, study.control, share)))
    return found


def _by_row(tables: Sequence[Table], measure: str) -> dict[str, list[float]]:
    """Mean over seeds by split, of rows that are finished on all splits."""
    values: dict[str, list[float]] = {}
    for table in tables:
        for line in table.lines:
            if not line.state:
                values.setdefault(line.row, []).append(line.measures[measure].mean)
    return {row: of_splits for row, of_splits in values.items() if len(of_splits) == len(tables)}


def _split_lines(values: dict[str, list[float]], control: str, test_share: float) -> list[SplitLine]:
    lines, others = [SplitLine(control, spread(values[control]), None, None, None)], []
    for row in (row for row in values if row != control):
        differences = [one - other for one, other in zip(values[row], values[control], strict=True)]
        interval, p = resampled_test(differences, test_share)
        others.append((row, Difference(mean(differences), interval), p))
    corrected = holm([p for _, _, p in others])
    lines += [
        SplitLine(row, spread(values[row]), difference, p, p_holm)
        for (row, difference, p), p_holm in zip(others, corrected, strict=True)
    ]
    return lines


def _test_share(study: Study, table: Table) -> float:
    """Number of measured images divided by that of training images."""
    (control, *_) = study.rows_of(table.data)
    images: Any = read_config(study.run(control) / f"seed-{study.seeds[0]}")["boxes"].get("images", {})
    return float(images.get(table.split, 0)) / max(1, int(images.get("train", 0)))


def _times(study: Study) -> Times | None:
    """Measured times and those it took, of units that have finished and were measured beforehand."""
    measured, told = Estimates.read(study).measured, []
    for unit in study.units:
        record = read_record(record_file(study, unit))
        if unit.name in measured and record and record.code == 0:
            told.append((measured[unit.name], record.seconds))
    return Times(len(told), sum(one for one, _ in told), sum(real for _, real in told)) if told else None

"""`agnet runs`: a table of all runs below a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .field_options import Choice

if TYPE_CHECKING:
    from ..training.runs.overview import RunSummary, Score

_ORDERS: dict[str, str] = {
    "run": "run",
    "title": "title",
    "model": "model",
    "backbone": "backbone",
    "data": "data",
    "seeds": "seeds",
    "epochs": "epochs",
    "chosen": "chosen",
    "validation": "validation",
    "test": "test",
    "n": "tested",
    "time": "seconds",
    "state": "state",
}
_COLUMNS = tuple(_ORDERS)


@click.command(short_help="List runs with their data, epochs and scores.")
@click.argument("folder", metavar="[FOLDER]", default="runs", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    metavar="COLUMN",
    default="run",
    show_default=True,
    type=Choice([*_COLUMNS, *(f"-{name}" for name in _COLUMNS)]),
    help=f"COLUMN to sort by, or -COLUMN for descending order: {', '.join(_COLUMNS)}.",
)
@click.option("--seeds", "each_seed", is_flag=True, help="Each seed in a row of its own, rather than their means.")
@options.json_
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
def runs(folder: Path, sort: str, each_seed: bool, as_json: bool, as_csv: bool) -> None:
    """List every run in FOLDER or below it: model, data, epochs, scores, time, and what is not finished.

    Several seeds of one run are one row, with mean ± standard deviation of their scores. The files of the runs are read
    as they are: nothing is measured.
    """
    from ..data.text import csv_text, table
    from ..training.runs.overview import by_seeds, runs_below

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if not folder.is_dir():
        raise click.ClickException(f"there is no folder {folder}; name the one that your runs are in")
    found = runs_below(folder)
    found = _sorted(found if each_seed else by_seeds(found), sort)
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in found], indent=1))
    elif as_csv:
        click.echo(csv_text(_csv_rows(found)), nl=False)
    elif found:
        click.echo("\n".join(table(_rows(found), right=_numbers(found))))
    else:
        raise click.ClickException(f"there is no run in {folder} or below it; agnet train makes one")


def _sorted(found: Sequence[RunSummary], sort: str) -> list[RunSummary]:
    """Sort by a column; runs without a value come last in either order."""
    field = _ORDERS[sort.removeprefix("-")]
    known = [run for run in found if _key(run, field) not in (None, "", ())]
    ordered = sorted(known, key=lambda run: _key(run, field), reverse=sort.startswith("-"))
    return [*ordered, *(run for run in found if run not in known)]


def _key(run: RunSummary, field: str) -> Any:
    value = getattr(run, field)
    return value.value if field in ("validation", "test") and value else value


def _rows(found: Sequence[RunSummary]) -> list[list[str]]:
    """The cells of the table, its header first, without columns in which no run has a value."""
    columns = zip(_COLUMNS, *map(_cells, found), strict=True)
    return [list(row) for row in zip(*(column for column in columns if any(column[1:])), strict=True)]


def _cells(run: RunSummary) -> list[str]:
    from ..data.text import duration

    return [
        *(run.run, run.title, run.model, run.backbone, run.data, _listed(run.seeds)),
        "" if run.epochs is None else f"{run.epochs}/{run.asked}",
        _listed(run.chosen),
        *(_score(run.validation), _score(run.test)),
        "" if run.tested is None else f"{run.tested:,}",
        "" if run.seconds is None else duration(run.seconds),
        f"{run.state}: {run.note}" if run.note else run.state,
    ]


def _numbers(found: Sequence[RunSummary]) -> set[int]:
    """Places of the columns that are flush right."""
    header = _rows(found)[0]
    return {header.index(name) for name in ("epochs", "chosen", "validation", "test", "n", "time") if name in header}


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _score(score: Score | None) -> str:
    """Format a score, as in "91.2%", "91.2 ± 0.4%" or "mAP 45.1%"."""
    if score is None:
        return ""
    value = f"{100 * score.value:.1f}" + ("" if score.sd is None else f" ± {100 * score.sd:.1f}")
    return f"{'' if score.measure == 'top-1' else f'{score.measure} '}{value}%"


def _csv_rows(found: Sequence[RunSummary]) -> list[list[object]]:
    scores = [f"{part}{end}" for part in ("validation", "test") for end in ("", "_sd", "_measure")]
    names = ["run", "title", "model", "backbone", "data", "seeds", "epochs", "epochs_asked", "chosen", *scores]
    rows: list[list[object]] = [[*names, "n", "seconds", "state", "note"]]
    for run in found:
        both = [value for score in (run.validation, run.test) for value in _score_cells(score)]
        rows.append(
            [
                *(run.run, run.title, run.model, run.backbone, run.data, _listed(run.seeds)),
                *(run.epochs, run.asked, _listed(run.chosen), *both, run.tested, run.seconds, run.state, run.note),
            ]
        )
    return rows


def _score_cells(score: Score | None) -> list[object]:
    return [None, None, None] if score is None else [score.value, score.sd, score.measure]

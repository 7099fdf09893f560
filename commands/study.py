"""`agnet study`: configurations trained with several seeds, compared with a control in one table."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .configuration_file import parse_value
from .study_file import Given, StudyFile

if TYPE_CHECKING:
    from ..training.studies.study import Study

_TAKE_SEVERAL = ("--devices", "--only", "--restart")


class _StudyCommand(click.Command):
    """A command with options that take all words up to the next option: ``--devices cuda:0 cuda:1``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, options.one_each(args, _TAKE_SEVERAL))


def _check_setting(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """Parse ``train.epochs=5`` of ``--set`` into values by command; the callback of the option."""
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        command, dot, option = name.partition(".")
        if not (equals and dot and command in ("propose", "train", "evaluate")):
            raise click.BadParameter(f"wanted such as train.epochs=5, got {word!r}")
        found.setdefault(command, {})[option.replace("_", "-")] = parse_value(text)
    return found


@click.command(cls=_StudyCommand, short_help="Train and compare rows of a table, each with several seeds.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", help="Name of the data set, as for agnet propose, in place of the file's.")
@click.option("--root", help="Folder of the data set, as for agnet propose, in place of the file's.")
@click.option("--csv", help="CSV file that lists the images, as for agnet propose, in place of the file's.")
@click.option("--limit", type=click.IntRange(1), help="Maximum number of images of each data set, for a trial.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="COMMAND.OPTION=VALUE",
    callback=_check_setting,
    help="Default of all rows, in place of the file's: train.backbone=densenet121. A row's own value stays. May be "
    "given several times.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Output folder.  [default: studies-out/NAME]",
)
@click.option("--only", multiple=True, metavar="ROW...", help="Rows to run, and the control; the table has all.")
@click.option(
    "--restart",
    multiple=True,
    metavar="ROW...",
    help="Rows whose runs are removed and trained anew, as after a change of their options.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Number of commands side by side.  [default: one per device, else 1]"
)
@click.option(
    "--devices", multiple=True, metavar="DEVICE...", help="Devices for training, one command each: cuda:0 cuda:1."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be run, with its time measured on a sample of the images and a few training steps; only "
    "these measurements are written.",
)
@click.option("--table", "only_table", is_flag=True, help="Only print and write the table of what has finished.")
@options.json_
def study(
    file: Path,
    dataset: str | None,
    root: str | None,
    csv: str | None,
    limit: int | None,
    settings: dict[str, Any],
    output: Path | None,
    only: tuple[str, ...],
    restart: tuple[str, ...],
    jobs: int | None,
    devices: tuple[str, ...],
    dry_run: bool,
    only_table: bool,
    as_json: bool,
) -> None:
    """Propose, train and evaluate every row of FILE with every seed, and compare the rows with the control.

    FILE is a YAML file: a control and other rows, each with options of agnet propose, train and evaluate. Each command
    runs in a process of its own. After an interruption the same command resumes; nothing finished is repeated. The
    table is printed, and written as text, Markdown, CSV, HTML and JSON into the output folder.
    """
    if dry_run and only_table:
        raise click.UsageError("--dry-run and --table exclude each other")
    from ..training.studies.records import check_unchanged, forget
    from ..training.studies.running import run_study

    given = {"dataset": dataset, "root": root, "csv": csv, "limit": limit}
    data = {name: value for name, value in given.items() if value is not None}
    read = StudyFile(file, Given(data, settings, output))
    found = read.study()
    _check_rows(found, "--only", only)
    _check_rows(found, "--restart", restart)
    say, chosen = partial(click.echo, err=True), found.only({*only, *restart}) if only else found
    if dry_run:
        _plan(read, chosen, jobs or len(devices) or 1, as_json)
        return
    for row in forget(found, list(restart)):
        say(f"removed the runs of {row.key}")
    check_unchanged(found)
    failed = []
    if not only_table:
        _introduce(chosen, jobs or len(devices) or 1)
        try:
            failed = [one for one in run_study(chosen, jobs=jobs, devices=devices, say=say) if one.code]
        except KeyboardInterrupt:
            say("\nInterrupted: what has finished is kept, and training saved its state; the same command resumes.")
            sys.exit(130)
    _report(found, as_json)
    if failed:
        raise click.ClickException(f"{len(failed)} commands failed; the same command tries them again")


def _check_rows(found: Study, option: str, names: tuple[str, ...]) -> None:
    from ..data.spelling import did_you_mean

    known = {row.name for row in found.rows}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no row {name!r}{did_you_mean(name, known)}", param_hint=option)


def _introduce(found: Study, jobs: int) -> None:
    from ..data.text import rough_time
    from ..training.studies.estimate import Estimates
    from ..training.studies.records import is_done

    units = found.units
    waiting = [unit for unit in units if not is_done(found, unit)]
    left = Estimates.read(found, jobs).left(waiting)
    told = f"about {rough_time(left)}" if left is not None else "time unknown: --dry-run measures it"
    told = told if waiting else "nothing left to run"
    click.echo(f"{found.title}: {len(units) - len(waiting)} of {len(units)} commands are done, {told}", err=True)


def _plan(read: StudyFile, found: Study, jobs: int, as_json: bool) -> None:
    from ..training.studies.estimate import measure
    from ..training.studies.plan import plan_text, plan_to_dict
    from ..training.studies.records import check_unchanged

    check_unchanged(found)
    estimates = measure(found, read.size, say=partial(click.echo, err=True), jobs=jobs)
    click.echo(json.dumps(plan_to_dict(found, estimates)) if as_json else plan_text(found, estimates))


def _report(found: Study, as_json: bool) -> None:
    from ..training.studies.report import write_results
    from ..training.studies.report_text import results_text
    from ..training.studies.table import results_of

    results = results_of(found)
    file = write_results(found.folder, results)
    click.echo(file.read_text(encoding="utf-8") if as_json else results_text(results))
    click.echo(f"written: {found.folder}/results.txt, .md, .csv, .html, .json", err=True)

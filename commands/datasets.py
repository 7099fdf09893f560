"""`agnet datasets`: list, download and verify data sets."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..data.sets.catalogue import CATALOGUE
from ..data.text import counted, rows_called
from ..proposals.settings import ProposalSettings
from . import options
from .field_options import SettingsCommand, field_option
from .pictures import say_what_cannot_be_drawn
from .places import root_of_dataset, root_of_environment
from .progress import advance, close, progress_bar

if TYPE_CHECKING:
    from ..data.index import DatasetIndex


@click.command(cls=SettingsCommand, short_help="List, download and verify data sets.")
@click.argument("dataset", metavar="[NAME]", required=False, type=options.Choice(list(CATALOGUE)))
@options.dataset_root
@click.option("--download", is_flag=True, help="Download and extract NAME, unless its owners require a signed form.")
@click.option(
    "--verify",
    is_flag=True,
    help="Count and decode the images or clips of NAME and find duplicates; the exit code is 1 if some are missing or "
    "broken.",
)
@click.option(
    "--csv",
    "list_file",
    type=click.Path(path_type=Path),
    help="CSV file that lists the images of the data set csv, or the clips of clips, with --verify.",
)
@options.split_number
@options.group_pattern
@click.option("--jobs", type=click.IntRange(1), help="Number of worker processes of --verify.  [default: one per core]")
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Picture FILE for near-duplicates across splits, with --verify."
)
@field_option(ProposalSettings, "max_pixels")
@options.json_
@click.pass_context
def datasets(
    context: click.Context,
    dataset: str | None,
    root: Path | None,
    download: bool,
    verify: bool,
    list_file: Path | None,
    split_number: int | None,
    group_pattern: str,
    jobs: int | None,
    sheet: Path | None,
    max_pixels: int,
    as_json: bool,
) -> None:
    """List the known data sets and which of them are on this machine; with NAME, show the details of one.

    An interrupted download resumes. An archive that was downloaded by hand is used, too.
    """
    from ..data.sets.availability import details_text, look_up, table_text

    if dataset is None and (download or verify):
        raise click.UsageError(f"--{'download' if download else 'verify'} needs the NAME of a data set")
    limited = context.get_parameter_source("max_pixels") is click.core.ParameterSource.COMMANDLINE
    if (list_file or split_number or group_pattern or jobs or sheet or limited) and not verify:
        raise click.UsageError("--csv, --split-number, --group-pattern, --jobs, --sheet and --max-pixels need --verify")
    given, root = root, root or root_of_environment() or Path("datasets")
    if download and dataset:
        _download(dataset, root)
    if sheet and dataset and CATALOGUE[dataset].of_clips:
        raise click.UsageError("--sheet draws images that look alike; clips are not compared by their looks")
    if verify and dataset:
        opened = _open(dataset, given, list_file, split_number, group_pattern)
        _examine(opened, jobs, sheet, max_pixels, as_json)
        return
    found = [look_up(name, root) for name in ([dataset] if dataset else CATALOGUE)]
    if as_json:
        told = [one.to_dict() for one in found]
        click.echo(json.dumps(told[0] if dataset else told))
    elif download:
        click.echo(root / found[0].entry.folder)
    elif dataset:
        click.echo(details_text(found[0]))
    else:
        click.echo(table_text(found))
        click.echo(f"searched {root}; agnet datasets NAME shows the details of one", err=True)


def _download(dataset: str, root: Path) -> None:
    from ..data.sets.fetch import acquire

    bar: Any = None
    shown = ""

    def progress(what: str, done: int, total: int | None) -> None:
        nonlocal bar, shown
        if what != shown:
            close(bar)
            bar, shown = progress_bar(what, total, "B"), what
            bar.initial = bar.n = done  # bytes of an earlier run count for the progress, but not for the speed
        bar.update(done - bar.n)

    try:
        archives = acquire(dataset, root, progress)
    except KeyboardInterrupt:
        close(bar)
        click.echo(f"\nInterrupted. The partial download is kept in {root}: run the same command to resume", err=True)
        sys.exit(130)
    finally:
        close(bar)
    for archive in archives:
        click.echo(f"extracted: {archive}; the archive may be deleted", err=True)


def _open(
    dataset: str, root: Path | None, list_file: Path | None, split_number: int | None, group_pattern: str
) -> DatasetIndex:
    from ..data.sets.catalogue import open_dataset

    return open_dataset(
        dataset,
        root_of_dataset(dataset, root, list_file),
        val_fraction=0,
        list_file=list_file,
        split_number=split_number,
        group_pattern=group_pattern,
        any_counts=True,
        say=partial(click.echo, err=True),
    )


def _examine(
    index: DatasetIndex,
    jobs: int | None,
    sheet: Path | None,
    max_pixels: int,
    as_json: bool,
) -> None:
    from ..data.drawing import check_picture_path, save_picture
    from ..data.sets.examination import examine
    from ..data.sets.examination_report import examination_text, near_duplicate_sheet

    if sheet:
        check_picture_path(sheet)
    dataset, root = index.dataset, index.root
    entry = CATALOGUE[dataset]
    with progress_bar("verify", len(index)) as bar:
        found = examine(
            index,
            classes=entry.classes,
            counts=entry.counts_of(int(str(index.opened_with.get("split_number", 1)))),
            jobs=jobs,
            max_pixels=max_pixels,
            progress=lambda done, bad: advance(bar, done, {"unreadable": bad} if bad else {}),
        )
    click.echo(json.dumps({"root": str(root), **found.to_dict()}) if as_json else examination_text(found))
    if sheet and found.near_duplicates:
        say_what_cannot_be_drawn([*index.classes, *index.names])
        picture, count = near_duplicate_sheet(found, root, max_pixels)
        save_picture(picture, sheet)
        click.echo(
            f"written: {sheet}, with {count:,} of the {len(found.near_duplicates):,} near-duplicate pairs", err=True
        )
    elif sheet:
        click.echo(f"no near-duplicates across splits: {sheet} is not written", err=True)
    if not found.sound:
        called = rows_called(index.of_clips)
        broken = f"{counted(len(found.unreadable), called)} cannot be read" if found.unreadable else ""
        raise click.ClickException(f"{dataset} under {root}: {', '.join(filter(None, [*found.wrong, broken]))}")

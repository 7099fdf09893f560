"""`agnet propose`: propose the regions of every image (stage 1)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..data.names import NONE, OFFICIAL, PROTOCOLS
from ..data.sets.catalogue import CATALOGUE
from ..proposals.settings import CLIP_FRAMES, ProposalSettings, name_of_weights
from . import options
from .completion import complete_photographs
from .field_options import SettingsCommand, field_option, field_options, settings_from
from .next_step import root_words, say_next
from .places import root_of_dataset
from .progress import advance, progress_bar

if TYPE_CHECKING:
    from ..data.index import DatasetIndex
    from ..proposals.run import Summary

# Defaults of --max-unreadable: up to three broken files are no reason to fail, even in a small data set.
_MAX_UNREADABLE, _A_FEW = 0.01, 3


@dataclass(frozen=True)
class _Asked:
    """Options that select the data set."""

    source: str | None
    dataset: str | None
    root: Path | None
    list_file: Path | None
    without_leaked_frames: bool
    any_counts: bool
    split_seed: int
    split_number: int | None
    protocol: str
    group_pattern: str
    val_fraction: float
    limit: int | None


@dataclass(frozen=True)
class _Run:
    """Options for the output and for the workers."""

    boxes: Path
    jobs: int | None
    no_preview: bool
    restart: bool
    max_unreadable: float | None


class _ProposeCommand(SettingsCommand):
    """A command with the settings of proposals. Of a data set of clips, frames are needed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        entry = CATALOGUE.get(str(typed.get("dataset") or typed.get("source")))
        if entry is not None and entry.of_clips:
            ctx.default_map = {"frames": CLIP_FRAMES, **(ctx.default_map or {})}
        return super().parse_args(ctx, args)


@click.command(cls=_ProposeCommand, short_help="Propose the salient regions of every image (stage 1).")
@click.argument("source", metavar="[PHOTOS]", required=False, shell_complete=complete_photographs)
@click.option("--dataset", type=options.Choice(list(CATALOGUE)), help="Name of a known data set, instead of PHOTOS.")
@options.dataset_root
@click.option(
    "--csv",
    "list_file",
    type=click.Path(path_type=Path),
    help="CSV file that lists the images, instead of PHOTOS: columns path (relative to --root), label and optionally "
    "split. With --dataset clips it lists videos or folders of frames, and may have the column group.",
)
@options.boxes
@click.option("--limit", type=int, help="Maximum number of images, for a trial; classes and splits keep their shares.")
@click.option(
    "--val-fraction",
    type=float,
    default=0.1,
    show_default=True,
    help="Fraction of the training images that is held out for validation.",
)
@click.option(
    "--split-seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the random splits: validation, and test if the data set has none.",
)
@options.split_number
@click.option(
    "--protocol",
    type=options.Choice(PROTOCOLS),
    default=OFFICIAL,
    show_default=True,
    help="Split of hmdb51: that of its lists, or the one of a tutorial, which leaks test clips, for comparison only.",
)
@options.group_pattern
@click.option(
    "--without-leaked-frames",
    is_flag=True,
    help="Exclude the test frames of auc-v2 that reportedly show a driver from the training set.",
)
@click.option(
    "--any-counts",
    is_flag=True,
    help="Accept a known data set whose numbers of images differ from the published ones.",
)
@click.option("--jobs", type=click.IntRange(1), help="Number of worker processes.  [default: one per core]")
@click.option("--no-preview", is_flag=True, help="Leave preview photographs out of the boxes file.")
@click.option("--restart", is_flag=True, help="Start from scratch instead of resuming.")
@click.option(
    "--max-unreadable",
    type=click.FloatRange(0, 1),
    help="Maximum fraction of unreadable images; above it the command fails.  "
    f"[default: {_MAX_UNREADABLE}, but {_A_FEW} images are always accepted]",
)
@field_options(ProposalSettings, without=("weights",))
@field_option(ProposalSettings, "weights", default=None, type=click.Path())
@click.pass_context
def propose(context: click.Context, **_: Any) -> None:
    """Stage 1: propose the salient regions of every image and write them to one HDF5 file.

    PHOTOS is a folder with one folder of photographs per class, a CSV file that lists photographs, or the name of a
    known data set under --root: agnet propose photos, agnet propose food101.

    After an interruption the same command resumes.
    """
    from ..data.boxes.reader import read_listing
    from ..data.text import rows_called
    from ..proposals.run import PART_IMAGES, propose_dataset

    run = settings_from(context, _Run)
    weights = Path(context.params["weights"]) if context.params["weights"] else None
    settings = proposal_settings(context)
    index = data_set(context)
    _say_what_was_found(index)
    click.echo(f"settings: {', '.join(f'{k}={v}' for k, v in settings.to_dict().items())}", err=True)
    try:
        with progress_bar("propose", len(index)) as bar:
            summary = propose_dataset(
                index,
                settings,
                run.boxes,
                weights=weights,
                jobs=run.jobs,
                restart=run.restart,
                previews=not run.no_preview,
                progress=lambda done, bad: advance(bar, done, {"unreadable": bad} if bad else {}),
            )
    except KeyboardInterrupt:
        finished = f"Every {PART_IMAGES} finished {rows_called(index.of_clips)} are saved"
        click.echo(f"\nInterrupted. {finished}: run the same command to resume", err=True)
        sys.exit(130)
    _say_what_was_done(summary, run.max_unreadable, index.of_clips)
    model = ["--model", "plain"] if settings.method == NONE else []
    say_next("train", "--boxes", run.boxes, *model, *root_words(read_listing(run.boxes), index.root))


def proposal_settings(context: click.Context) -> ProposalSettings:
    """Build the proposal settings of a call.

    Raises: `ConfigurationError` for incompatible values, `CheckpointError` for an unreadable weights file.
    """
    weights = Path(context.params["weights"]) if context.params["weights"] else None
    known: dict[str, object] = {"weights": name_of_weights(weights)}
    if context.params["method"] == NONE:
        known |= {"primary": 0, "kinds": NONE}
    return settings_from(context, ProposalSettings, **known)


def data_set(context: click.Context) -> DatasetIndex:
    """Open the data set of a call.

    Raises: `DatasetError` if it is missing, `click.UsageError` for incompatible options.
    """
    from ..data.sets.catalogue import open_dataset

    asked = settings_from(context, _Asked)
    dataset, root, list_file = _what_is_meant(asked.source, asked.dataset, asked.root, asked.list_file)
    if asked.without_leaked_frames and dataset != "auc-v2":
        raise click.UsageError("--without-leaked-frames is for --dataset auc-v2")
    if asked.any_counts and CATALOGUE[dataset].is_own:
        raise click.UsageError(f"--any-counts changes nothing with --dataset {dataset}: no counts are published for it")
    return open_dataset(
        dataset,
        root_of_dataset(dataset, root, list_file),
        val_fraction=asked.val_fraction,
        split_seed=asked.split_seed,
        split_number=asked.split_number,
        protocol=asked.protocol,
        group_pattern=asked.group_pattern,
        limit=asked.limit,
        list_file=list_file,
        leaked_frames=not asked.without_leaked_frames,
        any_counts=asked.any_counts,
        say=partial(click.echo, err=True),
    )


def _say_what_was_found(index: DatasetIndex) -> None:
    from ..data.index import VAL_IS_TEST, splits_told
    from ..data.text import counted, rows_called, tally

    say = partial(click.echo, err=True)
    parts = {split: int((index.splits == split).sum()) for split in splits_told(index.is_retrieval)}
    counts = ", ".join(f"{count:,} {split}" for split, count in parts.items())
    classes = "persons" if index.is_retrieval else "classes"
    found = f"{counted(len(index), rows_called(index.of_clips))} of {counted(len(index.classes), classes)}"
    say(f"{index.title}: {found} ({counts})")
    if index.is_retrieval and not all(index.cameras):
        unknown = counted(len(index) - sum(map(bool, index.cameras)), "images")
        say(f"{unknown} of unknown camera: also searched for among images of the same camera")
    if index.val_is_test:
        say(VAL_IS_TEST)
    if flaws := CATALOGUE[index.dataset].flaws:
        say(f"known issues of {index.dataset}: {flaws}")
    if index.left_out:
        say(f"left out: {tally(index.left_out)}")
    if difference := index.opened_with.get("not_as_distributed"):
        say(f"Warning: not as distributed: {difference}")


def _say_what_was_done(summary: Summary, max_unreadable: float | None, of_clips: bool) -> None:
    """Print the boxes file on stdout and everything else on stderr.

    Raises: `click.ClickException` if too many images are unreadable.
    """
    from ..data.text import counted, printable, rows_called

    say = partial(click.echo, err=True)
    if summary.reused:
        say(f"{summary.reused:,} of them {'was' if summary.reused == 1 else 'were'} already in the file")
    if summary.few_keypoints:
        whole = "frame" if of_clips else "image"
        has, its = ("has", "its") if summary.few_keypoints == 1 else ("have", "their")
        say(f"{summary.few_keypoints:,} {has} too few keypoints: {its} regions are the whole {whole}")
    if summary.previews:
        pictures = "pictures of clips" if of_clips else "photographs"
        are = "is" if summary.previews == 1 else "are"
        say(f"{counted(summary.previews, pictures)} {are} in {summary.boxes} as previews; --no-preview leaves them out")
    click.echo(summary.boxes)
    if summary.unreadable:
        say(f"cannot be read: {printable(summary.first_failure)}")
    accepted = _MAX_UNREADABLE if max_unreadable is None else max_unreadable
    for count, what in (
        (summary.unreadable - summary.postponed, "could not be read"),
        (summary.postponed, "were postponed, for no known fault of their own: the same command tries them again"),
    ):
        share = count / summary.images
        some = f"{count:,} of {summary.images:,} {rows_called(of_clips)} ({share:.1%})"
        complaint = f"{some} {what}; see the table failures in {summary.boxes}"
        if share > accepted and (max_unreadable is not None or count > _A_FEW):
            raise click.ClickException(f"{complaint}; --max-unreadable {math.ceil(share * 1000) / 1000} accepts that")
        if count:
            say(complaint)


def _what_is_meant(
    source: str | None, dataset: str | None, root: Path | None, list_file: Path | None
) -> tuple[str, Path | None, Path | None]:
    """Return the name of the data set, its root and its list, whichever way they were given.

    Raises: `DatasetError` if PHOTOS does not exist, `click.UsageError` if something is missing or given twice.
    """
    from ..data.errors import DatasetError
    from ..data.spelling import did_you_mean

    if source is None:
        if dataset is None and list_file is None:
            raise click.UsageError("name a folder of class folders, a CSV file or a data set: agnet propose photos")
        return dataset or "csv", root, list_file
    if dataset is not None or list_file is not None:
        other = f"--dataset {dataset}" if dataset is not None else f"--csv {list_file}"
        raise click.UsageError(f"{source} and {other} both name a data set: give one of them")
    named = [name for name in CATALOGUE if not CATALOGUE[name].is_own]
    path = Path(source)
    if source in named:
        if path.is_dir():
            click.echo(f"Note: {source} is taken as the known data set; for the folder, write ./{source}", err=True)
        return source, root, None
    if path.is_dir():
        if root is not None:
            raise click.UsageError(f"{source} is already the folder of class folders: leave out --root {root}")
        return "folder", path, None
    if path.exists():
        return "csv", root, path
    folders = [entry.name for entry in Path().iterdir() if entry.is_dir()] if path.parent == Path() else []
    raise DatasetError(
        f"there is no folder or file {source}, nor a data set of that name{did_you_mean(source, [*named, *folders])}"
    )

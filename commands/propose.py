"""`agnet propose`: stage 1."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from ..data.names import KINDS, NONE
from ..data.sets.catalogue import CATALOGUE
from ..proposals.settings import (
    METHODS,
    MIXTURES,
    NETWORKS,
    SLOT_ORDERS,
    ProposalSettings,
    name_of_weights,
)
from . import options
from .next_step import root_words, say_next
from .places import root_of_dataset
from .progress import advance, progress_bar

# Unless told otherwise: a broken file or three are no reason to fail, however small the data set is.
_MAX_UNREADABLE, _A_FEW = 0.01, 3


@click.command()
@click.argument("source", metavar="[PHOTOS]", required=False)
@click.option("--dataset", type=options.Choice(list(CATALOGUE)), help="Name of the data set; the same as PHOTOS.")
@options.dataset_root
@click.option(
    "--csv",
    "list_file",
    type=click.Path(path_type=Path),
    help="List of images, with --dataset csv: columns path (relative to --root), label and, if there are parts, split.",
)
@click.option(
    "--without-leaked-frames",
    is_flag=True,
    help="Leave out the test frames of auc-v2 that reportedly show a driver of train.",
)
@click.option("--any-counts", is_flag=True, help="Take a named data set whose numbers are not those of the book.")
@options.boxes
@click.option(
    "--method",
    type=options.Choice(list(METHODS)),
    default=ProposalSettings.method,
    show_default=True,
    help="What proposes: the paper's keypoints, a network (needs weights), a control that does not look, or nothing, "
    "for models without regions.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help=f"A FILE with the weights of {' or '.join(NETWORKS)}; default: torchvision's, downloaded.",
)
@click.option(
    "--primary", type=int, default=ProposalSettings.primary, show_default=True, help="Primary regions an image, κ."
)
@click.option(
    "--kinds",
    type=options.Choice(KINDS),
    default=ProposalSettings.kinds,
    show_default=True,
    help="Which regions an image has; 36 at most, dropping pairs of the last primaries.",
)
@click.option(
    "--image-size",
    type=int,
    default=ProposalSettings.image_size,
    show_default=True,
    help="Side on which keypoints are found.",
)
@click.option(
    "--mixture",
    type=options.Choice(MIXTURES),
    default=ProposalSettings.mixture,
    show_default=True,
    help="Who fits the mixture of Gaussians to the keypoints.",
)
@click.option(
    "--slot-order",
    type=options.Choice(list(SLOT_ORDERS)),
    default=ProposalSettings.slot_order,
    show_default=True,
    help="Which mixture component is region 0, 1, ...",
)
@click.option(
    "--seed",
    type=int,
    default=ProposalSettings.seed,
    show_default=True,
    help="Seed of k-means and of random boxes.",
)
@click.option(
    "--split-seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the parts that are drawn: validation, and test where none is given.",
)
@click.option(
    "--val-fraction", type=float, default=0.1, show_default=True, help="Share of train that is cut off for validation."
)
@click.option("--limit", type=int, help="At most this many images, in the shares of classes and splits, for a trial.")
@click.option("--jobs", type=click.IntRange(1), help="Worker processes; default: all cores.")
@click.option("--no-preview", is_flag=True, help="Put no photographs into the file for people to look at.")
@click.option("--restart", is_flag=True, help="Start over instead of going on with what is there.")
@click.option(
    "--max-unreadable",
    type=click.FloatRange(0, 1),
    help="Share of unreadable images above which it fails.  "
    f"[default: {_MAX_UNREADABLE}, but not for {_A_FEW} images or fewer]",
)
@options.max_pixels("Training and prediction keep to the same.")
def propose(
    source: str | None,
    dataset: str | None,
    root: Path | None,
    list_file: Path | None,
    without_leaked_frames: bool,
    any_counts: bool,
    boxes: Path,
    method: str,
    weights: Path | None,
    primary: int,
    kinds: str,
    image_size: int,
    mixture: str,
    slot_order: str,
    seed: int,
    split_seed: int,
    val_fraction: float,
    limit: int | None,
    jobs: int | None,
    no_preview: bool,
    restart: bool,
    max_unreadable: float | None,
    max_pixels: int,
) -> None:
    """Stage 1: find the salient regions of every image and write them to one HDF5 file.

    PHOTOS is a folder with a folder of photographs for each class, a CSV file that lists photographs, or the name of a
    known data set, which is looked for under --root: agnet propose photos, agnet propose food101.

    Interrupt it whenever you like: the same command goes on where it stopped.
    """
    from ..data.boxes.reader import read_listing
    from ..data.index import VAL_IS_TEST
    from ..data.sets.catalogue import open_dataset
    from ..data.text import printable, tally
    from ..proposals.run import PART_IMAGES, propose_dataset

    dataset, root, list_file = _what_is_meant(source, dataset, root, list_file)
    if weights and method not in NETWORKS:
        raise click.UsageError(f"--weights is for the methods {' and '.join(NETWORKS)}")
    if method == NONE:
        primary, kinds = 0, NONE
    if without_leaked_frames and dataset != "auc-v2":
        raise click.UsageError("--without-leaked-frames is for --dataset auc-v2")
    if any_counts and dataset in ("folder", "csv"):
        raise click.UsageError(f"--any-counts changes nothing with --dataset {dataset}: no book has its numbers")
    root = root_of_dataset(dataset, root, list_file)
    settings = ProposalSettings(
        method=method,
        primary=primary,
        kinds=kinds,
        weights=name_of_weights(weights),
        image_size=image_size,
        mixture=mixture,
        slot_order=slot_order,
        seed=seed,
        max_pixels=max_pixels,
    )
    _refuse_idle_settings(settings)
    index = open_dataset(
        dataset,
        root,
        val_fraction=val_fraction,
        split_seed=split_seed,
        limit=limit,
        list_file=list_file,
        leaked_frames=not without_leaked_frames,
        any_counts=any_counts,
    )
    parts = {split: int((index.splits == split).sum()) for split in ("train", "val", "test")}
    click.echo(
        f"{index.title}: {len(index):,} images of {len(index.classes)} classes "
        f"({', '.join(f'{count:,} {split}' for split, count in parts.items())})",
        err=True,
    )
    if index.val_is_test:
        click.echo(VAL_IS_TEST, err=True)
    if flaws := CATALOGUE[dataset].flaws:
        click.echo(f"known of {dataset}: {flaws}", err=True)
    if index.left_out:
        click.echo(f"left out: {tally(index.left_out)}", err=True)
    if difference := index.opened_with.get("not_as_distributed"):
        click.echo(f"Warning: not as distributed: {difference}", err=True)
    click.echo(f"settings: {', '.join(f'{k}={v}' for k, v in settings.to_dict().items())}", err=True)
    try:
        with progress_bar("propose", len(index)) as bar:
            summary = propose_dataset(
                index,
                settings,
                boxes,
                weights=weights,
                jobs=jobs,
                restart=restart,
                previews=not no_preview,
                progress=lambda done, bad: advance(bar, done, {"unreadable": bad} if bad else {}),
            )
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. Every {PART_IMAGES} finished images are kept: run the same to go on", err=True)
        sys.exit(130)
    if summary.reused:
        click.echo(f"{summary.reused:,} of them were there already", err=True)
    if summary.few_keypoints:
        click.echo(f"{summary.few_keypoints:,} have too few keypoints: their regions are the whole image", err=True)
    if summary.previews:
        click.echo(
            f"{summary.previews:,} photographs are in {boxes} as previews; --no-preview leaves them out", err=True
        )
    click.echo(boxes)
    if summary.unreadable:
        click.echo(f"cannot be read: {printable(summary.first_failure)}", err=True)
    accepted = _MAX_UNREADABLE if max_unreadable is None else max_unreadable
    for count, what in (
        (summary.unreadable - summary.postponed, "could not be read"),
        (summary.postponed, "are left for now, by no fault of theirs that is known: the same command tries them again"),
    ):
        share = count / summary.images
        complaint = f"{count:,} of {summary.images:,} images ({share:.1%}) {what}; see the table failures in {boxes}"
        if share > accepted and (max_unreadable is not None or count > _A_FEW):
            raise click.ClickException(f"{complaint}; --max-unreadable {math.ceil(share * 1000) / 1000} accepts that")
        if count:
            click.echo(complaint, err=True)
    model = ["--model", "plain"] if method == NONE else []
    say_next("train", "--boxes", boxes, *model, *root_words(read_listing(boxes), index.root))


def _refuse_idle_settings(settings: ProposalSettings) -> None:
    """Raises: `click.UsageError` for an option that changes nothing with this method."""
    context = click.get_current_context()
    for name in settings.idle:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} changes nothing with --method {settings.method}; leave it out")


def _what_is_meant(
    source: str | None, dataset: str | None, root: Path | None, list_file: Path | None
) -> tuple[str, Path | None, Path | None]:
    """The data set, its root and its list, as the options would name them.

    Raises: `DatasetError` for what is not there, `click.UsageError` for what is said twice.
    """
    from ..data.errors import DatasetError
    from ..data.spelling import did_you_mean

    if source is None:
        if dataset is None and list_file is None:
            raise click.UsageError("name a folder of class folders, a CSV file or a data set: agnet propose photos")
        return dataset or "csv", root, list_file
    if dataset is not None or list_file is not None:
        other = f"--dataset {dataset}" if dataset is not None else f"--csv {list_file}"
        raise click.UsageError(f"{source} and {other} both say what to propose for: give one of them")
    named = [name for name in CATALOGUE if name not in ("folder", "csv")]
    path = Path(source)
    if source in named:
        if path.is_dir():
            click.echo(f"Note: the known data set {source} is meant; for the folder say ./{source}", err=True)
        return source, root, None
    if path.is_dir():
        if root is not None:
            raise click.UsageError(f"{source} is the folder of class folders already: leave out --root {root}")
        return "folder", path, None
    if path.exists():
        return "csv", root, path
    folders = [entry.name for entry in Path().iterdir() if entry.is_dir()] if path.parent == Path() else []
    raise DatasetError(
        f"there is no folder or file {source}, nor a data set of that name{did_you_mean(source, [*named, *folders])}"
    )

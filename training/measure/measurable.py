"""Check that a run may be evaluated on a split, before PyTorch is loaded, which takes seconds."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...data.boxes.reader import Boxes
from ...data.boxes.verification import Watch, look_at_images
from ...data.errors import CheckpointError, ConfigurationError, DatasetError, MismatchError
from ...data.files import check_writable
from ...data.names import TRAIN_FOLD
from ...data.text import rows_called
from ..aggregates import Aggregate
from ..loop.preflight import check_views
from ..models.contract import Views
from ..runs.checkpoint_header import CheckpointHeader, read_header
from ..runs.folder import BEST, read_config
from ..runs.provenance import identity, same_boxes
from ..runs.seen import EARLIER, SEEN, UNKNOWN, contents_of, count_seen, read_seen
from ..tasks import task_of

_HELD_OUT = ("test", "query", TRAIN_FOLD)


def check_measurable(
    run: Path,
    boxes: Boxes,
    split: str,
    force: bool,
    aggregate: Aggregate | None = None,
    views: Views | None = None,
) -> tuple[Path, int | None, str]:
    """Check that a run may be evaluated on ``split`` of ``boxes``, in these views, and its scores aggregated so.

    Returns: path for the metrics, the number of images that the run was trained on or selected by (None if unknown),
    and a warning about what limits the meaning of the metrics, which may be empty.

    Raises: as `evaluation.evaluate_run`, for everything that can be checked without running the network.
    """
    header = read_header(run / BEST)
    own = _is_own(run, header, boxes)  # by a fingerprint that can be forged: check the rest as well
    check_same_kind(run, header, boxes)
    task = task_of(boxes)
    if split not in task.splits.measured_on:
        known = ", ".join(task.splits.measured_on)
        raise ConfigurationError(f"split {split!r}: {task.name} is measured on one of {known}")
    if aggregate and (not boxes.of_clips or boxes.is_retrieval):
        what = "a data set for retrieval" if boxes.is_retrieval else "images"
        raise ConfigurationError(f"--aggregate is for the classes of clips, and {boxes.path} has {what}: leave it out")
    check_views(views, header.settings, boxes)
    for part in parts_of(split):
        if not len(boxes.rows(part)):
            raise DatasetError(f"{boxes.path} has no usable {part} {rows_called(boxes.of_clips)}")
    # The fingerprint in a boxes file can be any text, so file names contain its hash.
    other = "" if own else f"-{hashlib.blake2b(boxes.fingerprint.encode(), digest_size=4).hexdigest()}"
    of_rule = f"{aggregate.part if aggregate else ''}{views.part if views and views != header.views else ''}"
    target = run / f"metrics-{split}{of_rule}{other}.json"
    check_writable(target, "copy the run to a folder of yours and name that with --run")
    seen, warning = (_judge_own if own else _judge_other)(run, boxes, split, force)
    known = _trained_persons(run, header, boxes, split)
    return target, seen, "; ".join(said for said in (warning, known) if said)


def parts_of(split: str) -> tuple[str, ...]:
    """Splits whose images are needed to measure on one: queries are searched for in the gallery."""
    return ("query", "gallery") if split == "query" else (split,)


def default_split(boxes: Boxes) -> str:
    """The split that is measured unless another is named."""
    return "query" if boxes.is_retrieval else "test"


def _is_own(run: Path, header: CheckpointHeader, boxes: Boxes) -> bool:
    """Whether the run was trained on ``boxes``, or, for a model without regions, on the same images."""
    try:
        trained_on = read_config(run)["boxes"]
    except CheckpointError:  # a checkpoint can be evaluated without its configuration
        trained_on = {}
    known = {"images_blake2b": trained_on.get("images_blake2b"), "fingerprint": header.fingerprint}
    return same_boxes(known, identity(boxes), regions=header.regions > 0)


def _trained_persons(run: Path, header: CheckpointHeader, boxes: Boxes, split: str) -> str:
    """Say how many of the persons to search for the run was trained on by their names; empty if none.

    Names count only in the run's own data set: others number their persons from 1 as well.
    """
    try:
        dataset = read_config(run)["boxes"].get("dataset")
    except CheckpointError:
        return ""
    if not boxes.is_retrieval or dataset != boxes.dataset:
        return ""
    persons = {boxes.classes[label] for label in boxes.labels[boxes.usable[boxes.rows(split)]].tolist()}
    known = len(persons & {*header.classes})
    return f"the run was trained on persons named as {known:,} of the {len(persons):,} {split} persons" if known else ""


def check_images(
    boxes: Boxes,
    root: Path,
    split: str,
    *,
    watch: Watch = lambda what, images: lambda done, values: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Raise `DatasetError` or `MismatchError` unless the images of ``split`` are the ones ``boxes`` was made from."""
    rows = np.concatenate([boxes.rows(part) for part in parts_of(split)])
    look = look_at_images(boxes, root, boxes.usable[rows], watch=watch, say=say)
    if error := look.error(f"{split} {rows_called(boxes.of_clips)}"):
        raise error


def check_same_kind(run: Path, header: CheckpointHeader, boxes: Boxes) -> None:
    """Raise `MismatchError` unless ``boxes`` has the same classes, clips only for a network trained on clips, and, if
    the network uses regions, the same proposal settings. Persons to search for are others than those of training, so
    that any network can be measured on them.
    """
    if boxes.of_clips and header.sampling is None:
        raise MismatchError(
            f"{run} was trained on images, and {boxes.path} has clips, whose frames it does not know how to choose: "
            "train it on clips, or name a file of images with --boxes"
        )
    if header.classes != boxes.classes and not boxes.is_retrieval:
        missing = sorted(set(header.classes) ^ set(boxes.classes))
        which = f", such as {missing[0]!r}" if missing else " in another order"
        raise MismatchError(
            f"{run} was trained for {len(header.classes)} classes, {boxes.path} has others{which}: it cannot be "
            "evaluated on them; name the right file with --boxes"
        )
    if not header.regions:
        return
    wanted, found = header.proposals, boxes.settings.get("proposals", {})
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        if name == "max_pixels":  # limits readable images, not regions
            continue
        if wanted.get(name) != found.get(name):
            raise MismatchError(
                f"{run} was trained on regions with {name} = {wanted.get(name)!r}, {boxes.path} has "
                f"{found.get(name)!r}: propose with the run's settings, or name the right file with --boxes"
            )


def _judge_own(run: Path, boxes: Boxes, split: str, force: bool) -> tuple[int | None, str]:
    """Count the images of ``split`` of the run's own boxes file that were seen in training.

    Images seen by the run that provided the initial weights count as well.

    Returns: the number of images (None if unknown), and a warning, which may be empty.

    Raises: `MismatchError`, without ``force``, for the training split, and for test images that the run that provided
        the initial weights has seen or may have seen.
    """
    images, called = sum(len(boxes.rows(part)) for part in parts_of(split)), rows_called(boxes.of_clips)
    if split == "train":
        if not force:
            raise MismatchError(
                f"{run} was trained on the train split of {boxes.path}: a score on it measures memorisation; evaluate "
                "on test, or use --force"
            )
        return images, f"all {images:,} {called} were used for training: the score is not one on new {called}"
    parts = ("train",) if split == "val" else ("train", "val")
    own = frozenset(itertools.chain(*(contents_of(boxes, part) for part in parts)))
    copies = _count(boxes, split, own)
    said = [f"the epoch was chosen on these {called}"] if split == "val" else []
    if copies:
        said.append(f"{copies:,} of the {images:,} {split} {called} also occur in {' or '.join(parts)}, byte for byte")
    before = read_seen(run, [EARLIER]) if (run / SEEN).exists() else frozenset()
    if before is None or (before and UNKNOWN in _contents(boxes, split)):
        if split in _HELD_OUT and not force:
            raise MismatchError(
                f"{run} started from the weights of a run with no record of the images it has seen, which may include "
                f"these {split} {called}; use --force to evaluate anyway"
            )
        return None, "; ".join([*said, "it is unknown whether the run that it started from has seen these images"])
    seen_before = _count(boxes, split, before)
    if seen_before and split in _HELD_OUT and not force:
        raise MismatchError(
            f"{run} started from the weights of a run that was trained on or selected by {seen_before:,} of the "
            f"{images:,} {split} {called}, byte for byte: leave them out, or use --force"
        )
    if seen_before:
        said.append(f"{seen_before:,} of the {images:,} {split} {called} were seen by the run that it started from")
    return _count(boxes, split, own | before), "; ".join(said)


def _judge_other(run: Path, boxes: Boxes, split: str, force: bool) -> tuple[int | None, str]:
    """As `_judge_own` for another boxes file, whose images are compared by content.

    Raises: `MismatchError`, without ``force``, when the run has seen some of the images, or when that is unknown.
    """
    images, called = sum(len(boxes.rows(part)) for part in parts_of(split)), rows_called(boxes.of_clips)
    seen = read_seen(run)
    if seen is None or UNKNOWN in _contents(boxes, split):
        if not force:
            raise MismatchError(
                f"{run if seen is None else boxes.path} has no record of the contents of its images (another program "
                f"made it), so it is unknown whether {run} was trained on images of {boxes.path}; use --force to "
                "evaluate anyway"
            )
        return None, "it is unknown whether the run was trained on these images"
    count = _count(boxes, split, seen)
    if count and not force:
        raise MismatchError(
            f"{run} was trained on or selected by {count:,} of the {images:,} {split} {called} of {boxes.path}, byte "
            "for byte: leave them out, or use --force"
        )
    return count, f"{count:,} of the {images:,} {called} were used to train or select the run" if count else ""


def _contents(boxes: Boxes, split: str) -> list[str]:
    return list(itertools.chain(*(contents_of(boxes, part) for part in parts_of(split))))


def _count(boxes: Boxes, split: str, seen: frozenset[str]) -> int:
    """Number of images needed to measure on ``split`` that are among those seen."""
    return sum(count_seen(boxes, part, seen) for part in parts_of(split))

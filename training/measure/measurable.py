"""Whether a run may be measured on a split of a boxes file: asked before PyTorch is loaded, which takes seconds."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

from ...data.boxes.reader import Boxes
from ...data.boxes.verification import Watch, look_at_images
from ...data.errors import CheckpointError, ConfigurationError, DatasetError, MismatchError
from ...data.files import check_writable
from ..runs.checkpoint_header import CheckpointHeader, read_header
from ..runs.folder import BEST, read_config
from ..runs.provenance import identity, same_boxes
from ..runs.seen import EARLIER, SEEN, UNKNOWN, contents_of, count_seen, read_seen
from ..tasks import CLASSIFY


def check_measurable(run: Path, boxes: Boxes, split: str, force: bool) -> tuple[Path, int | None, str]:
    """Where the metrics of a run on ``split`` of ``boxes`` go, how many of its images the run was trained on or
    selected by (None where nobody can tell), and what is to be held against them.

    Raises: as `evaluation.evaluate_run`, for all that is known before the network looks at an image.
    """
    header = read_header(run / BEST)
    own = _is_own(run, header, boxes)  # or a stranger's, who can write what they like
    _check_same_kind(run, header, boxes)
    if split not in CLASSIFY.splits.measured_on:
        known = ", ".join(CLASSIFY.splits.measured_on)
        raise ConfigurationError(f"split {split!r}: {CLASSIFY.name} is measured on one of {known}")
    if not len(boxes.rows(split)):
        raise DatasetError(f"{boxes.path} has no usable {split} images")
    # Another file's name may be anybody's text: its hash tells its metrics from the run's own.
    other = "" if own else f"-{hashlib.blake2b(boxes.fingerprint.encode(), digest_size=4).hexdigest()}"
    target = run / f"metrics-{split}{other}.json"
    check_writable(target, "copy the run to a folder of yours and name that with --run")
    seen, warning = (_judge_own if own else _judge_other)(run, boxes, split, force)
    return target, seen, warning


def _is_own(run: Path, header: CheckpointHeader, boxes: Boxes) -> bool:
    """Whether the run was trained on ``boxes``; without regions, on a file of the same images."""
    try:
        trained_on = read_config(run)["boxes"]
    except CheckpointError:  # the checkpoint is enough to measure it
        trained_on = {}
    known = {"images_blake2b": trained_on.get("images_blake2b"), "fingerprint": header.fingerprint}
    return same_boxes(known, identity(boxes), regions=header.regions > 0)


def check_images(
    boxes: Boxes,
    root: Path,
    split: str,
    *,
    watch: Watch = lambda what, images: lambda done, values: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Raise `DatasetError` or `MismatchError` unless the images of ``split`` are those that ``boxes`` was made from."""
    look = look_at_images(boxes, root, boxes.usable[boxes.rows(split)], watch=watch, say=say)
    if error := look.error(f"{split} images"):
        raise error


def _check_same_kind(run: Path, header: CheckpointHeader, boxes: Boxes) -> None:
    """Raise `MismatchError` unless the network's classes mean the same in ``boxes``, and so do the regions of one that
    looks at regions.
    """
    if header.classes != boxes.classes:
        missing = sorted(set(header.classes) ^ set(boxes.classes))
        which = f", such as {missing[0]!r}" if missing else " in another order"
        raise MismatchError(
            f"{run} was trained for {len(header.classes)} classes and {boxes.path} has others{which}: it cannot be "
            "measured on them; name the right file with --boxes"
        )
    if not header.regions:
        return
    wanted, found = header.proposals, boxes.settings.get("proposals", {})
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        if name == "max_pixels":  # which images are readable, not how they are looked at
            continue
        if wanted.get(name) != found.get(name):
            raise MismatchError(
                f"{run} was trained on regions of {name} = {wanted.get(name)!r}, {boxes.path} has {found.get(name)!r}: "
                "propose with the run's settings, or name the right file with --boxes"
            )


def _judge_own(run: Path, boxes: Boxes, split: str, force: bool) -> tuple[int | None, str]:
    """How many images of ``split`` of the run's own boxes file it, or the run it began from, was trained on, and what
    is to be said of it; None where they are not known.

    Raises: `MismatchError` for the train part, and for test images that the run it began from has seen, unless
        ``force`` says otherwise.
    """
    images = len(boxes.rows(split))
    if split == "train":
        if not force:
            raise MismatchError(
                f"{run} was trained on the train part of {boxes.path}: a score on it says how well it was learnt by "
                "heart; measure on test, or say --force"
            )
        return images, f"all {images:,} images were trained on: the score says nothing of other photographs"
    parts = ("train",) if split == "val" else ("train", "val")
    own = frozenset(itertools.chain(*(contents_of(boxes, part) for part in parts)))
    copies = count_seen(boxes, split, own)
    said = ["the epoch was chosen by these images"] if split == "val" else []
    if copies:
        said.append(f"{copies:,} of the {images:,} {split} images are in {' or '.join(parts)} too, byte for byte")
    before = read_seen(run, [EARLIER]) if (run / SEEN).exists() else frozenset()
    if before is None or (before and UNKNOWN in contents_of(boxes, split)):
        if split == "test" and not force:
            raise MismatchError(
                f"{run} began with the weights of a run that has seen nobody knows which images, perhaps these {split} "
                "images; say --force to measure all the same"
            )
        return None, "; ".join([*said, "nobody can tell whether the run it began from has seen these images"])
    seen_before = count_seen(boxes, split, before)
    if seen_before and split == "test" and not force:
        raise MismatchError(
            f"{run} began with the weights of a run that was trained on or selected by {seen_before:,} of the "
            f"{images:,} {split} images, byte for byte: leave them out, or say --force"
        )
    if seen_before:
        said.append(f"{seen_before:,} of the {images:,} {split} images had been seen by the run it began from")
    return count_seen(boxes, split, own | before), "; ".join(said)


def _judge_other(run: Path, boxes: Boxes, split: str, force: bool) -> tuple[int | None, str]:
    """The same of another boxes file, by the contents of its images; None where they are not known.

    Raises: `MismatchError` when the run has seen some of them or nobody can tell, unless ``force`` says otherwise.
    """
    images, seen = len(boxes.rows(split)), read_seen(run)
    if seen is None or UNKNOWN in contents_of(boxes, split):
        if not force:
            raise MismatchError(
                f"{run if seen is None else boxes.path} does not say what its images are (another program "
                f"made it), so nobody can tell whether those of {boxes.path} are new to {run}; say --force to measure "
                "all the same"
            )
        return None, "nobody can tell whether the run was trained on these images"
    count = count_seen(boxes, split, seen)
    if count and not force:
        raise MismatchError(
            f"{run} was trained on or selected by {count:,} of the {images:,} {split} images of {boxes.path}, byte for "
            "byte: leave them out, or say --force"
        )
    return count, f"{count:,} of the {images:,} images were trained on or selected by" if count else ""

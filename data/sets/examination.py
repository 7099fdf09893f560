"""Examination of a whole data set: published counts, readability, duplicates."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations

import cv2
import numpy as np

from ..errors import ImageError
from ..faults import check_root_is_there, reason_of
from ..images import MAX_PIXELS, decode_image, read_content
from ..index import ALL_SPLITS, DatasetIndex
from ..regions import content_hash
from ..workers import in_parallel
from .entry import unlike_the_book
from .near_duplicates import Looks, closest, look_of

_CHUNK = 32
_SMALL = 32  # pixels: a shorter side is smaller than an icon
_LONG = 8  # ratio of the longer to the shorter side


@dataclass(frozen=True)
class Copy:
    """One of several images that are identical or look alike."""

    image: str
    split: str
    class_name: str


@dataclass(frozen=True)
class Odd:
    """An image and what is unusual about it."""

    image: str
    reason: str


@dataclass(frozen=True)
class Duplicates:
    """Images whose files are identical byte for byte."""

    copies: tuple[Copy, ...]
    across_splits: bool
    different_classes: bool


@dataclass(frozen=True)
class NearDuplicate:
    """An image, the most similar one of another split, and how many of the 63 bits of their hashes differ."""

    image: Copy
    looks_like: Copy
    distance: int


@dataclass(frozen=True)
class Examination:
    """Result of an examination. `wrong` and `unreadable` are faults; a person must assess the other findings."""

    dataset: str
    title: str  #: common name
    images: int
    classes: int
    counts: dict[str, int]  #: images per split
    by_the_book: bool | None  #: whether the counts are the published ones; None if none are published
    wrong: tuple[str, ...]  #: counts that differ from the published ones, a sentence each
    left_out: dict[str, int]  #: number of files that are not images by name or place, by kind
    unreadable: tuple[Odd, ...]
    odd: tuple[Odd, ...]  #: readable, but unlikely to be photographs
    duplicates: tuple[Duplicates, ...]
    near_duplicates: tuple[NearDuplicate, ...]  #: across splits, most similar first

    @property
    def sound(self) -> bool:
        """Whether all images exist and can be read. Many data sets have official duplicates, which are not a fault."""
        return not self.wrong and not self.unreadable

    def to_dict(self) -> dict[str, object]:
        return {"sound": self.sound, **asdict(self)}


@dataclass(frozen=True)
class Seen:
    """A worker's result for one image."""

    content: str = ""  #: BLAKE2b of the file in hexadecimal, as in the boxes file; empty if it cannot be read
    look: tuple[int, bytes] | None = None
    size_wh: tuple[int, int] = (0, 0)
    reason: str = ""  #: why it cannot be used; empty if it can


def examine(
    index: DatasetIndex,
    *,
    classes: int | None = None,
    counts: Mapping[str, int] | None = None,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, unreadable: None,
) -> Examination:
    """Decode every image, and compare the images with each other and with the published counts.

    Args:
        index: Data set with the splits to compare, without a validation split cut from train, which is not published.
        classes, counts: Published numbers of classes and images; None if none are published.
        jobs: Number of worker processes; by default as set by the caller's ``joblib.parallel_config``, else all cores.
            An image whose decoder crashes kills its process and is then reported as unreadable.
        max_pixels: Number of pixels above which an image counts as unreadable.
        progress: Function called with the number of images done, and how many of them cannot be read.
    """
    root = str(index.root.resolve())
    chunks = [index.names[first : first + _CHUNK] for first in range(0, len(index), _CHUNK)]
    looks, contents = Looks.empty(len(index)), [""] * len(index)
    unreadable: list[Odd] = []
    odd: list[Odd] = []
    row = 0
    task = partial(see_chunk, root, max_pixels=max_pixels)
    for chunk in in_parallel(chunks, task, lambda name, reason: Seen(reason=reason), jobs):
        for seen in chunk:
            name, contents[row] = index.names[row], seen.content
            if seen.reason:
                unreadable.append(Odd(name, seen.reason))
            elif reason := _oddity(seen):
                odd.append(Odd(name, reason))
            if seen.look:
                looks.hashes[row], looks.flat[row] = seen.look[0], False
                looks.thumbnails[row] = np.frombuffer(seen.look[1], np.uint8)
            row += 1
        progress(row, len(unreadable))
    duplicates = _duplicates(index, contents)
    wrong = unlike_the_book(len(index.classes), _counts(index), classes, counts)
    return Examination(
        dataset=index.dataset,
        title=index.title or index.dataset,
        images=len(index),
        classes=len(index.classes),
        counts=_counts(index),
        by_the_book=None if classes is None and counts is None else not wrong,
        wrong=wrong,
        left_out=dict(index.left_out),
        unreadable=tuple(unreadable),
        odd=tuple(odd),
        duplicates=duplicates,
        near_duplicates=_near_duplicates(index, looks, contents),
    )


def see_chunk(root: str, names: Sequence[str], max_pixels: int = MAX_PIXELS) -> list[Seen]:
    """A worker's task: read and decode each image and compute its look. Unreadable images are reported, not raised."""
    cv2.setNumThreads(1)
    return [_see(root, name, max_pixels) for name in names]


def _see(root: str, name: str, max_pixels: int) -> Seen:
    content = b""
    try:
        content = read_content(os.path.join(root, name))  # noqa: PTH118 - called for every image
        image = decode_image(content, max_pixels)
    except ImageError as error:
        if not content:
            check_root_is_there(root)
        return Seen(_digest(content), reason=reason_of(error))
    height, width = image.shape[:2]
    return Seen(_digest(content), look_of(image), (width, height))


def _digest(content: bytes) -> str:
    return content_hash(content) if content else ""


def _oddity(seen: Seen) -> str:
    width, height = seen.size_wh
    if min(width, height) < _SMALL:
        return f"is only {width} x {height} pixels"
    if max(width, height) > _LONG * min(width, height):
        return f"is a strip of {width} x {height} pixels"
    return "" if seen.look else "is all of one colour"


def _counts(index: DatasetIndex) -> dict[str, int]:
    return {split: int(index.counts(split).sum()) for split in ALL_SPLITS if (index.splits == split).any()}


def _copy(index: DatasetIndex, row: int) -> Copy:
    return Copy(index.names[row], str(index.splits[row]), index.classes[index.labels[row]])


def _duplicates(index: DatasetIndex, contents: list[str]) -> tuple[Duplicates, ...]:
    """Groups of identical content: those across splits first, then those in different classes, then by name."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(contents):
        if content:
            groups[content].append(row)
    found = []
    for rows in groups.values():
        if len(rows) > 1:
            copies = tuple(_copy(index, row) for row in rows)
            across, differ = (len({getattr(one, part) for one in copies}) > 1 for part in ("split", "class_name"))
            found.append(Duplicates(copies, across, differ))
    return tuple(
        sorted(found, key=lambda group: (not group.across_splits, not group.different_classes, group.copies[0].image))
    )


def _near_duplicates(index: DatasetIndex, looks: Looks, contents: list[str]) -> tuple[NearDuplicate, ...]:
    """For each image of a later split, the closest of an earlier split, unless that split has a copy of its file."""
    found: dict[int, tuple[int, int]] = {}
    for earlier, later in combinations(ALL_SPLITS, 2):
        if (earlier, later) == ("query", "gallery"):  # the same persons on purpose
            continue
        others = np.flatnonzero(index.splits == earlier)
        there = {contents[row] for row in others.tolist()}
        rows = np.flatnonzero(index.splits == later)
        queries = np.array([row for row in rows.tolist() if contents[row] not in there], dtype=np.int64)
        for row, other, distance in closest(looks, queries, others):
            if row not in found or distance < found[row][0]:
                found[row] = distance, other
    pairs = sorted((distance, row, other) for row, (distance, other) in found.items())
    return tuple(NearDuplicate(_copy(index, row), _copy(index, other), distance) for distance, row, other in pairs)

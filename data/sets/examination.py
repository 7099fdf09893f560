"""Examination of a whole data set: published counts, readability, duplicates, groups on both sides of a split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from ..clips import open_clip
from ..contents import hash_of
from ..errors import ImageError
from ..faults import check_root_is_there, reason_of, unread
from ..images import MAX_PIXELS, decode_image, read_content
from ..index import ALL_SPLITS, DatasetIndex, divided_groups
from ..regions import content_hash
from ..videos import Video
from ..workers import in_parallel
from .entry import unlike_the_book
from .near_duplicates import Looks, closest, look_of

_CHUNK, _CHUNK_OF_CLIPS = 32, 4
_SMALL = 32  # pixels: a shorter side is smaller than an icon
_LONG = 8  # ratio of the longer to the shorter side
_UNLIKE = 2, 0.02  # frames, or share of them: headers of some intact files announce one frame more than there is


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
    """An image and the most similar one of another split."""

    image: Copy
    looks_like: Copy
    distance: int  #: how many of the 63 bits of their hashes differ
    correlation: float  #: of their thumbnails


@dataclass(frozen=True)
class DividedGroup:
    """A group that is in several splits, and the number of its images or clips in each."""

    group: str
    counts: dict[str, int]


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
    near_duplicates: tuple[NearDuplicate, ...]  #: across splits, most similar first; none of clips
    of_clips: bool  #: whether ``images`` are clips
    groups: int  #: number of known groups
    divided_groups: tuple[DividedGroup, ...]  #: groups in several splits

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
    odd: str = ""  #: what is unusual about a clip


def examine(
    index: DatasetIndex,
    *,
    classes: int | None = None,
    counts: Mapping[str, int] | None = None,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, unreadable: None,
) -> Examination:
    """Decode every image, or all frames of every clip, and compare them with each other and with the published counts.

    Args:
        index: Data set with the splits to compare, without a validation split cut from train, which is not published.
        classes, counts: Published numbers of classes and images; None if none are published.
        jobs: Number of worker processes; by default as set by the caller's ``joblib.parallel_config``, else all cores.
            An image whose decoder crashes kills its process and is then reported as unreadable.
        max_pixels: Number of pixels above which an image counts as unreadable.
        progress: Function called with the number of images done, and how many of them cannot be read.
    """
    root = str(index.root.resolve())
    size = _CHUNK_OF_CLIPS if index.of_clips else _CHUNK
    chunks = [index.names[first : first + size] for first in range(0, len(index), size)]
    looks, contents = Looks.empty(len(index)), [""] * len(index)
    unreadable: list[Odd] = []
    odd: list[Odd] = []
    row = 0
    task = partial(see_clips if index.of_clips else see_chunk, root, max_pixels=max_pixels)
    for chunk in in_parallel(chunks, task, lambda name, reason: Seen(reason=reason), jobs):
        for seen in chunk:
            name, contents[row] = index.names[row], seen.content
            if seen.reason:
                unreadable.append(Odd(name, seen.reason))
            elif reason := seen.odd if index.of_clips else _oddity(seen):
                odd.append(Odd(name, reason))
            if seen.look:
                looks.put(row, seen.look)
            row += 1
        progress(row, len(unreadable))
    duplicates = _duplicates(index, contents)
    wrong = unlike_the_book(len(index.classes), _counts(index), classes, counts, index.of_clips)
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
        of_clips=index.of_clips,
        groups=len(set(index.groups).difference([""])),
        divided_groups=tuple(DividedGroup(group, found) for group, found in divided_groups(index).items()),
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


def see_clips(root: str, names: Sequence[str], max_pixels: int = MAX_PIXELS) -> list[Seen]:
    """A worker's task: decode every frame of each clip. Unreadable clips are reported, not raised."""
    cv2.setNumThreads(1)
    return [_see_clip(root, Path(root, name), max_pixels) for name in names]


def _see_clip(root: str, path: Path, max_pixels: int) -> Seen:
    content = ""
    try:
        content = _hash_of_clip(path)
        with open_clip(path, max_pixels) as clip:
            frames = sum(1 for _ in clip.chosen(lambda number, seconds: True))
    except ImageError as error:
        if not content:
            check_root_is_there(root)
        reason = reason_of(error).replace(f"{path}: ", "").replace(f"{path}{os.sep}", "")  # says nothing of the root
        return Seen(content, reason=reason)
    announced = clip.announced_frames if isinstance(clip, Video) else None
    return Seen(content, odd=_oddity_of_size(clip.size_wh) or _oddity_of_frames(frames, announced))


def _hash_of_clip(path: Path) -> str:
    """As `hash_of`. Raises: `ImageError`."""
    try:
        return hash_of(path)
    except OSError as error:
        raise unread(error) from None


def _oddity_of_frames(frames: int, announced: int | None) -> str:
    if frames == 1:
        return "has a single frame"
    if announced and abs(announced - frames) > max(_UNLIKE[0], _UNLIKE[1] * announced):
        return f"has {frames:,} frames, but announces {announced:,}"
    return ""


def _digest(content: bytes) -> str:
    return content_hash(content) if content else ""


def _oddity(seen: Seen) -> str:
    return _oddity_of_size(seen.size_wh) or ("" if seen.look else "is all of one colour")


def _oddity_of_size(size_wh: tuple[int, int]) -> str:
    width, height = size_wh
    if min(width, height) < _SMALL:
        return f"is only {width} x {height} pixels"
    if max(width, height) > _LONG * min(width, height):
        return f"is a strip of {width} x {height} pixels"
    return ""


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
    found: dict[int, tuple[int, int, float]] = {}
    for earlier, later in combinations(ALL_SPLITS, 2):
        if (earlier, later) == ("query", "gallery"):  # the same persons on purpose
            continue
        others = np.flatnonzero(index.splits == earlier)
        there = {contents[row] for row in others.tolist()}
        rows = np.flatnonzero(index.splits == later)
        queries = np.array([row for row in rows.tolist() if contents[row] not in there], dtype=np.int64)
        for row, other, distance, correlation in closest(looks, queries, others):
            if row not in found or distance < found[row][1]:
                found[row] = other, distance, correlation
    pairs = sorted(found.items(), key=lambda pair: (pair[1][1], pair[0]))
    return tuple(
        NearDuplicate(_copy(index, row), _copy(index, other), distance, correlation)
        for row, (other, distance, correlation) in pairs
    )

"""The index of a data set, independent of its layout on disk: names, labels, splits."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .errors import ConfigurationError, DatasetError
from .text import composed, rows_called, widest

NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and bytes that are not UTF-8

SPLITS = ("train", "val", "test")
ALL_SPLITS = (*SPLITS, "query", "gallery")  #: the last two for retrieval data sets
VAL_IS_TEST = "its val split is the test split, since it has no other; the val counted here is cut from train"
MAX_CLASSES = 32_767  #: labels are int16


def splits_told(is_retrieval: bool) -> tuple[str, ...]:
    """The splits whose counts a user is told, also where they are 0."""
    return (*SPLITS[:2], *ALL_SPLITS[len(SPLITS) :]) if is_retrieval else SPLITS


@dataclass(frozen=True)
class Clips:
    """The video frames of each clip."""

    first_frame: np.ndarray  #: int32 ``(clips,)``, from 0
    frames: np.ndarray  #: int32 ``(clips,)``, number of frames
    frames_a_second: np.ndarray  #: float32 ``(clips,)``, on average by the frames' times

    def last(self, row: int) -> float:
        """Time of the last frame of a row's clip, in seconds since its first."""
        return float((self.frames[row] - 1) / self.frames_a_second[row])


@dataclass(frozen=True)
class DatasetIndex:
    """The images of a data set, in a fixed order.

    ``names`` are POSIX paths relative to ``root``; ``labels`` index ``classes``; ``splits`` holds one of
    `ALL_SPLITS` per image.
    """

    dataset: str
    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray  #: int16 ``(images,)``
    splits: np.ndarray  #: ``U (images,)``
    opened_with: dict[str, object] = field(default_factory=dict)  #: settings that the index was built with
    left_out: dict[str, int] = field(default_factory=dict)  #: number of files that are not images, by kind
    title: str = ""  #: common name; for the user's own data, the name of a folder or list
    val_is_test: bool = False  #: whether the data set's authors call the test split val
    groups: tuple[str, ...] = ()  #: group of each image that no split may divide (subject, source, person), if known
    cameras: tuple[str, ...] = ()  #: camera of each image, if known
    of_clips: bool = False  #: whether rows are clips, video files or folders of numbered frames, rather than images

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_retrieval(self) -> bool:
        """Whether the data set is searched: it has queries, and its test classes are not those of train."""
        return bool((self.splits == "query").any())

    @cached_property
    def widest(self) -> dict[str, int]:
        """Bytes as UTF-8 of the longest name, file name, class, split, group and camera."""
        texts: dict[str, Iterable[str]] = {
            "name": self.names,
            "file": (name.rpartition("/")[2] for name in self.names),
            "class": self.classes,
            "split": set(self.splits.tolist()),
            "group": self.groups,
            "camera": self.cameras,
        }
        return {kind: widest(of_kind) for kind, of_kind in texts.items()}

    def counts(self, split: str) -> np.ndarray:
        """Number of images of each class in ``split``, ``(classes,)``."""
        return np.bincount(self.labels[self.splits == split], minlength=len(self.classes))


def build_index(dataset: str, root: Path, rows: list[tuple[str, str, str]], of_clips: bool = False) -> DatasetIndex:
    """Build an index from ``(name, class name, split)`` rows, in their order; classes are `composed` and sorted.

    Raises: `DatasetError` if there is no image, fewer than two classes or more than `MAX_CLASSES`, a repeated name, or
    a name that is not valid text.
    """
    if not rows:
        raise DatasetError(f"data set {dataset!r}: no {rows_called(of_clips)} found under {root}")
    names, class_names, splits = zip(*rows, strict=True)
    if len(set(names)) != len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise DatasetError(f"data set {dataset!r}: {twice!r} is listed twice")
    for name in names:
        if leaves_root(name) or not _is_text(name):
            encoding = sys.getfilesystemencoding()  # a locale's encoding may hide what is text elsewhere
            remedy = "rename it" + ("" if encoding == "utf-8" else f", or set PYTHONUTF8=1 (names are {encoding} here)")
            raise DatasetError(f"data set {dataset!r}: the name {name!r} is not a plain relative path; {remedy}")
    class_names = tuple(map(composed, class_names))
    classes = sorted(set(class_names))
    if len(classes) < 2:
        raise DatasetError(
            f"data set {dataset!r}: only one class ({classes[0]!r}) under {root}; expected a folder for each class"
        )
    if len(classes) > MAX_CLASSES:
        raise DatasetError(f"data set {dataset!r}: {len(classes):,} classes; at most {MAX_CLASSES:,} are supported")
    number_of = {name: number for number, name in enumerate(classes)}
    return DatasetIndex(
        dataset=dataset,
        root=root,
        classes=tuple(classes),
        names=tuple(names),
        labels=np.array([number_of[name] for name in class_names], dtype=np.int16),
        splits=np.array(splits, dtype=f"U{max(map(len, ALL_SPLITS))}"),
        of_clips=of_clips,
    )


def divided_groups(index: DatasetIndex) -> dict[str, dict[str, int]]:
    """Number of rows in each split of the groups that are in several splits, by group; query and gallery count as one.

    Rows without a group are not counted.
    """
    found: dict[str, Counter[str]] = {}
    for group, split in zip(index.groups, index.splits.tolist(), strict=bool(index.groups)):
        if group:
            found.setdefault(group, Counter())[split] += 1
    parts = {"gallery": "query"}
    return {
        group: {split: found[group][split] for split in ALL_SPLITS if found[group][split]}
        for group in sorted(found)
        if len({parts.get(split, split) for split in found[group]}) > 1
    }


def cut_from_train(index: DatasetIndex, fraction: float, into: str, seed: int) -> DatasetIndex:
    """Move a stratified, seeded ``fraction`` of each class's training images ``into`` another split.

    Every class with two or more training images gives at least one and keeps at least one. The draw for a class
    depends only on ``seed``, ``into``, the class number and its image names.
    """
    _check_fraction(fraction)
    splits = index.splits.copy()
    if fraction > 0:
        for label in range(len(index.classes)):
            rows = np.flatnonzero((index.labels == label) & (index.splits == "train"))
            if len(rows) < 2:
                continue
            count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
            generator = np.random.default_rng([seed, SPLITS.index(into), label])
            by_name = rows[np.argsort([index.names[row] for row in rows])]
            splits[generator.permutation(by_name)[:count]] = into
    return replace(index, splits=splits)


def cut_groups_from_train(index: DatasetIndex, fraction: float, into: str, seed: int) -> DatasetIndex:
    """Move whole groups of training rows ``into`` another split, until it has about ``fraction`` of each class.

    Groups are taken in a seeded order: each that brings the numbers of its classes nearer to their shares, then one for
    each class that has none. Every class keeps at least one row; a class of a single group gives none. A row without a
    group is a group of its own. The draw depends only on ``seed``, ``into`` and the names of groups and classes.
    """
    _check_fraction(fraction)
    train = np.flatnonzero(index.splits == "train")
    if fraction == 0 or not len(train):
        return index
    group_of = [index.groups[row] or index.names[row] for row in train]
    groups, numbers = np.unique(group_of, return_inverse=True)
    members = np.zeros((len(groups), len(index.classes)), np.int64)  # rows of each group and class
    np.add.at(members, (numbers.ravel(), index.labels[train]), 1)
    order = np.random.default_rng([seed, SPLITS.index(into)]).permutation(len(groups))
    drawn = order[_groups_of_a_share(members[order], fraction)]
    splits = index.splits.copy()
    splits[train[np.isin(numbers.ravel(), drawn)]] = into
    return replace(index, splits=splits)


def _groups_of_a_share(members: np.ndarray, fraction: float) -> list[int]:
    """Numbers of the groups that sum to about a share of each class.

    Args:
        members: Rows of each group and class, ``(groups, classes)``, in the order in which groups are taken.
        fraction: Share of each class.
    """
    there = members.sum(axis=0)
    wanted, taken = fraction * there, np.zeros_like(there)
    chosen: list[int] = []

    def distance(group: np.ndarray) -> float:
        """Distance of the shares from those wanted with another group; infinite if that leaves a class empty."""
        left = there - taken - group
        return float("inf") if (left[group > 0] < 1).any() else float(np.abs(wanted - taken - group).sum())

    def take(number: int) -> None:
        chosen.append(number)
        np.add(taken, members[number], out=taken)

    for number, group in enumerate(members):
        if distance(group) < distance(np.zeros_like(group)):
            take(number)
    for label in range(members.shape[1]):
        if not taken[label]:
            there_are = [number for number in np.flatnonzero(members[:, label]).tolist() if number not in chosen]
            best = min(there_are, key=lambda number: distance(members[number]), default=None)
            if best is not None and np.isfinite(distance(members[best])):
                take(best)
    return chosen


def cut_persons_from_train(index: DatasetIndex, fraction: float, seed: int) -> DatasetIndex:
    """Move a seeded ``fraction`` of the training classes, whole ones, into ``val``.

    In a data set for retrieval a class is a person, and persons of val must be as new to the network as those of test.
    Of four or more persons, at least two are moved and two stay. The draw depends only on ``seed`` and the names.
    """
    _check_fraction(fraction)
    trained = np.unique(index.labels[index.splits == "train"])
    if fraction == 0 or len(trained) < 4:
        return index
    count = min(max(2, round(fraction * len(trained))), len(trained) - 2)
    by_name = trained[np.argsort([index.classes[label] for label in trained])]
    drawn = np.random.default_rng([seed, SPLITS.index("val")]).permutation(by_name)[:count]
    splits = index.splits.copy()
    splits[(splits == "train") & np.isin(index.labels, drawn)] = "val"
    return replace(index, splits=splits)


def trained_first(index: DatasetIndex) -> DatasetIndex:
    """Number the classes anew: those with training images first, then by name; classes without images are dropped."""
    there, trained = np.unique(index.labels), np.unique(index.labels[index.splits == "train"])
    order = [*trained.tolist(), *np.setdiff1d(there, trained).tolist()]
    new = np.zeros(len(index.classes), np.int16)
    new[order] = np.arange(len(order))
    return replace(index, classes=tuple(index.classes[label] for label in order), labels=new[index.labels])


def limit_index(index: DatasetIndex, limit: int) -> DatasetIndex:
    """Reduce to at most ``limit`` images for a trial run: one of each class and split, then in proportion.

    The splits stay as they are, so that a group which none divides is not divided here either.

    Of a data set for retrieval, whole classes (persons) are kept instead: as many as fit, with train, val and test in
    proportion and at least two of each; of persons in no query, such as distractors, only a proportion of the images.

    Raises: `ConfigurationError` if ``limit`` is less than one image of each class and split, or two persons of each.
    """
    if index.is_retrieval:
        return _limit_persons(index, limit)
    groups: dict[tuple[int, str], list[int]] = {}
    for row, group in enumerate(zip(index.labels.tolist(), index.splits.tolist(), strict=True)):
        groups.setdefault(group, []).append(row)
    if limit < len(groups):
        one = rows_called(index.of_clips)[:-1]
        raise ConfigurationError(f"the limit must be at least {len(groups)}, one {one} of each class and split")
    # A group's first image, then each further image when the group's share is due.
    due = [(turn > 0, turn / len(rows), row) for rows in groups.values() for turn, row in enumerate(rows)]
    return _kept(index, sorted(row for _, _, row in sorted(due)[:limit]))


def _limit_persons(index: DatasetIndex, limit: int) -> DatasetIndex:
    """`limit_index` of a data set for retrieval."""
    sides = [np.unique(index.labels[index.splits == split]) for split in ("train", "val", "query")]
    others = np.flatnonzero(~np.isin(index.labels, np.concatenate(sides)))

    def kept(share: float) -> list[int]:
        labels = np.concatenate([side[: max(2, int(share * len(side)))] for side in sides])
        own = np.flatnonzero(np.isin(index.labels, labels))
        return sorted([*own.tolist(), *others[: int(share * len(others))].tolist()])

    # The most that fits; every person that is added changes the count, so trying all shares of persons is exact.
    shares = sorted({number / len(side) for side in sides for number in range(len(side) + 1)}, reverse=True)
    rows = next((rows for rows in map(kept, shares) if len(rows) <= limit), None)
    if rows is None:
        raise ConfigurationError(
            f"the limit must be at least {len(kept(0)):,}, all images of two persons each of train, val and query"
        )
    return _kept(index, rows)


def _kept(index: DatasetIndex, keep: list[int]) -> DatasetIndex:
    """The images of these rows."""
    return replace(
        index,
        names=tuple(index.names[row] for row in keep),
        labels=index.labels[keep],
        splits=index.splits[keep],
        groups=tuple(index.groups[row] for row in keep) if index.groups else (),
        cameras=tuple(index.cameras[row] for row in keep) if index.cameras else (),
    )


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ConfigurationError(f"the fraction cut from train must be at least 0 and below 1, got {fraction}")


def leaves_root(name: str) -> bool:
    """Whether a name is not a plain relative POSIX path, so that it could lead anywhere on this machine or another."""
    return not name or name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in name.split("/")


def _is_text(name: str) -> bool:
    """Whether a file name can be written as UTF-8 on one line; Unix allows any bytes."""
    return NOT_TEXT.search(name) is None

"""CUHK03 in its two protocols, which do not compare, each with hand-drawn or detected boxes.

A picture is ``<camera pair>_<person>_<view>_<number>.png``, all counted from 1: persons within their pair of cameras,
numbers 1 to 5 in view 1 and 6 to 10 in view 2. Two views of one pair are two cameras (see `Entry.camera`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ConfigurationError, DatasetError
from ..listing import OnDisk, join
from .catalogue import CUHK03_767_DETECTED, CUHK03_767_LABELLED, CUHK03_1367_DETECTED, CUHK03_1367_LABELLED, DRAWS
from .cuhk03_release import extract_pictures, read_test_sets
from .entry import Entry, Options, Rows
from .mat_files import read_mat
from .on_disk import images_in, is_absent, is_incomplete, listed_images, locate, needed_part
from .persons import checked

RELEASE = "cuhk-03.mat"
NOT_DRAWN = "images of test persons that single shot does not use"  #: kind under which they are counted as left out
_PICTURE = re.compile(r"(\d+)_(\d+)_([12])_\d+\.png", re.IGNORECASE)


class Picture(NamedTuple):
    pair: int  #: of cameras
    person: int  #: within the pair
    view: int  #: 1 or 2

    @property
    def name_of_person(self) -> str:
        return f"{self.pair}_{self.person:03d}"


def labelled_767_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """767 / 700 persons, hand-drawn boxes: see `_by_lists`."""
    return _by_lists(CUHK03_767_LABELLED, "labeled", root, left_out, options)


def detected_767_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """767 / 700 persons, detected boxes: see `_by_lists`."""
    return _by_lists(CUHK03_767_DETECTED, "detected", root, left_out, options)


def labelled_1367_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """1,367 / 100 persons, hand-drawn boxes: see `_single_shot`."""
    return _single_shot(CUHK03_1367_LABELLED, "labeled", root, left_out, options)


def detected_1367_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """1,367 / 100 persons, detected boxes: see `_single_shot`."""
    return _single_shot(CUHK03_1367_DETECTED, "detected", root, left_out, options)


def _by_lists(entry: Entry, boxes: str, root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``cuhk03_new_protocol_config_<boxes>.mat`` (Zhong et al., 2017) and the pictures that it lists.

    ``filelist`` and ``labels`` have a value for each picture; ``train_idx``, ``query_idx`` and ``gallery_idx`` are
    positions in them, from 1.
    """
    disk, images = _with_pictures(entry, boxes, root, options)
    path = root / needed_part(disk, entry, f"cuhk03_new_protocol_config_{boxes}.mat", file=True)
    parts = {split: f"{split}_idx" for split in ("train", "query", "gallery")}
    files, labels, *positions = read_mat(path, "filelist", "labels", *parts.values())
    pictures = [_picture(path, str(file)) for file in files]
    _check_labels(path, pictures, labels)
    rows: Rows = []
    for split, listed in zip(parts, positions, strict=True):
        whole = listed.dtype.kind in "iuf" and listed.ndim == 1 and np.isin(listed, np.arange(1, len(files) + 1)).all()
        if not whole:
            raise DatasetError(f"{path}: {parts[split]} has other values than 1 to {len(files):,}; extract it again")
        rows += [
            (join(images, str(files[place])), pictures[place].name_of_person, split)
            for place in (listed.astype(np.int64) - 1).tolist()
        ]
    return checked(entry, root, listed_images(disk, entry, rows, left_out), left_out)


def _check_labels(path: Path, pictures: list[Picture], labels: np.ndarray) -> None:
    """Raise `DatasetError` unless the labels and the names of the pictures tell the same persons apart."""
    if len(labels) != len(pictures) or labels.dtype.kind not in "iuf":
        raise DatasetError(f"{path}: {len(labels):,} labels for {len(pictures):,} pictures; extract it again")
    pairs = {(picture[:2], label) for picture, label in zip(pictures, labels.tolist(), strict=True)}
    if not len(pairs) == len({person for person, _ in pairs}) == len({label for _, label in pairs}):
        raise DatasetError(f"{path}: its labels contradict the persons in the names of its pictures; extract it again")


def _single_shot(entry: Entry, boxes: str, root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read the pictures and one of the 20 test sets in ``cuhk-03.mat`` (Li et al., 2014): the one of the split seed.

    A query is a picture of a test person in view 1, and the gallery has one picture, drawn by the split seed, of each
    test person in view 2. The others in view 2 are left out. All other persons are train.
    """
    if options.split_seed >= DRAWS:
        raise ConfigurationError(
            f"{entry.title} has {DRAWS} test sets: --split-seed chooses one, 0 to {DRAWS - 1}; got {options.split_seed}"
        )
    disk, images = _with_pictures(entry, boxes, root, options)
    release = root / needed_part(disk, entry, RELEASE, file=True)
    tested = set(read_test_sets(release, DRAWS)[options.split_seed])
    rows: Rows = []
    second_views: defaultdict[Picture, list[str]] = defaultdict(list)
    found = set()
    for name in images_in(disk, images, left_out, frozenset({".png"})):
        picture = _picture(root / images, name.rpartition("/")[2])
        found.add(picture[:2])
        if picture[:2] in tested and picture.view == 2:
            second_views[picture].append(name)
        else:
            rows.append((name, picture.name_of_person, "query" if picture[:2] in tested else "train"))
    if missing := tested - found:
        first = "{}_{:03d}".format(*min(missing))
        raise is_incomplete(
            entry, root, f"{root / images} has no picture of {len(missing):,} test persons, first {first}"
        )
    for picture, names in sorted(second_views.items()):
        generator = np.random.default_rng([options.split_seed, picture.pair, picture.person])
        rows.append((names[generator.integers(len(names))], picture.name_of_person, "gallery"))
        left_out[NOT_DRAWN] += len(names) - 1
    return checked(entry, root, rows, left_out)


def _picture(where: Path, name: str) -> Picture:
    found = _PICTURE.fullmatch(name)
    if found is None:
        raise DatasetError(f"{where}: expected names like 1_001_1_01.png (pair, person, view, number), got {name!r}")
    return Picture(*map(int, found.groups()))


def _with_pictures(entry: Entry, boxes: str, root: Path, options: Options) -> tuple[OnDisk, str]:
    """The root and its folder ``images_<boxes>``, which is made beside ``cuhk-03.mat`` if only that exists."""
    disk, folder = OnDisk(root), f"images_{boxes}"
    images = locate(disk, entry, folder)
    if images is not None:
        return disk, images
    release = locate(disk, entry, RELEASE, file=True)
    if release is None:
        raise is_absent(entry, root, folder)
    beside = join(release.rpartition("/")[0], folder)
    if not options.may_write:
        raise DatasetError(
            f"{root / release} is there, but its pictures are not extracted yet: agnet propose {entry.name} or "
            f"agnet datasets {entry.name} --verify extracts them to {root / beside}, once"
        )
    options.say(f"extracting the pictures of {root / release} to {root / beside}, once: this takes minutes")
    extract_pictures(root / release, boxes, root / beside, options.say)
    return OnDisk(root), beside

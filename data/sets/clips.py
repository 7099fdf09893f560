"""Layouts of data sets of clips: (name, class, split) rows, and the group of each clip.

A clip is a video file or a folder of numbered frames; its name is the path of that file or folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import ConfigurationError, DatasetError
from ..images import IMAGE_SUFFIXES
from ..listing import OnDisk, is_a_systems, join
from ..names import TUTORIAL
from ..text import counted
from ..videos import VIDEO_SUFFIXES
from .catalogue import HMDB51, UCF101
from .csv import listed_clips
from .entry import Entry, Options, Rows
from .folder import Kind, files_below, rows_by_class
from .on_disk import is_incomplete, lines_of, listed_images, locate, needed_part

NEITHER = "clips in neither train nor test (label 0)"  #: kind under which HMDB-51's are counted as left out
_HMDB_SPLITS = {"0": "neither", "1": "train", "2": "test"}
_TUTORIAL_VAL = 1_130, 1_530  # clips of val, of all test clips
LEAK = (
    "Warning: the tutorial's protocol trains on clips in neither train nor test, some from the sources of test clips, "
    "and chooses the epoch on test clips: its results are too high, and compare with no others"
)


def hmdb51_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``<class>/<name>.avi`` by the lists ``testTrainMulti_7030_splits/<class>_test_split<N>.txt``.

    Lines are ``<name>.avi <label>``. Label 1 is train, 2 is test, and 0 is neither. The group of a clip is its source,
    the begin of its name.

    The protocol `TUTORIAL` trains on 0 and 1, and draws val and test from the test clips by ``options.split_seed``.
    """
    disk = OnDisk(root)
    lists = needed_part(disk, HMDB51, "testTrainMulti_7030_splits")
    ending = f"_test_split{options.split_number}.txt"
    classes = [file.removesuffix(ending) for file in disk.files(lists) if file.endswith(ending)]
    if not classes:
        raise is_incomplete(HMDB51, root, f"there is no list <class>{ending} in {root / lists}")
    base = _folder_of_classes(disk, HMDB51, classes)
    rows: Rows = []
    for label in classes:
        place, lines = lines_of(disk, HMDB51, join(lists, label + ending))
        for line in lines:
            name, _, number = line.rpartition(" ")
            source = _source(name.strip(), label)
            if number not in _HMDB_SPLITS or not source:
                raise DatasetError(f"{place}: expected lines like 'Film_{label}_f_cm_np1_fr_med_0.avi 1', got {line!r}")
            path = join(base, f"{label}/{name.strip()}")
            path = disk.file(path) or path
            options.groups[path] = source
            rows.append((path, label, _HMDB_SPLITS[number]))
    if options.protocol == TUTORIAL:
        options.say(LEAK)
        rows = _as_the_tutorial(rows, options.split_seed)
    neither = [name for name, _, split in rows if split == "neither" and disk.file(name)]
    if neither:
        left_out[NEITHER] += len(neither)
    rows = [row for row in rows if row[2] != "neither"]
    return listed_images(disk, HMDB51, rows, left_out, VIDEO_SUFFIXES, without=neither)


def _folder_of_classes(disk: OnDisk, entry: Entry, classes: Iterable[str]) -> str:
    """The folder that holds the class folders. Raises: `DatasetError` if there is none."""
    for label in classes:
        found = locate(disk, entry, label)
        if found is not None:
            return found.rpartition("/")[0]
    usual = disk.root / entry.folder / min(classes) / "*.avi"
    raise is_incomplete(entry, disk.root, f"there are no clips beside its lists, such as {usual}")


def _source(name: str, label: str) -> str:
    """The source of one of HMDB-51's clips, by its name; empty if that is of another form."""
    tags = r"_[hulf]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+\.avi"
    found = re.fullmatch(rf"(.+)_{re.escape(label)}{tags}", name)
    return found[1] if found else ""


def _as_the_tutorial(rows: Rows, seed: int) -> Rows:
    """The rows of HMDB-51 with clips in neither split as train, and test divided into val and test at random."""
    test = [place for place, row in enumerate(rows) if row[2] == "test"]
    count = len(test) * _TUTORIAL_VAL[0] // _TUTORIAL_VAL[1]
    drawn = np.random.default_rng(seed).permutation(test)[:count].tolist()
    splits = dict.fromkeys(drawn, "val") | dict.fromkeys(set(test).difference(drawn), "test")
    return [(name, label, splits.get(place, "train")) for place, (name, label, _) in enumerate(rows)]


def ucf101_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``UCF-101/<class>/v_<class>_g<group>_c<clip>.avi`` by ``ucfTrainTestlist/{trainlist,testlist}0<N>.txt``.

    Lines are ``<class>/<name>.avi``, in lists of train followed by the number of the class in ``classInd.txt``, from 1.
    The group of a clip is its class and number of group: clips from one video.
    """
    disk = OnDisk(root)
    lists = needed_part(disk, UCF101, "ucfTrainTestlist")
    number_of = _numbers_of_classes(disk, lists)
    base = _folder_of_classes(disk, UCF101, number_of)
    rows: Rows = []
    for split in ("train", "test"):
        place, lines = lines_of(disk, UCF101, join(lists, f"{split}list0{options.split_number}.txt"))
        for line in lines:
            found = re.fullmatch(r"(\w+)/(v_\w+_g\d+)_c\d+\.avi(?: (\d+))?", line)
            if not found or found[3] not in (None, number_of.get(found[1])):
                raise DatasetError(f"{place}: expected lines like 'Archery/v_Archery_g08_c01.avi 3', got {line!r}")
            path = join(base, line.partition(" ")[0])
            path = disk.file(path) or path
            options.groups[path] = found[2]
            rows.append((path, found[1], split))
    return listed_images(disk, UCF101, rows, left_out, VIDEO_SUFFIXES)


def _numbers_of_classes(disk: OnDisk, lists: str) -> dict[str, str]:
    """The number of each class of UCF-101, from 1, by its name."""
    place, lines = lines_of(disk, UCF101, join(lists, "classInd.txt"))
    pairs = [line.split() for line in lines]
    if odd := [line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2]:
        raise DatasetError(f"{place}: expected lines like '3 Archery', got {odd[0]!r}")
    return {label: number for number, label in pairs}


def clips_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read the clips that ``options.list_file`` names, see `listed_clips`, or class folders of clips.

    Class folders may lie in split folders, as those of images. ``options.group_pattern`` names groups.

    Raises: `DatasetError` if it does not match the path of every clip.
    """
    if options.list_file is not None:
        return listed_clips(root, options)
    rows = rows_by_class(root, left_out, Kind(clips_below, VIDEO_SUFFIXES, "*.mp4", of_clips=True))
    if options.group_pattern:
        options.groups.update(_groups(options.group_pattern, [name for name, _, _ in rows]))
    return rows


def _groups(pattern: str, names: list[str]) -> dict[str, str]:
    """The group of each clip, by its name.

    Raises: `ConfigurationError` for an invalid regular expression, `DatasetError` if it does not match some names.
    """
    try:
        form = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"the group pattern {pattern!r} is not a regular expression: {error}") from None
    if not form.groups:
        raise ConfigurationError(f"the group pattern {pattern!r} needs parentheses around what names the group")
    found = {name: match[1] for name in names if (match := form.search(name)) and match[1]}
    if strange := [name for name in names if name not in found]:
        raise DatasetError(
            f"the group pattern {pattern!r} names no group of {len(strange):,} of the {len(names):,} clips, first "
            f"{strange[0]!r}"
        )
    return found


def clips_below(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield the names, relative to a class folder, of the clips in it and below: videos, and folders of frames.

    Files that are neither videos nor frames are counted in ``left_out`` as `files_below` does.

    Raises: `DatasetError` for images that are not in a folder of frames, and for a folder without clips or frames.
    """
    found: dict[str, list[str]] = {}
    for name in files_below(folder, left_out, VIDEO_SUFFIXES | IMAGE_SUFFIXES):
        found.setdefault(name.rpartition("/")[0], []).append(name)
    for place, names in found.items():
        images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if images and (len(images) < len(names) or not place):
            where = "beside videos" if len(images) < len(names) else "outside folders of frames"
            held = counted(len(images), "images")
            raise DatasetError(
                f"{folder / place} holds {held} {where}, first {Path(min(images)).name!r}; put the "
                "frames of each clip into a folder of its own and other images elsewhere, or list the clips with --csv"
            )
        yield from [place] if images else names
    for place, subfolders, _ in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not is_a_systems(name)]
        if not subfolders and Path(place).relative_to(folder).as_posix() not in found and place != str(folder):
            raise DatasetError(f"the folder {place} holds neither frames nor videos; remove it or fill it")

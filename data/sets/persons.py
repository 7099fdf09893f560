"""Layouts of data sets for person re-identification: (name, person, split) rows with train, query and gallery.

The camera of an image is in its path; `Entry.camera` says where.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from ..errors import DatasetError
from ..images import IMAGE_SUFFIXES
from ..listing import OnDisk, join, suffix_of
from ..persons import person_and_camera
from .catalogue import MARKET1501, REID_FOLDER
from .entry import Entry, Options, Rows
from .folder import images_below
from .on_disk import images_in, needed_folder, needed_part

JUNK = "junk boxes (person -1)"  #: kind under which they are counted as left out
_OWN_NAME = re.compile(r"(-1|\d+)_c?\d+")
_MARKET_PARTS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def market1501_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``bounding_box_train``, ``query`` and ``bounding_box_test`` of ``PPPP_cCsS_FFFFFF_BB.jpg``.

    P is the person, C the camera, S the sequence, F the frame and B the box. Person -1 is junk, which the protocol
    takes out of every ranking: it is left out here. Person 0000 is a distractor, which stays.
    """
    disk = OnDisk(root)
    base = needed_part(disk, MARKET1501, _MARKET_PARTS["train"]).rpartition("/")[0]
    rows: Rows = []
    for split, part in _MARKET_PARTS.items():
        folder = needed_folder(disk, MARKET1501, join(base, part))
        for name in images_in(disk, folder, left_out, frozenset({".jpg"})):
            found = person_and_camera(name.rpartition("/")[2])
            if found is None:
                raise DatasetError(f"{root / name}: expected a name like 0002_c1s1_000451_03.jpg")
            rows.append((name, found[0], split))
    return checked(MARKET1501, root, rows, left_out)


def reid_folder_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``train``, ``query``, ``gallery`` and, if there is one, ``val``, each of person folders or of file names
    that begin with the person and the camera: ``<person>/*`` or ``<person>_c<camera>*``.

    Persons in ``gallery`` alone are distractors; person -1 is junk and left out.
    """
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}; name the folder with train, query and gallery with --root")
    disk = OnDisk(root)
    rows: Rows = []
    for split in ("train", "val", "query", "gallery"):
        folder = disk.folder(split)
        if folder is None:
            if split == "val":
                continue
            raise DatasetError(
                f"{root} has no folder {split}; a data set of persons needs train, query and gallery, each with a "
                "folder for every person"
            )
        rows += [(name, person, split) for name, person in _by_person(disk, folder, left_out)]
    return checked(REID_FOLDER, root, rows, left_out)


def _by_person(disk: OnDisk, folder: str, left_out: Counter[str]) -> list[tuple[str, str]]:
    """(path relative to the root, person) of every image of a part."""
    found = [
        (f"{folder}/{person}/{name}", person)
        for person in disk.folders(folder)
        for name in sorted(images_below(disk.root / folder / person, left_out))
    ]
    for file in disk.files(folder):
        if suffix_of(file) not in IMAGE_SUFFIXES:
            left_out[suffix_of(file) or "without a suffix"] += 1
            continue
        named = _OWN_NAME.match(file)
        if named is None:
            raise DatasetError(
                f"{disk.root / folder / file}: expected a folder for each person, or a name like 0002_c1_05.jpg "
                "(person, camera, anything)"
            )
        found.append((f"{folder}/{file}", named[1]))
    return found


def checked(entry: Entry, root: Path, rows: Rows, left_out: Counter[str]) -> Rows:
    """The rows without junk.

    Raises: `DatasetError` if a part is empty, if a person of train is also in test, or if no query can have a match.
    """
    left_out[JUNK] += sum(person == "-1" for _, person, _ in rows)
    left_out += Counter()  # drops a count of 0
    rows = [row for row in rows if row[1] != "-1"]
    persons = {split: {person for _, person, its in rows if its == split} for split in ("train", "query", "gallery")}
    for split, found in persons.items():
        if not found:
            raise DatasetError(f"{entry.title} under {root} has no images in {split}")
    if both := persons["train"] & (persons["query"] | persons["gallery"]):
        raise DatasetError(
            f"{entry.title} under {root}: {len(both):,} persons are in train and in query or gallery, first "
            f"{min(both)!r}; persons to search for must be new to the network"
        )
    if not persons["query"] & persons["gallery"]:
        raise DatasetError(f"{entry.title} under {root}: no person of query is in gallery")
    return rows

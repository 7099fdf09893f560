"""Class folders, with or without split folders above them: the layout of people's own photographs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .dataset_entry import Options, Rows
from .errors import DatasetError
from .images import IMAGE_SUFFIXES
from .plain_text import tally

# What people call the parts of a split data set, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def folder_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """``train/<class>/*`` with ``val/`` and/or ``test/`` beside it, or ``<class>/*`` without any split.

    Also by their other usual names: training, valid, validation, testing.

    A lone ``val`` is taken as the held-out test part: it would otherwise be selected on and reported at once.
    Without split folders every image is ``train`` here, and `open_dataset` cuts the test part, seeded.
    """
    if root.is_file():
        raise DatasetError(f"{root} is a file; if it is an archive, extract it, and name the folder with --root")
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}; name the folder of class folders with --root")
    folders = {part.name.lower(): part for part in _folders(root)}
    parts: dict[str, Path] = {}
    for name, split in SPLIT_NAMES.items():
        if name in folders:
            part = folders.pop(name)
            if split in parts:
                raise DatasetError(f"{root}: {parts[split].name!r} and {name!r} are both {split}; keep one of them")
            parts[split] = part
    if not parts:
        return [(name, label, "train") for name, label in _images_by_class(root, root, left_out)]
    if "train" not in parts:
        raise DatasetError(f"{root} has a folder of images to test on but no folder train beside it")
    if folders:
        raise DatasetError(f"{root}: the folder {min(folders)!r} beside train is no split (train, val or test)")
    rows: Rows = []
    for split, part in parts.items():
        rows += [(name, label, split) for name, label in _images_by_class(part, root, left_out)]
    return held_out(rows, str(root))


def held_out(rows: Rows, where: str) -> Rows:
    """Rows of a data set that brings its splits, made fit for use: a lone ``val`` becomes ``test``.

    Raises: `DatasetError` when a class has images to test on but none in train.
    """
    if not any(split == "test" for _, _, split in rows):
        rows = [(name, label, "test" if split == "val" else split) for name, label, split in rows]
    unknown = {label for _, label, _ in rows} - {label for _, label, split in rows if split == "train"}
    if unknown:
        raise DatasetError(f"{where}: class {min(unknown)!r} has images to test on but none in train")
    return rows


def _images_by_class(part: Path, root: Path, left_out: Counter[str]) -> list[tuple[str, str]]:
    """(path relative to root, class) for every image in the class folders of ``part``, sorted."""
    found = []
    for class_folder in _folders(part):
        # In the order of their parts: a folder's images together, whatever letters sort before a slash.
        others: Counter[str] = Counter()
        mine = sorted(_image_files(class_folder, others), key=lambda name: name.split("/"))
        left_out.update(others)
        if not mine:
            but = f" that can be read here, but {tally(others)}" if others else ""
            raise DatasetError(f"the class folder {class_folder} holds no images{but}; remove it or fill it")
        place = class_folder.relative_to(root).as_posix()
        found += [(f"{place}/{name}", class_folder.name) for name in mine]
    loose = (entry.suffix.lower() for entry in part.iterdir() if entry.is_file())
    left_out.update(f"{suffix} outside class folders" for suffix in loose if suffix in IMAGE_SUFFIXES)
    if not found:
        raise DatasetError(f"no images found in class folders under {part} (expected {part}/<class>/*.jpg)")
    return found


def _image_files(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Names relative to ``folder`` of the images in it and below, links followed, each folder entered once.

    Files that are no images by their names are counted in ``left_out`` by their suffix.
    """
    entered = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for file in files:
            suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 - fast
            if file.startswith("."):
                continue
            if suffix in IMAGE_SUFFIXES:
                yield prefix + file
            else:
                left_out[suffix or file] += 1


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX")))

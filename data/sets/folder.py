"""Class folders, optionally inside split folders: the layout of users' own photographs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import DatasetError
from ..images import IMAGE_SUFFIXES
from ..index import SPLITS
from ..listing import is_a_systems
from ..text import composed, tally
from .entry import Options, Rows

# Common names of splits, in lower case, for folders and for lists.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def folder_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``train/<class>/*`` with ``val/`` and/or ``test/`` beside it, or ``<class>/*`` without any split.

    Split folders may have any name in `SPLIT_NAMES`. Without them, every image is ``train`` here, and `open_dataset`
    cuts a seeded test split.
    """
    if root.is_file():
        raise DatasetError(f"{root} is a file; if it is an archive, extract it, and name the folder with --root")
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}; name the folder of class folders with --root")
    parts: dict[str, Path] = {}
    others = []
    for folder in _folders(root, Counter()):
        split = SPLIT_NAMES.get(folder.name.casefold())
        if split is None:
            others.append(folder.name)
        elif split in parts:
            raise DatasetError(f"{root}: {parts[split].name!r} and {folder.name!r} are both {split}; keep one of them")
        else:
            parts[split] = folder
    # "train" may also be a class: beside folders with other names, a split folder without folders in it is a class.
    if not parts or (others and not any(_folders(part, Counter()) for part in parts.values())):
        return held_out([(name, label, "train") for name, label in _images_by_class(root, root, left_out)], str(root))
    if "train" not in parts:
        raise DatasetError(f"{root} has a folder of images to test on but no folder train beside it")
    if others:
        raise DatasetError(f"{root}: the folder {others[0]!r} beside train is not a split (train, val or test)")
    _folders(root, left_out)
    _count_loose(root, left_out)
    rows: Rows = []
    for split in SPLITS:
        if split in parts:
            rows += [(name, label, split) for name, label in _images_by_class(parts[split], root, left_out)]
    return held_out(rows, str(root))


def held_out(rows: Rows, where: str) -> Rows:
    """Rows of a user's own data set with class names `composed`.

    Raises: `DatasetError` if a class has images to test on but none in train.
    """
    rows = [(name, composed(label), split) for name, label, split in rows]
    known = {label for _, label, split in rows if split == "train"}
    unknown = {label for _, label, _ in rows} - known
    if unknown:
        first = min(unknown)
        alike = sorted(label for label in known if label.casefold() == first.casefold())
        hint = f", where it may be called {alike[0]!r}: give it one name" if alike else ""
        raise DatasetError(f"{where}: class {first!r} has images to test on but none in train{hint}")
    return rows


def _images_by_class(part: Path, root: Path, left_out: Counter[str]) -> list[tuple[str, str]]:
    """(path relative to root, class) for every image in the class folders of ``part``, sorted."""
    found = []
    for class_folder in _folders(part, left_out):
        # Sort by path components, which keeps a folder's images together even if some characters sort before a slash.
        others: Counter[str] = Counter()
        mine = sorted(images_below(class_folder, others), key=lambda name: name.split("/"))
        left_out.update(others)
        if not mine:
            but = f" that can be read here, but {tally(others)}" if others else ""
            raise DatasetError(f"the class folder {class_folder} holds no images{but}; remove it or fill it")
        place = class_folder.relative_to(root).as_posix()
        found += [(f"{place}/{name}", class_folder.name) for name in mine]
    _count_loose(part, left_out)
    if not found:
        raise DatasetError(f"no images found in class folders under {part} (expected {part}/<class>/*.jpg)")
    return found


def images_below(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield the names, relative to ``folder``, of the images in it and below. Links are followed, each folder once.

    Files that are not images by name are counted in ``left_out`` by suffix, as are images that systems hide, and system
    folders. Raises: `DatasetError` for a folder that cannot be listed.
    """
    entered = set()
    for place, subfolders, files in os.walk(folder, followlinks=True, onerror=_cannot_look):
        real = os.path.realpath(place)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        left_out.update(f"folder {name}" for name in subfolders if is_a_systems(name))
        subfolders[:] = [name for name in subfolders if not is_a_systems(name)]
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for file in files:
            suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 - fast
            if is_a_systems(file):
                left_out.update([f"hidden {suffix}"] if suffix in IMAGE_SUFFIXES else [])
            elif suffix in IMAGE_SUFFIXES:
                yield prefix + file
            else:
                left_out[suffix or "without a suffix"] += 1


def _folders(place: Path, left_out: Counter[str]) -> list[Path]:
    """The folders in ``place`` except system folders, which are counted as left out."""
    found = sorted(entry for entry in place.iterdir() if entry.is_dir())
    left_out.update(f"folder {folder.name}" for folder in found if is_a_systems(folder.name))
    return [folder for folder in found if not is_a_systems(folder.name)]


def _count_loose(place: Path, left_out: Counter[str]) -> None:
    loose = (entry.suffix.lower() for entry in place.iterdir() if entry.is_file() and not is_a_systems(entry.name))
    left_out.update(f"{suffix} outside class folders" for suffix in loose if suffix in IMAGE_SUFFIXES)


def _cannot_look(error: OSError) -> None:
    raise DatasetError(f"cannot look into the folder {error.filename}: {error.strerror}") from None

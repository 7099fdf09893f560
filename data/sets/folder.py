"""Class folders, optionally inside split folders: the layout of users' own photographs and clips."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..images import IMAGE_SUFFIXES
from ..index import SPLITS
from ..listing import is_a_systems
from ..text import composed, rows_called, tally
from ..videos import VIDEO_SUFFIXES
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
    return rows_by_class(root, left_out, Kind(images_below, IMAGE_SUFFIXES, "*.jpg"))


@dataclass(frozen=True)
class Kind:
    """What class folders hold."""

    below: Callable[[Path, Counter[str]], Iterator[str]]  #: names in a class folder, relative to it; see `images_below`
    suffixes: frozenset[str]
    example: str
    of_clips: bool = False


def rows_by_class(root: Path, left_out: Counter[str], kind: Kind) -> Rows:
    """Read class folders, see `folder_rows`, of images or of clips."""
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
        found = _rows_of_part(root, root, left_out, kind)
        return held_out([(name, label, "train") for name, label in found], str(root), kind.of_clips)
    if "train" not in parts:
        raise DatasetError(
            f"{root} has a folder of {rows_called(kind.of_clips)} to test on but no folder train beside it"
        )
    if others:
        raise DatasetError(f"{root}: the folder {others[0]!r} beside train is not a split (train, val or test)")
    _folders(root, left_out)
    _count_loose(root, left_out, kind)
    rows: Rows = []
    for split in SPLITS:
        if split in parts:
            rows += [(name, label, split) for name, label in _rows_of_part(parts[split], root, left_out, kind)]
    return held_out(rows, str(root), kind.of_clips)


def held_out(rows: Rows, where: str, of_clips: bool = False) -> Rows:
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
        called = rows_called(of_clips)
        raise DatasetError(f"{where}: class {first!r} has {called} to test on but none in train{hint}")
    return rows


def _rows_of_part(part: Path, root: Path, left_out: Counter[str], kind: Kind) -> list[tuple[str, str]]:
    """(path relative to root, class) for every image or clip in the class folders of ``part``, sorted."""
    found = []
    called = rows_called(kind.of_clips)
    for class_folder in _folders(part, left_out):
        # Sort by path components, which keeps a folder's images together even if some characters sort before a slash.
        others: Counter[str] = Counter()
        mine = sorted(kind.below(class_folder, others), key=lambda name: name.split("/"))
        left_out.update(others)
        if not mine:
            but = f" that can be read here, but {tally(others)}" if others else ""
            clips = not kind.of_clips and VIDEO_SUFFIXES.intersection(others)
            remedy = "for videos, use --dataset clips --root" if clips else "remove it or fill it"
            raise DatasetError(f"the class folder {class_folder} holds no {called}{but}; {remedy}")
        place = class_folder.relative_to(root).as_posix()
        found += [(f"{place}/{name}", class_folder.name) for name in mine]
    _count_loose(part, left_out, kind)
    if not found:
        raise DatasetError(f"no {called} found in class folders under {part} (expected {part}/<class>/{kind.example})")
    return found


def images_below(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield the names, relative to ``folder``, of the images in it and below; see `files_below`."""
    return files_below(folder, left_out, IMAGE_SUFFIXES)


def files_below(folder: Path, left_out: Counter[str], suffixes: frozenset[str]) -> Iterator[str]:
    """Yield the names, relative to ``folder``, of the files in it and below that have one of these suffixes.

    Links are followed, each folder once. Other files are counted in ``left_out`` by suffix, as are files that systems
    hide, and system folders. Raises: `DatasetError` for a folder that cannot be listed.
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
                left_out.update([f"hidden {suffix}"] if suffix in suffixes else [])
            elif suffix in suffixes:
                yield prefix + file
            else:
                left_out[suffix or "without a suffix"] += 1


def _folders(place: Path, left_out: Counter[str]) -> list[Path]:
    """The folders in ``place`` except system folders, which are counted as left out."""
    found = sorted(entry for entry in place.iterdir() if entry.is_dir())
    left_out.update(f"folder {folder.name}" for folder in found if is_a_systems(folder.name))
    return [folder for folder in found if not is_a_systems(folder.name)]


def _count_loose(place: Path, left_out: Counter[str], kind: Kind) -> None:
    loose = (entry.suffix.lower() for entry in place.iterdir() if entry.is_file() and not is_a_systems(entry.name))
    left_out.update(f"{suffix} outside class folders" for suffix in loose if suffix in kind.suffixes)


def _cannot_look(error: OSError) -> None:
    raise DatasetError(f"cannot look into the folder {error.filename}: {error.strerror}") from None

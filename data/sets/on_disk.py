"""Finding a data set's files under a root, in whatever folders a download left them, or saying how to get them."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AbsentError, DatasetError
from ..images import IMAGE_SUFFIXES
from ..listing import OnDisk, join, plain, suffix_of
from .entry import Rows

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")
_HALF = (".part", ".partial", ".crdownload", ".download", ".aria2")


@dataclass(frozen=True)
class Origin:
    """A data set that others distribute: what its errors tell."""

    dataset: str  #: a key of the catalogue
    title: str
    folder: str  #: the folder under the root that it usually lives in
    archives: tuple[str, ...]  #: beginnings of the names of its archives
    how: str  #: how to get it, in a sentence
    fetched: bool = True  #: whether ``agnet datasets --download`` may fetch it


def locate(disk: OnDisk, origin: Origin, part: str, *, file: bool = False) -> str | None:
    """Where ``part`` (a folder's or a file's name, or a path's) is on disk; None when it is in none of its places.

    Looked for in the data set's folder, in the root, then one level deeper: archives are often extracted into a
    folder of their own name. A root that is the part itself counts.
    """
    find = disk.file if file else disk.folder
    for place in _places(disk, origin.folder):
        found = find(join(place, part))
        if found is not None:
            again = None if file else disk.folder(join(found, part))  # extracted into a folder of the same name
            return again or found
    return "" if not file and plain(disk.root.resolve().name) == plain(part) else None


def is_absent(origin: Origin, root: Path, part: str) -> DatasetError:
    """The error for a data set of which not even ``part`` is there."""
    usual = root / part if part.startswith(origin.folder) else root / origin.folder / part
    looked = f"looked for {usual}, also one folder higher and one deeper"
    return AbsentError(f"{origin.title} is not under {root}: {looked}; {_remedy(origin, root)}")


def is_incomplete(origin: Origin, root: Path, what: str) -> DatasetError:
    """The error for a data set of which a part is there; ``what`` says what is missing where."""
    return DatasetError(f"{origin.title} is not whole: {what}; {to_be_whole(origin, root)}")


def to_be_whole(origin: Origin, root: Path) -> str:
    """What to do where not all of a data set is there: its archives may lie beside what came out of them."""
    found = leftover(origin, root)
    if found is None:
        return "extract the whole archive again"
    path, whole = found
    return f"extract its archives in {path.parent} again, whole" if whole else _remains(origin, root)


def listed_images(disk: OnDisk, origin: Origin, rows: Rows, left_out: Counter[str]) -> Rows:
    """The rows that lists name, by their names on disk; other images in the same folders are counted as left out.

    Raises: `DatasetError` that says how many are absent: a data set must not quietly shrink.
    """
    found, missing = [], []
    for name, label, split in rows:
        on_disk = disk.file(name)
        if on_disk is None:
            missing.append(name)
        else:
            found.append((on_disk, label, split))
    if missing:
        what = f"{len(missing):,} of the {len(rows):,} images that its lists name are not there, first"
        raise is_incomplete(origin, disk.root, f"{what} {disk.root / missing[0]}")
    names = {name for name, _, _ in found}
    for folder in {name.rpartition("/")[0] for name in names}:
        for file in disk.files(folder):
            if join(folder, file) not in names and suffix_of(file) in IMAGE_SUFFIXES:
                left_out[f"{suffix_of(file)} that no list names"] += 1
    return found


def images_in(
    disk: OnDisk, folder: str, left_out: Counter[str], suffixes: frozenset[str] = IMAGE_SUFFIXES
) -> list[str]:
    """Names of the images directly in a folder, with the folder's; other files and folders are counted as left out."""
    images = []
    for file in disk.files(folder):
        if suffix_of(file) in suffixes:
            images.append(join(folder, file))
        else:
            left_out[suffix_of(file) or "without a suffix"] += 1
    if stray := len(disk.folders(folder)):
        left_out["folders among images"] += stray
    return images


def _places(disk: OnDisk, folder: str) -> Iterator[str]:
    own = disk.folder(folder)
    if own is not None:
        yield own
    yield ""
    for above in ("",) if own is None else (own, ""):
        for name in disk.folders(above):
            place = join(above, name)
            if not os.access(disk.root / place, os.R_OK | os.X_OK):  # lost+found and the like
                continue
            yield place
            deeper = disk.folder(join(place, folder))
            if deeper is not None:
                yield deeper


def _remedy(origin: Origin, root: Path) -> str:
    left = _remains(origin, root)
    if left:
        return left
    fetch = f"{_fetching(origin, root)} fetches it, or by hand: " if origin.fetched else ""
    return f"{fetch}{origin.how}, or name the folder that holds {origin.folder} with --root"


def _fetching(origin: Origin, root: Path) -> str:
    """The command that fetches the data set to where it was looked for."""
    return f"agnet datasets --download {origin.dataset} --root {shlex.quote(str(root))}"


def leftover(origin: Origin, root: Path) -> tuple[Path, bool] | None:
    """An archive of the data set that lies about, and whether it is whole: half a download comes first."""
    for place in (root, root / origin.folder):
        files = sorted(path.name for path in place.iterdir() if path.is_file()) if place.is_dir() else []
        mine = [name for name in files if plain(name).startswith(tuple(map(plain, origin.archives)))]
        for whole, endings in ((False, _HALF), (True, _ARCHIVES)):
            for name in mine:
                if name.lower().endswith(endings):
                    return place / name, whole
    return None


def _remains(origin: Origin, root: Path) -> str:
    """What lies about of a download that is not finished or not extracted, and what to do with it; or nothing."""
    found = leftover(origin, root)
    if found is None:
        return ""
    path, whole = found
    by_us = _fetching(origin, root)
    if whole:
        return f"{path} is not extracted: {f'{by_us} extracts it' if origin.fetched else 'extract it there'}"
    return f"{path} is half a download: {f'{by_us} goes on with it' if origin.fetched else 'fetch it again'}"

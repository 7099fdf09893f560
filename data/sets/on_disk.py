"""Search for a data set's files under a root, at any usual place after extraction, and instructions to get them."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import AbsentError, DatasetError
from ..images import IMAGE_SUFFIXES
from ..listing import OnDisk, join, plain, suffix_of
from ..text import rows_called
from .entry import Entry, Rows, published_name

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")
_HALF = (".part", ".partial", ".crdownload", ".download", ".aria2")


def locate(disk: OnDisk, entry: Entry, part: str, *, file: bool = False) -> str | None:
    """Find ``part`` (the name or path of a folder or file) on disk; None if it is in none of the usual places.

    These are the data set's folder, the root, and one level below: archives are often extracted into a folder with
    their own name. A root that is itself the part also counts.
    """
    find = disk.file if file else disk.folder
    for place in _places(disk, entry.folder):
        found = find(join(place, part))
        if found is not None:
            again = None if file else disk.folder(join(found, part))  # extracted into a folder of the same name
            return again or found
    return "" if not file and plain(disk.root.resolve().name) == plain(part) else None


def needed_part(disk: OnDisk, entry: Entry, part: str, *, file: bool = False) -> str:
    """Find ``part`` as `locate` does. Raises: `AbsentError` if it does not exist."""
    found = locate(disk, entry, part, file=file)
    if found is None:
        raise is_absent(entry, disk.root, part)
    return found


def is_absent(entry: Entry, root: Path, part: str) -> DatasetError:
    """The error for a data set of which not even ``part`` exists."""
    usual = root / part if part.startswith(entry.folder) else root / entry.folder / part
    looked = f"looked for {usual}, also one folder higher and one deeper"
    return AbsentError(f"{entry.title} is not under {root}: {looked}; {_remedy(entry, root)}")


def is_incomplete(entry: Entry, root: Path, what: str) -> DatasetError:
    """The error for an incomplete data set; ``what`` says what is missing and where."""
    return DatasetError(f"{entry.title} is incomplete: {what}; {to_be_whole(entry, root)}")


def to_be_whole(entry: Entry, root: Path) -> str:
    """What to do about an incomplete data set, whose archives may still exist beside the extracted files."""
    found = leftover(entry, root)
    if found is None:
        return "extract the whole archive again"
    path, whole = found
    return f"extract its archives in {path.parent} again, completely" if whole else _remains(entry, root)


def listed_images(
    disk: OnDisk,
    entry: Entry,
    rows: Rows,
    left_out: Counter[str],
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    without: Collection[str] = (),
) -> Rows:
    """Rows that lists name, with their names on disk; other images in the same folders are counted as left out.

    Args:
        disk: Files of the data set.
        entry: Data set.
        rows: Rows as listed.
        left_out: Counts of files that are left out, by kind.
        suffixes: Suffixes of images, or of clips.
        without: Names on disk that lists name but that are no rows; they are not counted here.

    Raises: `DatasetError` with the number of missing images: a data set must not shrink silently.
    """
    found, missing = [], []
    for name, label, split in rows:
        on_disk = disk.file(name)
        if on_disk is None:
            missing.append(name)
        else:
            found.append((on_disk, label, split))
    if missing:
        called = rows_called(entry.of_clips)
        what = f"{len(missing):,} of the {len(rows):,} {called} that its lists name do not exist, first"
        raise is_incomplete(entry, disk.root, f"{what} {disk.root / missing[0]}")
    names = {name for name, _, _ in found}.union(without)
    for folder in {name.rpartition("/")[0] for name in names}:
        for file in disk.files(folder):
            if join(folder, file) not in names and suffix_of(file) in suffixes:
                left_out[f"{suffix_of(file)} that no list names"] += 1
    return found


def images_in(
    disk: OnDisk, folder: str, left_out: Counter[str], suffixes: frozenset[str] = IMAGE_SUFFIXES
) -> list[str]:
    """Paths of the images directly in a folder; other files and folders are counted as left out."""
    images = []
    for file in disk.files(folder):
        if suffix_of(file) in suffixes:
            images.append(join(folder, file))
        else:
            left_out[suffix_of(file) or "without a suffix"] += 1
    if stray := len(disk.folders(folder)):
        left_out["folders among images"] += stray
    return images


def needed_folder(disk: OnDisk, entry: Entry, folder: str) -> str:
    """The folder's name on disk. Raises: `DatasetError` if it is missing."""
    place = disk.folder(folder)
    if place is None:
        raise is_incomplete(entry, disk.root, f"there is no folder {disk.root / folder}")
    return place


def needed_list(disk: OnDisk, entry: Entry, listing: str) -> str:
    """The list's name on disk. Raises: `DatasetError` if it is missing."""
    name = disk.file(listing)
    if name is None:
        raise is_incomplete(entry, disk.root, f"there is no list {disk.root / listing}")
    return name


def lines_of(disk: OnDisk, entry: Entry, listing: str) -> tuple[Path, list[str]]:
    """A list's path and its non-empty lines, stripped. Raises: `DatasetError` if it cannot be read."""
    path = disk.root / needed_list(disk, entry, listing)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not UTF-8 text; extract it again") from None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise is_incomplete(entry, disk.root, f"the list {path} is empty")
    return path, lines


def _places(disk: OnDisk, folder: str) -> Iterator[str]:
    own = disk.folder(folder)
    if own is not None:
        yield own
    yield ""
    for above in ("",) if own is None else (own, ""):
        for name in disk.folders(above):
            place = join(above, name)
            if not os.access(disk.root / place, os.R_OK | os.X_OK):  # such as lost+found
                continue
            yield place
            deeper = disk.folder(join(place, folder))
            if deeper is not None:
                yield deeper


def _remedy(entry: Entry, root: Path) -> str:
    left = _remains(entry, root)
    if left:
        return left
    fetch = f"{_fetching(entry, root)} downloads it, or manually: " if entry.downloads else ""
    return f"{fetch}{entry.how}, or name the folder that holds {entry.folder} with --root"


def _fetching(entry: Entry, root: Path) -> str:
    """The command that downloads the data set to the place where it was searched for."""
    return f"agnet datasets --download {entry.name} --root {shlex.quote(str(root))}"


def leftover(entry: Entry, root: Path) -> tuple[Path, bool] | None:
    """An archive of the data set, and whether it is complete; partial downloads come first."""
    # Published names may be as general as images.tar, which says whose they are only in the data set's own folder.
    published = tuple(map(published_name, entry.downloads))
    for place, prefixes in ((root, entry.archives), (root / entry.folder, entry.archives + published)):
        files = sorted(path.name for path in place.iterdir() if path.is_file()) if place.is_dir() else []
        mine = [name for name in files if plain(name).startswith(tuple(map(plain, prefixes)))]
        for whole, endings in ((False, _HALF), (True, _ARCHIVES)):
            for name in mine:
                if name.lower().endswith(endings):
                    return place / name, whole
    return None


def _remains(entry: Entry, root: Path) -> str:
    """An unfinished or unextracted download and what to do with it; empty if there is none."""
    found = leftover(entry, root)
    if found is None:
        return ""
    path, whole = found
    by_us = _fetching(entry, root)
    if whole:
        return f"{path} is not extracted: {f'{by_us} extracts it' if entry.downloads else 'extract it there'}"
    return f"{path} is half a download: {f'{by_us} resumes it' if entry.downloads else 'download it again'}"

"""Finding a data set's files under a root, whatever a download, an archiver or another system made of their names."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AbsentError, DatasetError
from ..images import IMAGE_SUFFIXES
from .entry import Rows

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")
# Folders that systems leave among photographs, often with copies of them, in lower case: Macs in archives, network
# drives by Synology and QNAP, Windows, Linux, netatalk, FrontPage and Python. Others begin with a dot.
_SYSTEMS_FOLDERS = re.compile(
    r"__macosx|@eadir|@tmp|#recycle|#snapshot|@recycle|@recently-snapshot|\$recycle\.bin|system volume information|"
    r"found\.\d{3}|lost\+found|network trash folder|temporary items|_vti_cnf|__pycache__"
)
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


@dataclass(frozen=True)
class _Listing:
    """A folder's files and folders: by their names, and by what is left of these without case and Unicode form."""

    files: dict[str, str]
    folders: dict[str, str]


class OnDisk:
    """Names below a root as they are on disk, whatever letter case or Unicode form they are asked for in.

    Names are POSIX paths relative to the root. Each folder is listed once, when first asked for. Links are followed;
    a link that leads nowhere is not there. What `is_a_systems` (``._photo.jpg``, ``__MACOSX``) is not there either.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}
        self._known: dict[str, str | None] = {"": ""}

    def file(self, name: str) -> str | None:
        """The file's name on disk, or None."""
        place, last = self._place(name)
        return None if place is None else _look_up(self._list(place).files, place, last)

    def folder(self, name: str) -> str | None:
        """The folder's name on disk, or None."""
        if name not in self._known:
            place, last = self._place(name)
            self._known[name] = None if place is None else _look_up(self._list(place).folders, place, last)
        return self._known[name]

    def files(self, folder: str) -> list[str]:
        """Sorted names of the files in a folder, without the folder's."""
        return sorted(set(self._list(folder).files.values()))

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders in a folder, without the folder's."""
        return sorted(set(self._list(folder).folders.values()))

    def _place(self, name: str) -> tuple[str | None, str]:
        above, _, last = name.rpartition("/")
        return self.folder(above), last

    def _list(self, folder: str) -> _Listing:
        if folder not in self._listings:
            files, folders = [], []
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        if is_a_systems(entry.name):
                            continue
                        place = Path(entry) if entry.is_symlink() else entry  # a link to itself is no error to Path
                        if place.is_dir():
                            folders.append(entry.name)
                        elif place.is_file():
                            files.append(entry.name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            self._listings[folder] = _Listing(_by_name(files), _by_name(folders))
        return self._listings[folder]


def is_a_systems(name: str) -> bool:
    """Whether a file or folder of this name, without its folder's, is hidden or a system's, no person's."""
    return name.startswith(".") or _SYSTEMS_FOLDERS.fullmatch(name.lower()) is not None


def join(folder: str, name: str) -> str:
    """``folder/name``, where the folder may be the root itself, ``""``."""
    return f"{folder}/{name}" if folder else name


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
    return "" if not file and _plain(disk.root.resolve().name) == _plain(part) else None


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


def suffix_of(name: str) -> str:
    """A file name's suffix in lower case, with its dot; empty where it has none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - fast


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
        mine = [name for name in files if _plain(name).startswith(tuple(map(_plain, origin.archives)))]
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


def _by_name(names: list[str]) -> dict[str, str]:
    """Every name to itself, then its plain form to it where that is not a name of its own."""
    found = {name: name for name in names}
    for name in sorted(names):
        found.setdefault(_plain(name), name)
    return found


def _look_up(names: dict[str, str], place: str, last: str) -> str | None:
    name = names.get(last) or names.get(_plain(last))
    return None if name is None else join(place, name)


def _plain(name: str) -> str:
    # Macs write é as e and an accent, and lists do not; Windows and Macs do not tell cases apart.
    return unicodedata.normalize("NFC", name).casefold()

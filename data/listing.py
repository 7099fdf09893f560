"""Look-up of file and folder names on disk, regardless of how an archiver or another system changed them."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

# Folders, in lower case, that systems leave among photographs, often with copies of them: macOS in archives, Synology
# and QNAP network drives, Windows, Linux, netatalk, FrontPage and Python. Others start with a dot.
_SYSTEMS_FOLDERS = re.compile(
    r"__macosx|@eadir|@tmp|#recycle|#snapshot|@recycle|@recently-snapshot|\$recycle\.bin|system volume information|"
    r"found\.\d{3}|lost\+found|network trash folder|temporary items|_vti_cnf|__pycache__"
)


@dataclass(frozen=True)
class _Listing:
    """A folder's files and folders, by exact name and by name without case and Unicode form."""

    files: dict[str, str]
    folders: dict[str, str]


class OnDisk:
    """Names below a root as they are on disk, looked up regardless of letter case and Unicode form.

    Names are POSIX paths relative to the root. Each folder is listed once, on first use. Links are followed. Dangling
    links and names that `is_a_systems` matches (``._photo.jpg``, ``__MACOSX``) are treated as absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}
        self._known: dict[str, str | None] = {"": ""}

    def file(self, name: str) -> str | None:
        """The file's name on disk, or None if there is no such file."""
        place, last = self._place(name)
        return None if place is None else _look_up(self._list(place).files, place, last)

    def folder(self, name: str) -> str | None:
        """The folder's name on disk, or None if there is no such folder."""
        if name not in self._known:
            place, last = self._place(name)
            self._known[name] = None if place is None else _look_up(self._list(place).folders, place, last)
        return self._known[name]

    def files(self, folder: str) -> list[str]:
        """Sorted names of the files in a folder, without the folder's name."""
        return sorted(set(self._list(folder).files.values()))

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders in a folder, without the folder's name."""
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
                        place = Path(entry) if entry.is_symlink() else entry  # Path accepts a link to itself
                        if place.is_dir():
                            folders.append(entry.name)
                        elif place.is_file():
                            files.append(entry.name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            self._listings[folder] = _Listing(_by_name(files), _by_name(folders))
        return self._listings[folder]


def is_a_systems(name: str) -> bool:
    """Whether a base name is hidden or belongs to the operating system rather than to a user's data."""
    return name.startswith(".") or _SYSTEMS_FOLDERS.fullmatch(name.lower()) is not None


def join(folder: str, name: str) -> str:
    """``folder/name``; the folder may be the root itself, ``""``."""
    return f"{folder}/{name}" if folder else name


def suffix_of(name: str) -> str:
    """A file name's suffix in lower case, with its dot; empty if it has none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - fast


def _by_name(names: list[str]) -> dict[str, str]:
    """Map every name to itself, and its plain form to it unless that is another file's name."""
    found = {name: name for name in names}
    for name in sorted(names):
        found.setdefault(plain(name), name)
    return found


def _look_up(names: dict[str, str], place: str, last: str) -> str | None:
    name = names.get(last) or names.get(plain(last))
    return None if name is None else join(place, name)


def plain(name: str) -> str:
    """A name without the properties on which systems disagree: its case and its Unicode form."""
    # macOS writes é as e plus an accent, lists usually do not; Windows and macOS ignore case.
    return unicodedata.normalize("NFC", name).casefold()

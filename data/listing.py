"""Names of files and folders as they are on disk, whatever an archiver or another system made of them."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

# Folders that systems leave among photographs, often with copies of them, in lower case: Macs in archives, network
# drives by Synology and QNAP, Windows, Linux, netatalk, FrontPage and Python. Others begin with a dot.
_SYSTEMS_FOLDERS = re.compile(
    r"__macosx|@eadir|@tmp|#recycle|#snapshot|@recycle|@recently-snapshot|\$recycle\.bin|system volume information|"
    r"found\.\d{3}|lost\+found|network trash folder|temporary items|_vti_cnf|__pycache__"
)


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


def suffix_of(name: str) -> str:
    """A file name's suffix in lower case, with its dot; empty where it has none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - fast


def _by_name(names: list[str]) -> dict[str, str]:
    """Every name to itself, then its plain form to it where that is not a name of its own."""
    found = {name: name for name in names}
    for name in sorted(names):
        found.setdefault(plain(name), name)
    return found


def _look_up(names: dict[str, str], place: str, last: str) -> str | None:
    name = names.get(last) or names.get(plain(last))
    return None if name is None else join(place, name)


def plain(name: str) -> str:
    """A name without what systems do not agree on: its case and its Unicode form."""
    # Macs write é as e and an accent, and lists do not; Windows and Macs do not tell cases apart.
    return unicodedata.normalize("NFC", name).casefold()

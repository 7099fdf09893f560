"""Archives of strangers, unpacked: every member is checked before the first is written, and all appear or none."""

from __future__ import annotations

import errno
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ArchiveError
from ..files import one_process
from ..index import NOT_TEXT, leaves_root
from .archives import Member, contents, members_of, refused

Progress = Callable[[str, int, int], None]  #: "check" or "unpack", bytes done, of how many

_LONGEST_NAME, _DEEPEST = 1024, 64  # bytes, folders; Python removes a tree by calling itself for each level


@dataclass(frozen=True)
class Limits:
    """What is refused as too much; the largest of the named data sets has 102,000 members and 5 GB."""

    members: int = 1_000_000
    bytes: int = 200 << 30  #: inflated, of all archives together
    ratio: float = 100.0  #: inflated to compressed, of an archive that inflates to more than ``small``
    small: int = 64 << 20


def extract(
    archives: Sequence[Path],
    folder: Path,
    limits: Limits = Limits(),
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Unpack zip and tar archives (plain, gzip, bzip2, xz) together into the new ``folder`` and return it.

    A single top folder with the name of ``folder`` becomes ``folder`` itself. What Macs add (``__MACOSX``, ``._*``,
    ``.DS_Store``) is skipped, archives inside are left as they are, and files get a new file's usual permissions.

    Raises: `ArchiveError` for names that leave the folder or differ only in the case of letters or Unicode form, links,
    devices, encryption, more than ``limits``, damage, a full disk, or a ``folder`` that holds something already.
    Nothing is then left behind, and nothing is ever written outside ``folder`` and the temporary folder beside it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArchiveError(f"{folder} is there already: delete it or move it away to have it unpacked anew")
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = ArchiveError(f"{folder} is being unpacked by another process: wait for it, or end it")
    staging = folder.with_name(f".{folder.name}.unfinished")
    with one_process(folder.with_name(f".{folder.name}.lock"), busy):
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        try:
            total = _check(archives, limits, progress)
            _check_room(folder.parent, total)
            staging.mkdir()
            _write(archives, staging, limits, lambda done: progress("unpack", done, total))
            _publish(staging, folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ArchiveError(f"the disk is full at {folder.parent}: make room and run the same again") from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder


def _check(archives: Sequence[Path], limits: Limits, progress: Progress) -> int:
    """Bytes that the archives inflate to by their own word, every member found harmless."""
    sizes = [archive.stat().st_size for archive in archives]
    guard = _Guard(limits)
    before = 0
    for archive, size in zip(archives, sizes, strict=True):
        with archive.open("rb") as raw:
            for _ in guard.members(archive, raw):
                progress("check", before + min(raw.tell(), size), sum(sizes))
        before += size
    return guard.bytes


def _write(archives: Sequence[Path], staging: Path, limits: Limits, progress: Callable[[int], None]) -> None:
    """Write the members, each checked once more: what was checked before may have been changed since."""
    guard = _Guard(limits)
    made: set[Path] = set()
    done = 0
    for archive in archives:
        with archive.open("rb") as raw:
            for member in guard.members(archive, raw):
                place = staging / member.name
                parent = place if member.is_folder else place.parent
                if parent not in made:
                    parent.mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                if not member.is_folder:
                    with place.open("xb") as target:
                        for chunk in contents(archive, member):
                            target.write(chunk)
                            done += len(chunk)
                            progress(done)


def _publish(staging: Path, folder: Path) -> None:
    """The finished staging folder, under its final name in one step."""
    top = list(staging.iterdir())
    if not top:
        raise ArchiveError(f"the archive for {folder} holds no files")
    inner = len(top) == 1 and top[0].name == folder.name and top[0].is_dir()
    if hasattr(os, "sync"):  # a power cut must not leave empty files under final names
        os.sync()
    if folder.exists():
        folder.rmdir()  # empty, as checked
    (top[0] if inner else staging).replace(folder)


class _Guard:
    """What all members of some archives may be together; counts them as they come."""

    def __init__(self, limits: Limits) -> None:
        self.bytes = 0
        self._limits = limits
        self._count = 0
        self._known: dict[str, tuple[str, bool]] = {}  # a name as careless disks compare it -> (name, is folder)

    def members(self, archive: Path, raw: IO[bytes]) -> Iterator[Member]:
        """The members to be written, their names normalised.

        Raises: `ArchiveError` at the first that must not be.
        """
        compressed, before = archive.stat().st_size, self.bytes
        for member in members_of(archive, raw):
            if member.fault:
                raise refused(archive, member.name, member.fault)
            if leaves_root(member.name) or NOT_TEXT.search(member.name):
                raise refused(archive, member.name, "has a name that is no plain relative path")
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if any(len(part.encode()) > 255 for part in parts) or len(member.name.encode()) > _LONGEST_NAME:
                raise refused(archive, member.name, "has too long a name")
            if len(parts) > _DEEPEST:
                raise refused(archive, member.name, f"is more than {_DEEPEST} folders deep")
            self._count += 1
            self.bytes += member.size
            inflated = self.bytes - before
            if self._count > self._limits.members:
                raise ArchiveError(f"{archive} is refused: more than {self._limits.members:,} members")
            if member.size < 0 or self.bytes > self._limits.bytes:
                raise ArchiveError(f"{archive} is refused: it inflates to more than {self._limits.bytes / 1e9:,.1f} GB")
            if inflated > max(self._limits.small, self._limits.ratio * compressed):
                raise ArchiveError(
                    f"{archive} is refused: it inflates to more than {self._limits.ratio:g} times its size, like a bomb"
                )
            if parts and not _of_a_mac(parts):
                if other := self._collision(parts, member.is_folder):
                    raise refused(archive, member.name, f"collides with {other!r} on some disks")
                yield Member("/".join(parts), member.size, member.is_folder, "", member.open)

    def _collision(self, parts: list[str], is_folder: bool) -> str:
        """The member that some disk would take for this one, or an empty text; remembers this one."""
        for end in range(1, len(parts) + 1):
            mine = "/".join(parts[:end]), is_folder or end < len(parts)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", mine[0]).casefold())
            fresh = key not in self._known
            other = self._known.setdefault(key, mine)
            if other != mine or not (fresh or mine[1]):  # a folder may be named again, a file may not
                return other[0]
        return ""


def _of_a_mac(parts: list[str]) -> bool:
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or any(part.startswith("._") for part in parts)


def _check_room(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ArchiveError(
            f"{place} has {free / 1e9:,.1f} GB free, unpacking takes {needed / 1e9:,.1f} GB: make room, or name "
            "another place with --root"
        )

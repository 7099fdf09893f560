"""Extraction of untrusted archives: every member is checked before the first is written, and all appear or none.

Any problem is reported as an error of one line.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ..errors import ArchiveError
from ..files import one_process
from ..index import NOT_TEXT, leaves_root

Progress = Callable[[str, int, int], None]  #: "check" or "unpack", bytes done, total bytes

_CHUNK = 1 << 20
_HEADERS = 64 << 10  # maximum bytes of one member's headers; tarfile keeps a whole chain of them and recurses for each
_SHOWN = 100  # characters of a name in a message
_BLOCK = 512  # bytes of a tar block
_DAMAGE: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_STARTS = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}

_INFLATE: dict[str, Any] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_LONGEST_NAME, _DEEPEST = 1024, 64  # bytes, folders; Python removes a tree recursively


@dataclass(frozen=True)
class Limits:
    """Upper limits for archives; the largest of the named data sets has 102,000 members and 5 GB."""

    members: int = 1_000_000
    bytes: int = 200 << 30  #: inflated, all archives together
    ratio: float = 100.0  #: inflated to compressed, for an archive that inflates to more than ``small`` bytes
    small: int = 64 << 20


def extract(
    archives: Sequence[Path],
    folder: Path,
    limits: Limits = Limits(),
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Extract zip and tar archives (plain, gzip, bzip2, xz) together into the new ``folder`` and return it.

    A single top folder with the name of ``folder`` becomes ``folder`` itself. Files that macOS adds (``__MACOSX``,
    ``._*``, ``.DS_Store``) are skipped, nested archives are not extracted, and files get the default permissions.

    Raises: `ArchiveError` for names that leave the folder or differ only in letter case or Unicode form, links,
    devices, encryption, more than ``limits``, damage, a full disk, or a ``folder`` that is not empty. Nothing is then
    left behind, and nothing is ever written outside ``folder`` and the temporary folder beside it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArchiveError(f"{folder} already exists: delete it or move it away to unpack it again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = ArchiveError(f"{folder} is being unpacked by another process: wait for it, or end it")
    staging = folder.with_name(f".{folder.name}.unfinished")
    with one_process(folder.with_name(f".{folder.name}.lock"), busy):
        shutil.rmtree(staging, ignore_errors=True)  # left by a run that was killed
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
    """Check every member. Returns the number of bytes that the archives declare to inflate to."""
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
    """Write the members, each checked once more, because the archives may have changed since the first check."""
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
    """Move the finished staging folder to its final name in one step."""
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
    """Limits on all members of a set of archives together, counted as they are read."""

    def __init__(self, limits: Limits) -> None:
        self.bytes = 0
        self._limits = limits
        self._count = 0
        self._known: dict[str, tuple[str, bool]] = {}  # name as compared by case-insensitive disks -> (name, is folder)

    def members(self, archive: Path, raw: IO[bytes]) -> Iterator[Member]:
        """Yield the members to be written, with normalised names.

        Raises: `ArchiveError` at the first member that must not be written.
        """
        compressed, before = archive.stat().st_size, self.bytes
        for member in members_of(archive, raw):
            if member.fault:
                raise refused(archive, member.name, member.fault)
            if leaves_root(member.name) or NOT_TEXT.search(member.name):
                raise refused(archive, member.name, "has a name that is not a plain relative path")
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
                    f"{archive} is refused: it inflates to more than {self._limits.ratio:g} times its size, like a "
                    "decompression bomb"
                )
            if parts and not _of_a_mac(parts):
                if other := self._collision(parts, member.is_folder):
                    raise refused(archive, member.name, f"collides with {other!r} on some disks")
                yield Member("/".join(parts), member.size, member.is_folder, "", member.open)

    def _collision(self, parts: list[str], is_folder: bool) -> str:
        """The member that some disks would take for this one, or an empty text. Records this one."""
        for end in range(1, len(parts) + 1):
            mine = "/".join(parts[:end]), is_folder or end < len(parts)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", mine[0]).casefold())
            fresh = key not in self._known
            other = self._known.setdefault(key, mine)
            if other != mine or not (fresh or mine[1]):  # a folder may be listed twice, a file may not
                return other[0]
        return ""


def _of_a_mac(parts: list[str]) -> bool:
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or any(part.startswith("._") for part in parts)


def _check_room(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ArchiveError(
            f"{place} has {free / 1e9:,.1f} GB free, but unpacking needs {needed / 1e9:,.1f} GB: make room, or name "
            "another place with --root"
        )


@dataclass(frozen=True)
class Member:
    """A file or folder as listed in an archive."""

    name: str
    size: int  #: bytes when unpacked
    is_folder: bool
    fault: str  #: why it must not be written; empty if it may be
    open: Callable[[], IO[bytes]]


def members_of(archive: Path, raw: IO[bytes]) -> Iterator[Member]:
    """Yield all members in order. Only faults that name and size do not reveal are set."""
    start = raw.read(_BLOCK)
    kind = next((kind for bytes_, kind in _STARTS.items() if start.startswith(bytes_)), "")
    if not kind and start[257:262] != b"ustar":
        looks = " but a web page" if start.lstrip()[:1] == b"<" else ""
        raise ArchiveError(f"{archive} is not a zip or tar archive{looks}: delete it and download it again")
    raw.seek(0)
    with _damage_told(archive, ValueError, struct.error, OverflowError, NotImplementedError):
        if kind == "zip":
            yield from _zip_members(raw)
        else:
            yield from _tar_members(archive, raw, kind)


def contents(archive: Path, member: Member) -> Iterator[bytes]:
    """Yield the content of a file, exactly as many bytes as it declares."""
    left = member.size
    with _damage_told(archive), member.open() as source:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise refused(archive, member.name, "inflates to more than it declares")
            yield chunk
        if left:
            raise refused(archive, member.name, "ends too early: download the archive again")


@contextmanager
def _damage_told(archive: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn the standard library's errors about a damaged archive into an `ArchiveError` of one line."""
    damage: tuple[type[Exception], ...] = (*_DAMAGE, *more, OSError)
    try:
        yield
    except damage as error:
        if isinstance(error, OSError) and error.errno is not None:  # a disk error; those of gzip and bz2 have no errno
            raise
        raise ArchiveError(
            f"{archive} is damaged or cut short ({error or type(error).__name__}): delete it and download it again"
        ) from error


def refused(archive: Path, name: str, fault: str) -> ArchiveError:
    """The error for a member that must not be unpacked."""
    name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    return ArchiveError(f"{archive} is refused: {name!r} in it {fault}")


def _zip_members(raw: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as file:
        for info in file.infolist():
            type_ = stat.S_IFMT(info.external_attr >> 16)
            fault = ""
            if info.flag_bits & 0x41:
                fault = "is encrypted: unpack the archive by hand with its password"
            elif info.compress_type not in _ZIP_METHODS:
                fault = "is compressed by a method that Python does not support: unpack the archive by hand"
            elif type_ == stat.S_IFLNK:
                fault = "is a link"
            elif type_ not in (0, stat.S_IFREG, stat.S_IFDIR):
                fault = "is a device or another special file"
            elif "\\" in info.orig_filename or "\0" in info.orig_filename:
                fault = "has a name that is not a plain relative path"
            yield Member(info.filename, info.file_size, info.is_dir(), fault, partial(file.open, info))


def _tar_members(archive: Path, raw: IO[bytes], kind: str) -> Iterator[Member]:
    stream = cast(IO[bytes], _INFLATE[kind](raw) if kind else raw)
    forward = _Forward(archive, stream)
    with tarfile.open(fileobj=cast(Any, forward), mode="r:") as file:
        while info := forward.headers_of(file.next):
            file.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            fault = ""
            if info.issym() or info.islnk():
                fault = "is a link"
            elif not info.isreg() and not info.isdir():
                fault = "is a device or another special file"
            elif info.issparse():
                fault = "is a sparse file"
            size = 0 if info.isdir() else info.size
            yield Member(info.name, size, info.isdir(), fault, cast(Any, partial(file.extractfile, info)))
        # tarfile mistakes a damaged header or the end of the file for the end of the archive.
        forward.seek(file.offset)
        if forward.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError("the end is missing")
        stream.read(_CHUNK)  # reach the end of the compressed data, where its checksum is verified


class _Forward:
    """A forward-only stream for tarfile: seeking back in a compressed stream would inflate it from the start.

    tarfile steps back by at most one block, which is kept. It would also read headers of any declared size into memory.
    """

    _headers_left: int | None = _HEADERS  #: bytes left for a member's headers while they are read

    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        self._archive = archive
        self._stream = stream
        self._read_to = 0
        self._at = 0
        self._kept = b""  # the last data read

    def headers_of(self, next_member: Callable[[], tarfile.TarInfo | None]) -> tarfile.TarInfo | None:
        """The next member, whose headers may have at most `_HEADERS` bytes."""
        self._headers_left = _HEADERS
        try:
            return next_member()
        finally:
            self._headers_left = None

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        self._at = position

    def read(self, size: int) -> bytes:
        if self._headers_left is not None:
            if not 0 <= size <= self._headers_left:
                raise ArchiveError(f"{self._archive} is refused: headers of more than {_HEADERS:,} bytes for one file")
            self._headers_left -= size
        while self._read_to < self._at:
            if not self._advance(min(self._at - self._read_to, _CHUNK)):
                return b""
        back = self._read_to - self._at
        if back > len(self._kept):
            raise tarfile.ReadError("a member overlaps another")
        data = self._kept[len(self._kept) - back :][:size] if back else b""
        if len(data) < size:
            data += self._advance(size - len(data))
        self._at += len(data)
        return data

    def _advance(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read_to += len(data)
        self._kept = (self._kept + data)[-2 * _BLOCK :] if len(data) < 2 * _BLOCK else data[-2 * _BLOCK :]
        return data

"""Zip and tar archives of strangers, read member by member; what is wrong with one is told in a line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ..errors import ArchiveError

_CHUNK = 1 << 20
_HEADERS = 64 << 10  # bytes of one member's headers; tarfile keeps all of a chain of them, and calls itself for each
_SHOWN = 100  # characters of a name in a message
_BLOCK = 512  # of tar
_DAMAGE: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_STARTS = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}

_INFLATE: dict[str, Any] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive, as the archive has it."""

    name: str
    size: int  #: bytes when unpacked
    is_folder: bool
    fault: str  #: why it must not be written, in words; empty if it may
    open: Callable[[], IO[bytes]]


def members_of(archive: Path, raw: IO[bytes]) -> Iterator[Member]:
    """All members in their order, none judged but for what its name and size do not tell."""
    start = raw.read(_BLOCK)
    kind = next((kind for bytes_, kind in _STARTS.items() if start.startswith(bytes_)), "")
    if not kind and start[257:262] != b"ustar":
        looks = " but a web page" if start.lstrip()[:1] == b"<" else ""
        raise ArchiveError(f"{archive} is no zip or tar archive{looks}: delete it and fetch it again")
    raw.seek(0)
    with _damage_told(archive, ValueError, struct.error, OverflowError, NotImplementedError):
        if kind == "zip":
            yield from _zip_members(raw)
        else:
            yield from _tar_members(archive, raw, kind)


def contents(archive: Path, member: Member) -> Iterator[bytes]:
    """The bytes of a file, exactly as many as it declares."""
    left = member.size
    with _damage_told(archive), member.open() as source:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise refused(archive, member.name, "inflates to more than it declares")
            yield chunk
        if left:
            raise refused(archive, member.name, "ends too early: fetch the archive again")


@contextmanager
def _damage_told(archive: Path, *more: type[Exception]) -> Iterator[None]:
    """What the standard library says of a damaged archive, in one line."""
    damage: tuple[type[Exception], ...] = (*_DAMAGE, *more, OSError)
    try:
        yield
    except damage as error:
        if isinstance(error, OSError) and error.errno is not None:  # a disk's; those of gzip and bz2 have no number
            raise
        raise ArchiveError(
            f"{archive} is damaged or cut short ({error or type(error).__name__}): delete it and fetch it again"
        ) from error


def refused(archive: Path, name: str, fault: str) -> ArchiveError:
    """The error of a member that is not to be unpacked."""
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
                fault = "is compressed in a way that Python cannot undo: unpack the archive by hand"
            elif type_ == stat.S_IFLNK:
                fault = "is a link"
            elif type_ not in (0, stat.S_IFREG, stat.S_IFDIR):
                fault = "is a device or no file"
            elif "\\" in info.orig_filename or "\0" in info.orig_filename:
                fault = "has a name that is no plain relative path"
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
                fault = "is a device or no file"
            elif info.issparse():
                fault = "is a sparse file"
            size = 0 if info.isdir() else info.size
            yield Member(info.name, size, info.isdir(), fault, cast(Any, partial(file.extractfile, info)))
        # tarfile takes a damaged header, and the end of the file, for the end of the archive.
        forward.seek(file.offset)
        if forward.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError("the end is missing")
        stream.read(_CHUNK)  # to the end of what is compressed, whose checksum is compared there


class _Forward:
    """A stream for tarfile that only ever reads on: going back in a compressed one would inflate it from its beginning.

    tarfile steps back by a block at most, which is kept; and it would read headers of any declared size into memory.
    """

    _headers_left: int | None = _HEADERS  #: bytes that a member's headers may still have, while they are read

    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        self._archive = archive
        self._stream = stream
        self._read_to = 0
        self._at = 0
        self._kept = b""  # what was read last

    def headers_of(self, next_member: Callable[[], tarfile.TarInfo | None]) -> tarfile.TarInfo | None:
        """The next member, if its headers are no more than `_HEADERS`."""
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

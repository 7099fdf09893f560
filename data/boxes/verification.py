"""Comparison of the images on disk with those that a boxes file was made from."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..contents import hash_of, stamp_of_folder
from ..errors import AgnetError, DatasetError, MismatchError
from ..listing import OnDisk
from ..regions import NOT_THERE, time_of_change
from ..text import printable, rows_called
from . import schema
from .reader import Listing

READ_AT_MOST = 4 * 10**9  #: bytes: about ten seconds of disk time, less than an epoch on that many images
UNREADABLE = "cannot be read"  #: start of the difference of an image that cannot be read
_THREADS = 8  # reading and hashing release Python's lock
_DIGITS = 16  # in a content hash
_ASKING, _STAMPS = 16, 256  # threads that query file sizes and times, and files per task

Watch = Callable[[str, int], Callable[[int, dict[str, float]], None]]


def changed_images(
    listing: Listing, root: Path, *, trust_times: bool, progress: Callable[[int], None] = lambda done: None
) -> Iterator[tuple[str, str]]:
    """Yield the images that changed since their regions were found: (name, difference), in order.

    Args:
        listing: Listing of the boxes file.
        root: Current folder of the images.
        trust_times: Whether a file with the same size and modification time counts as unchanged, as in version control,
            so that only other files are read. Otherwise, every file is read.
        progress: Function called with the number of images checked.
    """
    names = [name.decode() for name in listing.names.tolist()]
    sizes, times = stamps_of(root, names)
    there, was_read = times != NOT_THERE, listing.contents != b""
    same_size = sizes == listing.file_bytes
    same_stamp = same_size & (schema.modified_text(times) == listing.modified_utc)
    known = np.where(was_read, same_stamp & trust_times, ~there)

    def judge(row: int) -> str | None:
        if not was_read[row]:
            return "could not be opened then and can be now" if os.access(root / names[row], os.R_OK) else None
        if not there[row]:
            folder = _locked_folder(root, names[row])
            return f"{UNREADABLE}: {_no_entry(folder)}" if folder else "is gone"
        if not same_size[row]:
            return _other_size(listing.file_bytes[row], sizes[row])
        return _other_content(root / names[row], listing.contents[row])

    suspects = np.flatnonzero(~known).tolist()
    with _readers() as pool:
        for row, difference in zip(suspects, pool.map(judge, suspects), strict=True):
            progress(row)
            if difference:
                yield names[row], difference
    progress(len(names))


@dataclass(frozen=True)
class Look:
    """Result of a check of images: the numbers of those that differ from the ones in the boxes file."""

    listing: Listing
    root: Path
    rows: np.ndarray  #: of all images checked
    missing: tuple[int, ...]  #: increasing, like `changed`
    changed: dict[int, str]  #: with the difference

    def error(self, kind: str = "") -> AgnetError | None:
        """Error with the count, the first image and the remedy, or None. ``kind`` names the images checked."""
        rows = rows_called(self.listing.of_clips)
        kind = kind or rows
        path, root, there = self.listing.path, self.root, len(self.rows) - len(self.missing)
        unreadable, missing, changed = self._sorted_out()
        told, remedies = [], []
        if unreadable:
            row, why = next(iter(unreadable.items()))
            told.append(
                f"{len(unreadable):,} of the {len(self.rows):,} {kind} of {path} cannot be read under {root}, first "
                f"{self._name(row)} ({why})"
            )
            remedies.append(
                f"make them readable for this user (if they are yours: chmod -R u+rX {shlex.quote(str(root))})"
            )
        if missing:
            first = self._name(missing[0])
            why = _why_missing(root, first)
            if len(missing) == len(self.rows):
                looked = f"looked for {root / first}: {why}"
                return DatasetError(
                    printable(f"the {rows} of {path} are not under {root} ({looked}); say where with --root")
                )
            are = self._of_all(len(missing), kind, "is", "are")
            told.append(f"{are} missing under {root}, first {first} ({why})")
        if changed:
            row, what = next(iter(changed.items()))
            have = self._of_all(len(changed), kind, "has", "have")
            told.append(f"{have} changed since that file was made, first {root / self._name(row)} ({what})")
        if missing or changed:
            elsewhere = ", or say with --root where they are" if 2 * there < len(self.rows) else ""
            remedies.append(f"restore the original {rows}, or run the same agnet propose with --restart{elsewhere}")
        if not told:
            return None
        error = MismatchError if changed and not (missing or unreadable) else DatasetError
        return error(printable("; ".join([*told, *remedies])))

    def _sorted_out(self) -> tuple[dict[int, str], list[int], dict[int, str]]:
        """The images that cannot be read, with the reason; the missing ones; the changed ones, with the difference."""
        locked: dict[str, Path | None] = {}  # by folder: there may be a hundred thousand images
        unreadable, missing = {}, []
        for row in self.missing:
            name = self._name(row)
            place = name.rpartition("/")[0]
            if place not in locked:
                locked[place] = _locked_folder(self.root, name)
            if folder := locked[place]:
                unreadable[row] = _no_entry(folder)
            else:
                missing.append(row)
        told = {row: what for row, what in self.changed.items() if what.startswith(UNREADABLE)}
        unreadable |= {row: what.removeprefix(f"{UNREADABLE}: ") for row, what in told.items()}
        return dict(sorted(unreadable.items())), missing, {k: v for k, v in self.changed.items() if k not in told}

    def _name(self, row: int) -> str:
        return self.listing.names[row].decode()

    def _of_all(self, count: int, kind: str, one: str, more: str) -> str:
        return f"{count:,} of the {len(self.rows):,} {kind} of {self.listing.path} {one if count == 1 else more}"


def look_at_images(
    listing: Listing,
    root: Path,
    rows: np.ndarray,
    *,
    contents: bool = True,
    watch: Watch = lambda what, images: lambda done, values: None,
    say: Callable[[str], None] = lambda text: None,
) -> Look:
    """Check before use that images are the ones whose regions the file holds.

    The check costs one query of size and modification time per file: another size means another image, the same size
    and time the same image. If only the time differs, as after copying, the content decides. Such files are read; if
    they exceed `READ_AT_MOST`, an evenly spaced selection of them is.

    Args:
        listing: Listing of the boxes file.
        root: Folder of the images.
        rows: Numbers of the images to be used, increasing.
        contents: Whether files are read; otherwise, only missing files and other sizes are reported.
        watch: Function called with the files being read, for a progress bar.
        say: Function called with a line of text if not all of those files were read.
    """
    names = [name.decode() for name in listing.names[rows].tolist()]
    sizes, times = stamps_of(root, names)
    there = times != NOT_THERE
    known = there & (np.char.str_len(listing.contents[rows]) == _DIGITS)  # optional in files of other programs
    resized = known & (sizes != listing.file_bytes[rows])
    retimed = np.flatnonzero(known & ~resized & (schema.modified_text(times) != listing.modified_utc[rows]))
    if not contents:
        retimed = retimed[:0]
    read = retimed[:: max(1, -(-int(sizes[retimed].sum()) // READ_AT_MOST))]
    reasons = {k: _other_size(listing.file_bytes[rows[k]], sizes[k]) for k in np.flatnonzero(resized).tolist()}
    with _readers() as pool:
        shown = watch("compare with the boxes file", len(read)) if len(read) else None
        digests = listing.contents[rows[read]]
        found = pool.map(lambda k, digest: _other_content(root / names[k], digest), read.tolist(), digests.tolist())
        for done, (k, reason) in enumerate(zip(read.tolist(), found, strict=True), 1):
            if reason:
                reasons[k] = reason
            if shown:
                shown(done, {})
    if len(read) < len(retimed):
        same = len(read) - sum(k in reasons for k in read.tolist())
        say(
            f"{len(retimed):,} {rows_called(listing.of_clips)} have another time of change than in {listing.path}; "
            f"{len(read):,} of them were "
            f"read, of which {same:,} are the same; agnet inspect --verify reads all"
        )
    return Look(
        listing=listing,
        root=root,
        rows=rows,
        missing=tuple(rows[~there].tolist()),
        changed={int(rows[k]): reasons[k] for k in sorted(reasons)},
    )


@contextmanager
def _readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that read files. After an interrupt, they skip waiting tasks."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def stamps_of(root: Path, names: list[str] | tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Size in bytes and modification time in nanoseconds since 1970 of each file, int64.

    Of a folder of frames, the sum of the sizes and the latest time. A missing file, or a device or a folder without
    frames in its place, has the time `NOT_THERE`.
    """
    chunks = [names[first : first + _STAMPS] for first in range(0, len(names), _STAMPS)]
    if len(chunks) < 2:
        stamps = [_stamps(str(root), chunk) for chunk in chunks]
    else:
        # On a network disk each query has to wait, so threads overlap them; on a local disk, they cost nothing. Listing
        # folders instead would query each file, too, except on Windows.
        with ThreadPoolExecutor(_ASKING) as pool:
            stamps = list(pool.map(partial(_stamps, str(root)), chunks))
    together = np.concatenate([np.zeros((0, 2), dtype=np.int64), *stamps])
    return together[:, 0], together[:, 1]


def _stamps(root: str, names: Sequence[str]) -> np.ndarray:
    """Size and time of each file, int64 ``(names, 2)``."""
    stamps = np.tile(np.array([0, NOT_THERE], dtype=np.int64), (len(names), 1))
    for row, name in enumerate(names):
        try:
            status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118 - called for every image
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            stamps[row] = status.st_size, time_of_change(status.st_mtime_ns)
        elif stat.S_ISDIR(status.st_mode):
            with suppress(OSError):
                stamps[row] = stamp_of_folder(os.path.join(root, name)) or stamps[row]  # noqa: PTH118
    return stamps


def _locked_folder(root: Path, name: str) -> Path | None:
    """The first folder on the way from ``root`` to a file that may not be entered, if there is one."""
    for folder in [root / parent for parent in Path(name).parents][::-1]:
        try:
            os.stat(os.path.join(folder, "."))  # noqa: PTH116, PTH118 - Path drops the dot, which asks to enter it
        except PermissionError:
            return folder
        except OSError:
            return None
    return None


def _no_entry(folder: Path) -> str:
    return f"no permission to enter the folder {folder}"


def _why_missing(root: Path, name: str) -> str:
    """Reason why there is no file of this name below ``root``."""
    path = root / name
    try:
        return "it has come back" if stat.S_ISREG(path.stat().st_mode) else "it is a folder or device now"
    except OSError as error:
        reason = str(error.strerror)
    if path.is_symlink():
        return "it is a link that leads nowhere"
    above = [root / parent for parent in Path(name).parents][::-1]  # starting with the root
    lost = next((folder for folder in above if not folder.exists()), None)
    with suppress(OSError):  # a folder may not be readable
        here = OnDisk(root).file(name) if lost != root else None
        if here is not None:
            return f"it is called {here} there, in another spelling"
    return f"there is no folder {lost}" if lost else reason


def _other_size(then: int, now: int) -> str:
    return f"had {then:,} bytes and has {now:,} now"


def _other_content(path: Path, digest: bytes) -> str | None:
    try:
        return None if hash_of(path).encode() == digest else "has different content"
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror or error}"

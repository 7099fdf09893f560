"""Files that appear complete or not at all, whatever interrupts their writing: a kill, a signal, a full disk."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import ConfigurationError

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``path``, durably, if and only if the block ends well.

    Contents are flushed to disk before the rename and the rename after it: neither h5py nor numpy does so,
    and a power cut would leave an empty file under the final name.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE and error.filename in (None, str(unfinished)):
            error.filename = str(path)  # what the user has named; a full disk names nothing
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_writable(path: Path, remedy: str) -> None:
    """Raise `ConfigurationError` unless `atomic_file` may write ``path``: asked before the work, not after it."""
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{path} cannot be written, for want of permission in the folder {folder}; {remedy}")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigurationError(f"{path} is write-protected and would be replaced; {remedy}")


def check_folder_writable(folder: Path, remedy: str) -> None:
    """Raise `ConfigurationError` unless files may be made in ``folder``, which need not be there yet."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not there.is_dir():
        raise ConfigurationError(f"{folder} cannot be a folder: {there} is a file; {remedy}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{folder} cannot be written to, for want of permission in {there}; {remedy}")


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, complete or not at all, its lines ending alike on every system."""
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def one_process(lock: Path, complaint: Exception) -> Iterator[None]:
    """The block, in one process at a time for the file ``lock``; raises ``complaint`` while another is in it."""
    import filelock  # here: networks are saved without it

    held = filelock.FileLock(lock)
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        raise complaint from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps open files
            lock.unlink()
        held.release()


class PatientFile(io.FileIO):
    """A new file that keeps its first write error for `check` and the end of the block, and pretends to go on.

    HDF5 crashes the process when its writes fail on a full disk; with this between them it does not notice.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while len(view) and self._error is None:
            try:
                view = view[super().write(view) or 0 :]
            except OSError as error:
                self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def check(self) -> None:
        """Raise the first error there was."""
        if self._error is not None:
            raise self._error

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[arg-type]
        self.check()


@contextmanager
def interrupts_postponed() -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM raise `KeyboardInterrupt` when the yielded function is called, or at the end of the block.

    For code that calls into libraries which would swallow an exception that arrives at any moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signals are the main thread's
        return
    arrived: list[int] = []

    def check() -> None:
        if arrived:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda got, frame: arrived.append(got))
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    check()

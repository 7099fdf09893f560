"""Files that appear complete or not at all, even if writing is interrupted by a kill, a signal or a full disk."""

from __future__ import annotations

import errno
import io
import os
import shutil
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
    """Yield a path to write to; it becomes ``path``, durably, if and only if the block succeeds.

    The contents are flushed to disk before the rename, and the rename after it. Neither h5py nor numpy does so, and
    a power cut would leave an empty file under the final name.
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
        _name_final(error, unfinished, path)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to write into; if and only if the block succeeds, it becomes ``path``, replacing a folder.

    Everything is flushed to disk at once before the rename, as a flush for each of many files would take longer than
    writing them.
    """
    unfinished, replaced = (path.with_name(f".{path.name}.agnet-{end}") for end in ("unfinished", "replaced"))
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
        unfinished.mkdir()
        yield unfinished
        if hasattr(os, "sync"):  # not on Windows
            os.sync()
        if path.exists():
            path.replace(replaced)
        unfinished.replace(path)
    except BaseException as error:
        _name_final(error, unfinished, path)
        shutil.rmtree(unfinished, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _name_final(error: BaseException, unfinished: Path, path: Path) -> None:
    """Let an error of writing name the file or folder that the user named; a full disk reports no name."""
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        told = error.filename
        if told is None or (isinstance(told, str) and Path(told).is_relative_to(unfinished)):
            error.filename = str(path)


def check_writable(path: Path, remedy: str) -> None:
    """Raise `ConfigurationError` unless `atomic_file` can write ``path``. For use before the work, not after it."""
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{path} cannot be written: no permission in the folder {folder}; {remedy}")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigurationError(f"{path} is write-protected and would be replaced; {remedy}")


def existing_part(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists; what a folder hides counts as not existing."""
    # Path.exists raises PermissionError below a folder that may not be entered.
    return next((one for one in (path, *path.absolute().parents) if os.path.exists(one)), path)  # noqa: PTH110


def check_folder_writable(folder: Path, remedy: str) -> None:
    """Raise `ConfigurationError` unless files can be created in ``folder``, which need not exist yet."""
    there = existing_part(folder)
    if not there.is_dir():
        raise ConfigurationError(f"{folder} cannot be a folder: {there} is a file; {remedy}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{folder} cannot be written to: no permission in {there}; {remedy}")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, complete or not at all, with the same line endings on every system."""
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def one_process(lock: Path, complaint: Exception) -> Iterator[None]:
    """Run the block in one process at a time per ``lock`` file; raise ``complaint`` while another one runs it."""
    import filelock  # imported here: saving networks does not need it

    held = filelock.FileLock(lock)
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        raise complaint from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows refuses to delete open files
            lock.unlink()
        held.release()


class PatientFile(io.FileIO):
    """A new file that remembers its first write error for `check` and the end of the block, and reports success.

    HDF5 crashes the process when a write fails on a full disk; this class hides the failure from it.
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
        """Raise the first write error, if any."""
        if self._error is not None:
            raise self._error

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[arg-type]
        self.check()


@contextmanager
def interrupts_postponed() -> Iterator[Callable[[], None]]:
    """Postpone SIGINT and SIGTERM. The yielded function or the block's end raises `KeyboardInterrupt` for them.

    For calls into libraries that would swallow an exception raised at an arbitrary moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread receives signals
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

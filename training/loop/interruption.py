"""Handle SIGINT and SIGTERM during training: record the signal and stop between two steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SAME_SECONDS = 3.0  # torchrun forwards a Ctrl-C that its processes have already received from the terminal


class Interrupted(Exception):
    """Raised when a signal has stopped a run and its state is saved.

    Args:
        number: Signal number.
        where: Readable description of the progress of the run.
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(where)
        self.number, self.where = number, where

    @property
    def exit_code(self) -> int:
        """Exit code by which shells and schedulers recognise this signal."""
        return 128 + self.number


class Interruption:
    """Context manager that records SIGINT and SIGTERM in ``number``; it does nothing outside the main thread.

    A second signal, sent because the end of the step takes too long, raises `KeyboardInterrupt` immediately, except
    within a `saving` block.
    """

    def __init__(self) -> None:
        self.number = 0  #: number of the first signal; 0 until one arrives
        self._when = 0.0
        self._saving = False

    def __enter__(self) -> Interruption:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Protect a block from interruption by a second signal."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._when = number, now
        elif not self._saving and now - self._when > _SAME_SECONDS:
            raise KeyboardInterrupt

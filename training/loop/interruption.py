"""Signals that end a run: noted when they arrive, obeyed between two steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SAME_SECONDS = 3.0  # torchrun passes on the Ctrl-C that its processes got from the terminal already


class Interrupted(Exception):
    """A run was stopped by a signal, and its state is saved.

    Args:
        number: of the signal.
        where: how far the run came, for people.
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(where)
        self.number, self.where = number, where

    @property
    def exit_code(self) -> int:
        """What shells and schedulers take for ended by this signal."""
        return 128 + self.number


class Interruption:
    """SIGINT and SIGTERM within its block are noted in ``number``; outside the main thread there are none to note.

    Who sends another one later than that does not want to wait for the end of a step: it raises `KeyboardInterrupt`
    at once, but never while something is being `saving`.
    """

    def __init__(self) -> None:
        self.number = 0  #: of the first signal, 0 before it
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
        """A block that no second signal breaks."""
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

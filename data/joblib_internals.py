"""Undocumented behaviour of joblib and its backends that agnet relies on: private names and error messages.

An upgrade may change any of it without notice. It is therefore collected here, each item with a test that provokes the
real behaviour (`tests/test_joblib_internals.py`), and `setup.cfg` excludes joblib's next major version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from joblib._parallel_backends import LokyBackend
from joblib.externals.loky import ProcessPoolExecutor as ProcessPoolExecutor  # joblib's own copy
from joblib.parallel import get_active_backend as get_active_backend  # chosen by `joblib.parallel_config`

Item = TypeVar("Item")
Result = TypeVar("Result")

# Exceptions by which loky, Dask and Ray report the death of a worker process; Dask and Ray need not be installed.
_DEATHS = frozenset({"BrokenProcessPool", "KilledWorker", "RayActorError"})
_HOW = re.compile(r"(SIG\w+)\(-\d+\)|EXIT\((\d+)\)")


def is_loky(backend: object) -> bool:
    """Whether the backend starts processes on this machine, joblib's default."""
    return isinstance(backend, LokyBackend)


def is_dask(backend: object) -> bool:
    """Whether the backend is joblib's for Dask. Compares names, because importing its module loads Dask."""
    return type(backend).__name__ == "DaskDistributedBackend"


def can_stream(backend: Any) -> bool:
    """Whether the backend supports ``return_as="generator"``; joblib refuses it only when it is used."""
    return bool(backend.supports_return_generator)


def submit_to_dask(backend: Any, task: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit the task to the backend's Dask client, with the options that the user gave the backend.

    joblib itself (1.6) waits forever for a chunk whose workers were killed.
    """
    future: Future[Result] = backend.client.submit(task, item, pure=False, **backend.submit_kwargs)
    return future


def is_death(error: Exception) -> bool:
    """Whether the error reports the death of a worker process, in any backend.

    loky writes to a worker that it starts, and to the process that tracks its semaphores: if one of them is killed at
    that moment, the error is only that of the pipe.
    """
    if isinstance(error, BrokenPipeError):
        return not is_from_worker(error)
    return any(kind.__name__ in _DEATHS for kind in type(error).__mro__)


def cause_of_death(error: Exception) -> tuple[str, str]:
    """How a loky process died, and the last line of its output about it.

    Returns: a signal's name, "EXIT 1" or "" if unknown; the line, or "" if there was no output.
    """
    if isinstance(error, OSError):  # while it was started
        return "", error.strerror or type(error).__name__
    told = _HOW.search(str(error))
    lines = [line for line in str(error.__cause__ or "").splitlines() if line.strip(' "')]
    return "" if told is None else told[1] or f"EXIT {told[2]}", lines[-1].strip() if lines else ""


def is_from_worker(error: Exception) -> bool:
    """Whether a task raised the error: loky attaches the worker's traceback to such errors as their cause."""
    return error.__cause__ is not None


def lacks_threads(error: Exception) -> bool:
    """Whether the system had no room for loky's own threads, for which Python gives only this message."""
    return "can't start new thread" in str(error)

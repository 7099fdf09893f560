"""What agnet uses of joblib and its backends that they do not promise: private names, and the words of errors.

An upgrade may change any of it without a word. So all of it is here, each with a test that provokes the real thing
(`tests/test_joblib_internals.py`), and `setup.cfg` ends before joblib's next major version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from joblib._parallel_backends import LokyBackend
from joblib.externals.loky import ProcessPoolExecutor as ProcessPoolExecutor  # its own copy
from joblib.parallel import get_active_backend as get_active_backend  # what `joblib.parallel_config` chose

Item = TypeVar("Item")
Result = TypeVar("Result")

# How loky, Dask and Ray say that a worker process died; the latter two need not be installed.
_DEATHS = frozenset({"BrokenProcessPool", "KilledWorker", "RayActorError"})
_HOW = re.compile(r"(SIG\w+)\(-\d+\)|EXIT\((\d+)\)")


def is_loky(backend: object) -> bool:
    """Whether it starts processes on this machine, joblib's usual backend."""
    return isinstance(backend, LokyBackend)


def is_dask(backend: object) -> bool:
    """Whether it is joblib's for Dask, whose module loads Dask."""
    return type(backend).__name__ == "DaskDistributedBackend"


def can_stream(backend: Any) -> bool:
    """Whether results can be had one by one (``return_as="generator"``): joblib refuses it only once it is asked."""
    return bool(backend.supports_return_generator)


def submit_to_dask(backend: Any, task: Callable[[Item], Result], item: Item) -> Future[Result]:
    """The task begun by the client that joblib's backend holds, with the options that the user gave the backend.

    joblib itself (1.6) waits forever for a chunk that killed workers.
    """
    future: Future[Result] = backend.client.submit(task, item, pure=False, **backend.submit_kwargs)
    return future


def is_death(error: Exception) -> bool:
    """Whether it says that a worker process died, of whatever backend."""
    return any(kind.__name__ in _DEATHS for kind in type(error).__mro__)


def cause_of_death(error: Exception) -> tuple[str, str]:
    """How a process of loky's died, and the last line of what it said of it.

    Returns: a signal's name, "EXIT 1", or "" where it is not known; "" where it said nothing.
    """
    told = _HOW.search(str(error))
    lines = [line for line in str(error.__cause__ or "").splitlines() if line.strip(' "')]
    return "" if told is None else told[1] or f"EXIT {told[2]}", lines[-1].strip() if lines else ""


def is_from_worker(error: Exception) -> bool:
    """Whether a task raised it: loky gives what it brings back the worker's traceback for a cause."""
    return error.__cause__ is not None


def lacks_threads(error: Exception) -> bool:
    """Whether the system has no room for loky's own threads, of which Python says no more than this."""
    return "can't start new thread" in str(error)

"""Images through workers: in order, surviving dead ones. Chunks on whatever joblib backend the user chose; single
images for someone who is slower than the workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import joblib
from joblib._parallel_backends import LokyBackend
from joblib.externals.loky import ProcessPoolExecutor

from .memory import keep_freed_memory

Chunk = Sequence[str]
Result = TypeVar("Result")
Item = TypeVar("Item")
Task = Callable[[Chunk], list[Result]]

# What is recorded of an image that killed its process.
LOST = (
    "the process that worked on it was killed, twice, with nothing else to do: its decoder crashes, or needs more "
    "memory than there is"
)

# How loky, Dask and Ray say that a worker process died; the latter two need not be installed.
_DEATHS = frozenset({"BrokenProcessPool", "KilledWorker", "RayActorError"})
# An innocent image may be struck once by whatever killed its neighbours; twice, alone, is no accident.
_LIVES = 2
_PATIENCE = 5.0  # seconds for an image that no one wants any more
# Of the libraries that workers may use; their pools would only fight over the cores.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
# Chunks a worker for backends that cannot stream: they wait for the slowest of each batch.
_BATCH = 8


def in_parallel(
    chunks: Sequence[Chunk], task: Task[Result], lost: Callable[[str], Result], jobs: int | None
) -> Generator[list[Result], None, None]:
    """The results of ``task`` for each chunk, in order.

    When a worker dies, the chunks then under way are done again in a process of their own, one after the other, and
    the images of a chunk that kills it again one by one. So an image that crashes its decoder costs itself alone.

    Args:
        chunks: names of images.
        task: a picklable function of a chunk.
        lost: what to record for an image that killed its process.
        jobs: workers; by default as the caller's ``joblib.parallel_config`` says, else all cores. One worker is a
            process of its own too, unless a backend was chosen that says otherwise.
    """
    done = 0
    while done < len(chunks):
        begun = done
        waiting = _Counted(chunks[done:])
        try:
            with closing(_stream(waiting, task, jobs)) as results:
                for result in results:
                    yield result
                    done += 1
        except Exception as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # joblib stumbled while it was tidying up after it
            if not _is_death(error):
                raise
            with closing(_Process()) as process:
                for chunk in chunks[done : begun + waiting.given]:
                    yield _one_by_one(chunk, task, lost, process)
                    done += 1


def ahead_by_processes(
    items: Iterable[Item], task: Callable[[Item], Result], lost: Callable[[Item], Result], jobs: int, limit: int
) -> Generator[Result, None, None]:
    """The results of ``task`` for each item, in order, by processes that work ahead of whoever asks for them.

    A worker that dies costs the item that killed it, as in `in_parallel`.

    Args:
        items: picklable; taken when there is room for one more.
        task: picklable.
        lost: the result for an item that killed its process.
        jobs: processes on this machine.
        limit: items, at most, that have been taken and whose results have not been asked for.
    """
    remaining = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    executor: ProcessPoolExecutor | None = None
    try:
        while True:
            executor = executor or ProcessPoolExecutor(jobs, initializer=start_local_worker, env=_ONE_THREAD)
            for item in islice(remaining, limit - len(waiting)):
                waiting.append((item, _submit(executor, task, item)))
            if not waiting:
                return
            if not _died(waiting[0][1]):
                yield waiting.popleft()[1].result()
                continue
            executor.shutdown(kill_workers=True)
            executor = None
            with closing(_Process()) as process:
                while waiting:
                    item, future = waiting.popleft()
                    if future.done() and not _died(future):
                        yield future.result()
                    else:
                        yield from _one_by_one([item], partial(_each, task), lost, process)
    finally:
        if executor is not None:
            # loky stumbles over results that arrive while it kills, so what is under way ends first, if it does.
            wait([future for _, future in waiting if not future.cancel()], timeout=_PATIENCE)
            executor.shutdown(kill_workers=True)


def ahead_by_threads(
    items: Iterable[Item], task: Callable[[Item], Result], jobs: int, limit: int
) -> Generator[Result, None, None]:
    """As `ahead_by_processes`, for items that are themselves work to get and too large to send: frames of a video.

    One thread takes the items, ``jobs`` threads do the task.
    """
    remaining, end = iter(items), object()

    def work(taken: Future[Any]) -> Any:
        item = taken.result()
        return end if item is end else task(item)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(jobs) as workers:
        waiting: deque[Future[Any]] = deque()
        try:
            while True:
                while len(waiting) < limit:
                    waiting.append(workers.submit(work, reader.submit(next, remaining, end)))
                result = waiting.popleft().result()
                if result is end:
                    return
                yield result
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
            workers.shutdown(wait=False, cancel_futures=True)


def _submit(executor: ProcessPoolExecutor, task: Callable[[Item], Result], item: Item) -> Future[Result]:
    """The task begun, or what says that the pool is dead."""
    try:
        return executor.submit(task, item)
    except Exception as error:
        if not _is_death(error):
            raise
        dead: Future[Result] = Future()
        dead.set_exception(error)
        return dead


def _died(future: Future[Result]) -> bool:
    error = future.exception()
    return isinstance(error, Exception) and _is_death(error)


def _each(task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [task(item) for item in items]


def start_local_worker() -> None:
    """What a worker on this machine does first: it leaves Ctrl-C to its parent, and ends when its parent is gone."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and os.name == "posix":  # elsewhere a process keeps its parent's number for good
        threading.Thread(target=_end_after, args=(parent.pid,), daemon=True).start()


def _end_after(parent: int | None) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class _Counted:
    """Chunks to give away, and how many of them were."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks, self.given = chunks, 0

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.chunks:
            self.given += 1
            yield chunk


def _stream(chunks: Iterable[Chunk], task: Task[Result], jobs: int | None) -> Generator[list[Result], None, None]:
    backend, configured = joblib.parallel.get_active_backend()
    workers = jobs or configured or -1
    if isinstance(backend, LokyBackend) and joblib.effective_n_jobs(workers) == 1:
        with closing(_Process()) as process:
            yield from (process.run(task, chunk) for chunk in chunks)
    elif type(backend).__name__ == "DaskDistributedBackend":
        yield from _on_dask(backend, chunks, task, 2 * joblib.effective_n_jobs(workers))
    elif backend.supports_return_generator:
        # A chunk is work enough to travel alone: joblib's own batches would only delay what is finished.
        begin = {"initializer": start_local_worker} if isinstance(backend, LokyBackend) else {}
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, **begin)
        results = parallel(joblib.delayed(task)(chunk) for chunk in chunks)
        try:
            yield from (result for result in results)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # whoever stops early knows that they do
                results.close()
    else:
        waiting = iter(chunks)
        # Entered once: each entry may start a pool, and Ray cannot count its workers before.
        with joblib.Parallel(n_jobs=workers, batch_size=1) as parallel:
            while batch := list(islice(waiting, _BATCH * max(1, joblib.effective_n_jobs(workers)))):
                yield from parallel(joblib.delayed(task)(chunk) for chunk in batch)


def _on_dask(
    backend: Any, chunks: Iterable[Chunk], task: Task[Result], ahead: int
) -> Generator[list[Result], None, None]:
    """By the client that joblib's backend holds: joblib itself (1.6) waits forever for a chunk that killed workers."""
    futures: deque[Any] = deque()
    try:
        for chunk in chunks:
            futures.append(backend.client.submit(task, chunk, pure=False, **backend.submit_kwargs))
            if len(futures) == ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        futures.clear()  # tells the cluster to forget them


def _one_by_one(
    chunk: Sequence[Item],
    task: Callable[[Sequence[Item]], list[Result]],
    lost: Callable[[Item], Result],
    process: _Process,
) -> list[Result]:
    """A chunk's results, by a process that may die of some of its images."""
    for _ in range(_LIVES):
        result = process.survive(task, chunk)
        if result is not None:
            return result
        if len(chunk) > 1:
            return [single for name in chunk for single in _one_by_one([name], task, lost, process)]
    return [lost(name) for name in chunk]


def _is_death(error: Exception) -> bool:
    return any(kind.__name__ in _DEATHS for kind in type(error).__mro__)


class _Process:
    """One worker process, started when there is something to do, and again after its death."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def run(self, task: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]) -> list[Result]:
        self._executor = self._executor or ProcessPoolExecutor(max_workers=1, initializer=start_local_worker)
        return self._executor.submit(task, chunk).result()

    def survive(self, task: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]) -> list[Result] | None:
        """The result, or None if the process died of it."""
        try:
            return self.run(task, chunk)
        except Exception as error:
            if not _is_death(error):
                raise
            self.close()
            return None

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
        self._executor = None

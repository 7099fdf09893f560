"""Images processed by workers, in order, with recovery from workers that die.

Chunks run on the joblib backend that the user chose; single images run ahead of a slower consumer.
"""

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
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

import joblib

from .errors import WorkerError
from .faults import PASSING
from .joblib_internals import (
    ProcessPoolExecutor,
    can_stream,
    cause_of_death,
    get_active_backend,
    is_dask,
    is_death,
    is_from_worker,
    is_loky,
    lacks_threads,
    submit_to_dask,
)
from .memory import keep_freed_memory
from .python_path import current_folder_hidden, strange_modules

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Chunk = Sequence[str]
Result = TypeVar("Result")
Item = TypeVar("Item")
Task = Callable[[Chunk], list[Result]]

# Reasons recorded for an image that killed its process. Only a decoder's crash is a permanent fault of the image.
_CRASHED = (
    "its worker process was killed twice while working on it alone, but not with other images: its decoder "
    "crashes ({death})"
)
_KILLED = f"{PASSING}its worker process was killed twice while working on it alone: "
_REASONS = {
    "SIGKILL": f"{_KILLED}most likely it needs more memory than there is",
    "SIGBUS": f"{_KILLED}most likely a disk is full or failed (SIGBUS)",
    "": f"{_KILLED}its decoder may crash, or need more memory than there is",
}
# Signals that end a process after an illegal operation.
_CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"})

# An intact image may be hit once by whatever killed its neighbours; two deaths alone are no accident.
_LIVES = 2
# After this many deaths without a success, other images are tried: if they die, too, images are not the cause.
_STRANGERS = 4
_PATIENCE = 5.0  # seconds to wait for an image whose result is no longer needed
# Environment of libraries that workers may use; their thread pools would only compete for the cores.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
# Chunks per worker and batch for backends that cannot stream: each batch waits for its slowest chunk.
_BATCH = 8


def in_parallel(
    chunks: Sequence[Chunk], task: Task[Result], lost: Callable[[str, str], Result], jobs: int | None
) -> Generator[list[Result], None, None]:
    """Yield the results of ``task`` for each chunk, in order.

    If a worker dies, the chunks in progress are repeated one after the other in a separate process, and the images of a
    chunk that kills it again one by one. Thus an image that crashes its decoder costs only its own result.

    Args:
        chunks: Names of images.
        task: Picklable function of a chunk; for an empty chunk, it does nothing.
        lost: Function that gives the result for an image that killed its process, from its name and the reason; a
            reason that begins with `PASSING` may not occur in another run.
        jobs: Number of workers; by default as set by the caller's ``joblib.parallel_config``, else all cores. A single
            worker is a separate process, too, unless the chosen backend says otherwise.

    Raises: `WorkerError` if workers cannot be started, or die without a task or on every image.
    """
    done = 0
    elsewhere = [chunks[number * len(chunks) // _STRANGERS][-1] for number in range(_STRANGERS) if chunks]
    with current_folder_hidden(), closing(_Alone(task, lost, lambda: elsewhere)) as alone:
        while done < len(chunks):
            begun = done
            waiting = _Counted(chunks[done:])
            others = set(multiprocessing.active_children())
            try:
                with closing(_stream(waiting, task, jobs)) as results:
                    for result in results:
                        yield result
                        alone.good = chunks[done][-1:]
                        done += 1
            except Exception as error:
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise error.__context__ from None  # joblib failed while it cleaned up after it
                if not is_death(error):
                    if is_loky(get_active_backend()[0]) and not is_from_worker(error) and _lacks_room(error):
                        raise _no_start(error, others) from None
                    raise
                for chunk in chunks[done : begun + waiting.given]:
                    yield alone.results(chunk)
                    done += 1
                alone.close()


def ahead_by_processes(
    items: Iterable[Item], task: Callable[[Item], Result], lost: Callable[[Item, str], Result], jobs: int, limit: int
) -> Generator[Result, None, None]:
    """Yield the results of ``task`` for each item, in order, computed by processes ahead of the consumer.

    A worker that dies costs only the item that killed it, as in `in_parallel`, which also lists the errors.

    Args:
        items: Picklable items; one is taken when there is room for it.
        task: Picklable function of an item.
        lost: Function that gives the result for an item that killed its process, from the item and the reason.
        jobs: Number of processes on this machine.
        limit: Maximum number of items that are taken and whose results are not consumed yet.
    """
    remaining = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    executor: ProcessPoolExecutor | None = None
    with (
        current_folder_hidden(),
        closing(_Alone(partial(_each, task), lost, lambda: [item for item, _ in waiting])) as alone,
    ):
        try:
            while True:
                executor = executor or _executor(jobs, env=_ONE_THREAD)
                for item in islice(remaining, limit - len(waiting)):
                    waiting.append((item, _submit(executor, task, item)))
                if not waiting:
                    return
                if not _died(waiting[0][1]):
                    item, future = waiting.popleft()
                    yield future.result()
                    alone.good = [item]
                    continue
                executor.shutdown(kill_workers=True)
                executor = None
                while waiting:
                    item, future = waiting.popleft()
                    if future.done() and not _died(future):
                        yield future.result()
                        alone.good = [item]
                    else:
                        yield from alone.results([item])
                alone.close()
        finally:
            if executor is not None:
                # loky fails on results that arrive while it kills workers, so running tasks get some time to finish
                # first.
                wait([future for _, future in waiting if not future.cancel()], timeout=_PATIENCE)
                executor.shutdown(kill_workers=True)


def ahead_by_threads(
    items: Iterable[Item], task: Callable[[Item], Result], jobs: int, limit: int
) -> Generator[Result, None, None]:
    """As `ahead_by_processes`, for items that take work to produce and are too large to send, such as video frames.

    One thread takes the items, ``jobs`` threads run the task.
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


def _executor(jobs: int, **options: Any) -> ProcessPoolExecutor:
    """An executor, which starts its workers later. Raises: `WorkerError` if the system has no room for it."""
    for _ in range(_LIVES):
        try:
            with _starting():
                return ProcessPoolExecutor(jobs, initializer=start_local_worker, **options)
        except BrokenPipeError as error:  # the process that tracks its semaphores was killed: the next try starts it
            broken = error
    raise _no_start(broken, set(multiprocessing.active_children()))


def _submit(executor: ProcessPoolExecutor, task: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit the task; the future holds the error if the pool is dead."""
    try:
        with _starting(), _interrupts_kept_from_workers():
            return executor.submit(task, item)
    except Exception as error:
        if not is_death(error):
            raise
        dead: Future[Result] = Future()
        dead.set_exception(error)
        return dead


def _died(future: Future[Result]) -> bool:
    error = future.exception()
    return isinstance(error, Exception) and is_death(error)


def _each(task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [task(item) for item in items]


def start_local_worker() -> None:
    """Initialise a worker on this machine: it leaves Ctrl-C to its parent and ends when its parent is gone."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and os.name == "posix":  # elsewhere, the parent's number stays after it ends
        threading.Thread(target=_end_after, args=(parent.pid,), daemon=True).start()


@contextmanager
def _interrupts_kept_from_workers() -> Iterator[None]:
    """Ctrl-C within the block reaches no process started in it, and this one at its end.

    A terminal sends it to workers, too, and until `start_local_worker` runs in them they would end with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # otherwise started within the block, where it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_after(parent: int | None) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _lacks_room(error: Exception) -> bool:
    return isinstance(error, (OSError, MemoryError)) or lacks_threads(error)


class _Counted:
    """Chunks to hand out, with a count of those handed out."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks, self.given = chunks, 0

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.chunks:
            self.given += 1
            yield chunk


def _stream(chunks: Iterable[Chunk], task: Task[Result], jobs: int | None) -> Generator[list[Result], None, None]:
    backend, configured = get_active_backend()
    workers = jobs or configured or -1
    if is_loky(backend) and joblib.effective_n_jobs(workers) == 1:
        with closing(_Process()) as process:
            yield from (process.run(task, chunk) for chunk in chunks)
    elif is_dask(backend):
        yield from _on_dask(backend, chunks, task, 2 * joblib.effective_n_jobs(workers))
    elif can_stream(backend):
        # A chunk is worth sending alone: joblib's own batches would only delay finished results.
        begin = {"initializer": start_local_worker} if is_loky(backend) else {}
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, **begin)
        with _interrupts_kept_from_workers() if is_loky(backend) else nullcontext():
            results = parallel(joblib.delayed(task)(chunk) for chunk in chunks)
        try:
            yield from (result for result in results)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # stopping early is deliberate
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
    """Submit chunks to Dask, at most ``ahead`` more than have been consumed."""
    futures: deque[Any] = deque()
    try:
        for chunk in chunks:
            futures.append(submit_to_dask(backend, task, chunk))
            if len(futures) == ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        futures.clear()  # tells the cluster to forget them


class _Alone(Generic[Item, Result]):
    """Items in progress when workers died, repeated in a separate process that may die of some; to be closed.

    Before an item is blamed for a death, something harmless is run under the same conditions: an empty chunk before the
    first item, and after each death an item that succeeded.

    Args:
        task, lost: As in `in_parallel`.
        others: Items to try if the first ones all die.
    """

    def __init__(
        self,
        task: Callable[[Sequence[Item]], list[Result]],
        lost: Callable[[Item, str], Result],
        others: Callable[[], Sequence[Item]],
    ) -> None:
        self.good: Sequence[Item] = ()  #: an item that its process survived; () if none yet
        self._task, self._lost, self._others = task, lost, others
        self._process = _Process()
        self._strangers = 0  # items lost before any item succeeded

    def results(self, chunk: Sequence[Item]) -> list[Result]:
        """Raises: `WorkerError` if the items are not the cause of the deaths."""
        if not self._process.alive:
            self._check(())
        if len(chunk) > 1:
            together = self._survive(chunk)
            if together is not None:
                return together
        # A neighbour may be the one that succeeds, so try all items before blaming any.
        tries = [self._life_or_death(item) for item in chunk]
        return [
            self._judged(item, one) if isinstance(one, str) else one[0] for item, one in zip(chunk, tries, strict=True)
        ]

    def close(self) -> None:
        self._process.close()

    def _survive(self, chunk: Sequence[Item]) -> list[Result] | None:
        result = self._process.survive(self._task, chunk)
        if result is not None:
            self.good = chunk[-1:]
        return result

    def _life_or_death(self, item: Item) -> list[Result] | str:
        """The result, or the cause of the last death if every process died."""
        for _ in range(_LIVES):
            result = self._survive([item])
            if result is not None:
                return result
        death = self._process.death
        if not self.good:
            self._strangers += 1
            if self._strangers == _STRANGERS:
                self._look_for_a_good_one(death)
        return death

    def _look_for_a_good_one(self, death: str) -> None:
        others = self._others()
        if others and all(self._survive([other]) is None for other in others):
            raise WorkerError(
                f"worker processes die whatever image they are given ({death or 'killed'}), most likely for lack of "
                "memory; no image is at fault. Use fewer --jobs, or a machine with more memory"
            )

    def _judged(self, item: Item, death: str) -> Result:
        self._check(())
        if self.good:
            self._check(self.good)
        # Under a memory limit, a failed allocation may crash a process.
        if self.good and death in _CRASHES and not _memory_is_limited():
            return self._lost(item, _CRASHED.format(death=death))
        return self._lost(item, _REASONS.get(death, _REASONS[""]))

    def _check(self, harmless: Sequence[Item]) -> None:
        """Raises: `WorkerError` if a process also dies of a harmless task."""
        for _ in range(_LIVES):
            if self._process.survive(self._task, harmless) is not None:
                return
        what = "whatever image they are given" if harmless else "as soon as they are started"
        raise WorkerError(f"worker processes end {what}: {self._why()}")

    def _why(self) -> str:
        strange = next(strange_modules(), None)
        if strange and not self._process.death.startswith("SIG"):
            return (
                f"{strange} is taken for Python's own module of that name, or a library's; rename it or move it "
                "elsewhere. No image is at fault"
            )
        if self._process.death == "SIGKILL":
            return "they are killed, most likely for lack of memory; use fewer --jobs. No image is at fault"
        told = self._process.complaint or f"{self._process.death or 'for an unknown reason'}, see above"
        return f"{told}. No image is at fault"


def _memory_is_limited() -> bool:
    """Whether this process and its children have a limit on memory, as set by ``ulimit -v``."""
    if resource is None:
        return False
    limits = [getattr(resource, name, None) for name in ("RLIMIT_AS", "RLIMIT_DATA")]
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits if limit is not None)


@contextmanager
def _starting() -> Iterator[None]:
    """Raises: `WorkerError` if the system has no room for more processes."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except (OSError, NotImplementedError, ImportError, RuntimeError, MemoryError) as error:
        if is_death(error):
            raise
        raise _no_start(error, others) from None


def _no_start(error: Exception, others: set[multiprocessing.process.BaseProcess]) -> WorkerError:
    """The error to raise. Terminates the processes that did start: they would never get a task."""
    for process in set(multiprocessing.active_children()) - others:
        process.terminate()
    why = error.strerror if isinstance(error, OSError) else str(error)
    return WorkerError(
        f"worker processes cannot be started: {why or type(error).__name__}; use fewer --jobs, or raise the limits of "
        "processes and open files (ulimit -u, ulimit -n) and the size of /dev/shm. No image is at fault"
    )


class _Process:
    """One worker process, started on first use and again after its death."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self.death = ""  #: how the last one died: a signal's name, "EXIT 1", or "" if unknown
        self.complaint = ""  #: the last line of its output about it, if any

    @property
    def alive(self) -> bool:
        return self._executor is not None

    def run(self, task: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]) -> list[Result]:
        with _starting(), _interrupts_kept_from_workers():
            self._executor = self._executor or _executor(1)
            future = self._executor.submit(task, chunk)
        return future.result()

    def survive(self, task: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]) -> list[Result] | None:
        """The result, or None if the process died of the task."""
        try:
            return self.run(task, chunk)
        except Exception as error:
            if not is_death(error):
                raise
            self.death, self.complaint = cause_of_death(error)
            self.close()
            return None

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
        self._executor = None

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

# What is recorded of an image that killed its process. Only a decoder's crash is the image's own for good.
_CRASHED = (
    "the process that worked on it was killed, twice, with nothing else to do, and others were not: its decoder "
    "crashes ({death})"
)
_KILLED = f"{PASSING}the process that worked on it was killed, twice, with nothing else to do: "
_REASONS = {
    "SIGKILL": f"{_KILLED}most likely it needs more memory than there is",
    "SIGBUS": f"{_KILLED}most likely a disk is full or failed (SIGBUS)",
    "": f"{_KILLED}its decoder may crash, or need more memory than there is",
}
# By which a process ends that does what it must not.
_CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"})

# An innocent image may be struck once by whatever killed its neighbours; twice, alone, is no accident.
_LIVES = 2
# Images that kill their processes before a single one has not: it is not the images, then.
_STRANGERS = 4
_PATIENCE = 5.0  # seconds for an image that no one wants any more
# Of the libraries that workers may use; their pools would only fight over the cores.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
# Chunks a worker for backends that cannot stream: they wait for the slowest of each batch.
_BATCH = 8


def in_parallel(
    chunks: Sequence[Chunk], task: Task[Result], lost: Callable[[str, str], Result], jobs: int | None
) -> Generator[list[Result], None, None]:
    """The results of ``task`` for each chunk, in order.

    When a worker dies, the chunks then under way are done again in a process of their own, one after the other, and
    the images of a chunk that kills it again one by one. So an image that crashes its decoder costs itself alone.

    Args:
        chunks: names of images.
        task: a picklable function of a chunk; an empty one is nothing to do.
        lost: what to record for an image that killed its process, by its name and the reason; one that begins with
            `PASSING` another run may not meet.
        jobs: workers; by default as the caller's ``joblib.parallel_config`` says, else all cores. One worker is a
            process of its own too, unless a backend was chosen that says otherwise.

    Raises: `WorkerError` when workers cannot be started, or die of nothing to do, or of every image.
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
                    raise error.__context__ from None  # joblib stumbled while it was tidying up after it
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
    """The results of ``task`` for each item, in order, by processes that work ahead of whoever asks for them.

    A worker that dies costs the item that killed it, as in `in_parallel`, which also says what is raised.

    Args:
        items: picklable; taken when there is room for one more.
        task: picklable.
        lost: the result for an item that killed its process, by the item and the reason.
        jobs: processes on this machine.
        limit: items, at most, that have been taken and whose results have not been asked for.
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
                with _starting():
                    executor = executor or ProcessPoolExecutor(jobs, initializer=start_local_worker, env=_ONE_THREAD)
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
    """What a worker on this machine does first: it leaves Ctrl-C to its parent, and ends when its parent is gone."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and os.name == "posix":  # elsewhere a process keeps its parent's number for good
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
    """Chunks to give away, and how many of them were."""

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
        # A chunk is work enough to travel alone: joblib's own batches would only delay what is finished.
        begin = {"initializer": start_local_worker} if is_loky(backend) else {}
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, **begin)
        with _interrupts_kept_from_workers() if is_loky(backend) else nullcontext():
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
    """Chunks handed to Dask, at most so many ``ahead`` of the one whose results are waited for."""
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
    """What was under way when workers died, in a process of its own that may die of some of it; to be closed.

    Whatever dies, something harmless is tried under the same conditions before an item is blamed: nothing at all
    before the first, and after each death an item that did well.

    Args:
        task, lost: as of `in_parallel`.
        others: items to try when the first ones all die.
    """

    def __init__(
        self,
        task: Callable[[Sequence[Item]], list[Result]],
        lost: Callable[[Item, str], Result],
        others: Callable[[], Sequence[Item]],
    ) -> None:
        self.good: Sequence[Item] = ()  #: an item that its process survived; () while there is none
        self._task, self._lost, self._others = task, lost, others
        self._process = _Process()
        self._strangers = 0  # that were lost while there was no good one

    def results(self, chunk: Sequence[Item]) -> list[Result]:
        """Raises: `WorkerError` when it is not the items that processes die of."""
        if not self._process.alive:
            self._check(())
        if len(chunk) > 1:
            together = self._survive(chunk)
            if together is not None:
                return together
        # A neighbour may be the good one, so that none is judged before all have been tried.
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
        """The result; or of what the last process died, every time."""
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
                f"worker processes die whatever image they are given ({death or 'killed'}), most likely for want of "
                "memory; no image is at fault. Take fewer --jobs, or run the same where there is more memory"
            )

    def _judged(self, item: Item, death: str) -> Result:
        self._check(())
        if self.good:
            self._check(self.good)
        # Where memory is limited by a number, what gets none of it may crash over that.
        if self.good and death in _CRASHES and not _memory_is_limited():
            return self._lost(item, _CRASHED.format(death=death))
        return self._lost(item, _REASONS.get(death, _REASONS[""]))

    def _check(self, harmless: Sequence[Item]) -> None:
        """Raises: `WorkerError` when a process dies of what is harmless, too."""
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
            return "they are killed, most likely for want of memory; take fewer --jobs. No image is at fault"
        told = self._process.complaint or f"{self._process.death or 'nothing is known of why'}, see above"
        return f"{told}. No image is at fault"


def _memory_is_limited() -> bool:
    """Whether this process and its children get only so much of it, as by ``ulimit -v``."""
    if resource is None:
        return False
    limits = [getattr(resource, name, None) for name in ("RLIMIT_AS", "RLIMIT_DATA")]
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits if limit is not None)


@contextmanager
def _starting() -> Iterator[None]:
    """Raises: `WorkerError` where the system has no room for more processes."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except (OSError, NotImplementedError, ImportError, RuntimeError, MemoryError) as error:
        if is_death(error):
            raise
        raise _no_start(error, others) from None


def _no_start(error: Exception, others: set[multiprocessing.process.BaseProcess]) -> WorkerError:
    """What to say of it. Those of too many that could be started are ended: nobody would give them anything to do."""
    for process in set(multiprocessing.active_children()) - others:
        process.terminate()
    why = error.strerror if isinstance(error, OSError) else str(error)
    return WorkerError(
        f"worker processes cannot be started: {why or type(error).__name__}; take fewer --jobs, or raise the limits of "
        "processes and open files (ulimit -u, ulimit -n) and the size of /dev/shm. No image is at fault"
    )


class _Process:
    """One worker process, started when there is something to do, and again after its death."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self.death = ""  #: how the last one died: a signal's name, "EXIT 1", or "" where it is not known
        self.complaint = ""  #: the last line of what it said about it, if anything

    @property
    def alive(self) -> bool:
        return self._executor is not None

    def run(self, task: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]) -> list[Result]:
        with _starting(), _interrupts_kept_from_workers():
            self._executor = self._executor or ProcessPoolExecutor(max_workers=1, initializer=start_local_worker)
            future = self._executor.submit(task, chunk)
        return future.result()

    def survive(self, task: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]) -> list[Result] | None:
        """The result, or None if the process died of it."""
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

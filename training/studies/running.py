"""Run the units of a study, each in a process of its own, side by side, and again after any interruption."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import joblib

from ...data.errors import ConfigurationError
from ...data.files import one_process
from ...data.text import duration, printable, rough_time
from .estimate import Estimates
from .process import process_of
from .records import Record, is_done, log_file, options_of, read_record, record_file, to_resume, write_record
from .study import EVALUATE, PROPOSE, TRAIN, Study, Unit

Say = Callable[[str], None]
Run = Callable[[Sequence[str], Path, dict[str, str]], int]
"""Runs ``agnet`` with these words, its output appended to a file, with these environment variables added; returns the
exit code."""

_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What became of a unit that was not done before."""

    unit: Unit
    code: int  #: exit code
    seconds: float


def run_process(words: Sequence[str], log: Path, environment: dict[str, str]) -> int:
    """Run a command as a user would, in a process that ends when this one does."""
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches it once, through `_stop_running`.
        process = subprocess.Popen(
            process_of(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    with _lock:
        _running.add(process)
    try:
        return process.wait()
    finally:
        if process.poll() is not None:
            with _lock:
                _running.discard(process)


def run_study(
    study: Study,
    *,
    jobs: int | None = None,
    devices: Sequence[str] = (),
    run: Run | None = None,
    say: Say = lambda text: None,
) -> list[Outcome]:
    """Run what is not done yet. Proposals come first, then training and evaluation of every row and seed.

    Units run on the joblib backend that the caller chose with ``joblib.parallel_config``, by default in threads of
    this process, each of which waits for a process. Workers elsewhere need the study's folder at the same place.

    Args:
        jobs: Number of units side by side; by default one per device, else as in ``joblib.parallel_config``, else 1.
        devices: Devices to train on, one unit each at a time; only on this machine.
        run: Function that runs one command; by default `run_process`.
        say: Called with a line of text about every unit.

    Returns: what was run, without the units that were done or whose predecessor failed.

    Raises: `ConfigurationError` when another process runs this study. An interruption stops the running commands, which
    save their state.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    complaint = ConfigurationError(f"another process runs the study in {study.folder}; wait for it or stop it")
    with one_process(study.folder / "study.lock", complaint):
        units, side_by_side = study.units, jobs or len(devices) or 1
        each = _Each(
            study, Estimates.read(study, side_by_side), run or run_process, say, _environment(side_by_side), len(units)
        )
        numbered = {unit.name: number for number, unit in enumerate(units, 1)}
        proposals = [[unit] for unit in units if unit.kind == PROPOSE]
        outcomes = _side_by_side(each, proposals, numbered, jobs, ())
        missing = {outcome.unit.target for outcome in outcomes if outcome.code}
        pairs = list(zip(*([unit for unit in units if unit.kind == kind] for kind in (TRAIN, EVALUATE)), strict=True))
        ready = [pair for pair in pairs if study.boxes(pair[0].row) not in missing]
        return outcomes + _side_by_side(each, ready, numbered, jobs, devices)


def _environment(jobs: int) -> dict[str, str]:
    """Environment of one of several processes: its share of the cores, unless the user gave another number."""
    share = str(max(1, joblib.cpu_count() // jobs))
    names = ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
    return {name: share for name in names if jobs > 1 and name not in os.environ}


@dataclass(frozen=True)
class _Each:
    """What every unit is run with."""

    study: Study
    estimates: Estimates
    run: Run
    say: Say
    environment: dict[str, str]
    units: int


def _side_by_side(
    each: _Each,
    chains: Iterable[Sequence[Unit]],
    numbered: dict[str, int],
    jobs: int | None,
    devices: Sequence[str],
) -> list[Outcome]:
    """Run chains of units, those of a chain one after the other."""
    jobs = jobs or len(devices) or None
    free: SimpleQueue[str] | None = None
    if devices:
        free = SimpleQueue()
        for number in range(max(jobs or 1, len(devices))):
            free.put(devices[number % len(devices)])
    backend = {"require": "sharedmem"} if devices else {"prefer": "threads"}
    try:
        with joblib.Parallel(n_jobs=jobs, batch_size=1, **backend) as parallel:
            found = parallel(joblib.delayed(_chain)(each, chain, numbered, free) for chain in chains)
    except BaseException:
        _stop_running()
        raise
    return [outcome for outcomes in found for outcome in outcomes]


def _chain(
    each: _Each, chain: Sequence[Unit], numbered: dict[str, int], free: SimpleQueue[str] | None
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for unit in chain:
        if is_done(each.study, unit):
            continue
        with _device(free) as words:
            outcomes.append(_attempt(each, unit, words, numbered[unit.name]))
        if outcomes[-1].code:
            break
    return outcomes


@contextmanager
def _device(free: SimpleQueue[str] | None) -> Iterator[list[str]]:
    """Words that choose a device which no other unit has; none if the user named no devices."""
    if free is None:
        yield []
        return
    device = free.get()
    try:
        yield ["--device", device]
    finally:
        free.put(device)


def _attempt(each: _Each, unit: Unit, device: list[str], number: int) -> Outcome:
    """Run one unit, with a record before and after it."""
    file, log = record_file(each.study, unit), log_file(each.study, unit)
    record = _begin(each, unit)
    write_record(file, record)
    for place in (log.parent, unit.target.parent):
        place.mkdir(parents=True, exist_ok=True)
    resumed = to_resume(unit)
    words = [unit.kind, *unit.words, *device, *(["--resume"] if resumed else [])]
    begun = time.monotonic()
    code = each.run(words, log, each.environment)
    seconds = time.monotonic() - begun
    write_record(file, replace(record, code=code, seconds=record.seconds + seconds, started=None))
    told = f"{unit.told}{' (resumed)' if resumed else ''}"
    if code:
        each.say(f"{number} of {each.units}  {told}: failed after {duration(seconds)}: {_last_line(log)}; see {log}")
    else:
        left = each.estimates.left()
        each.say(
            f"{number} of {each.units}  {told}: {duration(seconds)}{f', about {rough_time(left)} left' if left else ''}"
        )
    return Outcome(unit, code, seconds)


def _begin(each: _Each, unit: Unit) -> Record:
    """The record of an attempt that begins. One that was killed with the study counts until its last output."""
    before = read_record(record_file(each.study, unit))
    fresh = Record(unit.row.key, options_of(unit), started=time.time())
    if before is None:
        return fresh
    lost = 0.0
    if before.started is not None and log_file(each.study, unit).is_file():
        lost = max(0.0, log_file(each.study, unit).stat().st_mtime - before.started)
    return replace(fresh, seconds=before.seconds + lost)


def _last_line(log: Path) -> str:
    """The last line of a command's output, which names the error."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), "no output"))[:300]


def _stop_running() -> None:
    """Stop the commands that run on this machine: training saves its state first. A second interrupt kills them."""
    with _lock:
        processes = list(_running)
    for process in processes:
        process.terminate()
    with ExitStack() as last:
        for process in processes:
            last.callback(process.kill)
        for process in processes:
            process.wait()

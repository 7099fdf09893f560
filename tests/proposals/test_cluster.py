"""Stage 1 on workers that share neither memory nor fate with this process: a pickling backend, and a Dask cluster."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path
from queue import SimpleQueue

import cloudpickle
import joblib
import numpy as np
import pytest
from joblib.parallel import ParallelBackendBase

from agnet.data.boxes.reader import read_boxes
from agnet.data.sets.catalogue import open_dataset
from agnet.data.workers import in_parallel
from agnet.proposals import run as data_set
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.proposals.worker import propose_chunk

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")

WORKERS = 2
VICTIM = "train/bee/1.png"

WORKER = """
import pickle, sys
while True:
    try:
        task = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        answer = True, task()
    except Exception as error:
        answer = False, error
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


class RayActorError(Exception):
    """Named as Ray's, by which a dead worker is told."""


class Elsewhere(ParallelBackendBase):
    """As Ray and Spark are to joblib: everything travels as bytes to processes in another folder that are there, and
    can be counted, only once it is configured; no generators, and a dead worker is not replaced."""

    processes = ()
    started = 0

    def configure(self, n_jobs=1, parallel=None, **_):
        self.parallel = parallel
        self.place = tempfile.TemporaryDirectory()
        path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = {**os.environ, "PYTHONPATH": path}
        self.processes = [
            subprocess.Popen([sys.executable, "-c", WORKER], cwd=self.place.name, env=environment, **pipes)
            for _ in range(WORKERS)
        ]
        Elsewhere.started += WORKERS
        self.free = SimpleQueue()
        for process in self.processes:
            self.free.put(process)
        self.threads = ThreadPool(WORKERS)
        return WORKERS

    def effective_n_jobs(self, n_jobs):
        if not self.processes:
            raise RuntimeError("not started yet")
        return WORKERS

    def submit(self, func, callback=None):
        return self.threads.apply_async(self._ask, [cloudpickle.dumps(func)], callback=callback)

    apply_async = submit  # what joblib before 1.5 calls it

    def _ask(self, task):
        process = self.free.get()
        try:
            process.stdin.write(task)
            process.stdin.flush()
            well, answer = pickle.load(process.stdout)
        except (EOFError, OSError):
            raise RayActorError from None
        finally:
            self.free.put(process)
        if not well:
            raise answer
        return answer

    def terminate(self):
        if not self.processes:
            return
        self.threads.close()
        self.threads.join()
        for process in self.processes:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()
        self.processes = ()
        self.place.cleanup()


@pytest.fixture(scope="module")
def elsewhere():
    joblib.register_parallel_backend("elsewhere", Elsewhere)


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    config = pytest.importorskip("dask").config
    # Port 0 is any free one: without a dashboard it would still take 8787, and other tests run at the same time.
    workers = {"n_workers": WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    patience = dict.fromkeys(("distributed.comm.timeouts.connect", "distributed.comm.timeouts.tcp"), "300s")
    with (
        config.set({"distributed.scheduler.allowed-failures": 1, **patience}),
        distributed.LocalCluster(**workers) as cluster,
        distributed.Client(cluster),
    ):
        yield


@pytest.fixture(params=["elsewhere", "dask"])
def backend(request):
    request.getfixturevalue(request.param)
    # joblib waits ten seconds for Dask's workers, which a busy machine may take longer to start anew.
    patience = {"wait_for_workers_timeout": 300} if request.param == "dask" else {}
    with joblib.parallel_config(backend=request.param, **patience):
        yield request.param


@pytest.fixture
def evaluate():
    """A task whose images are expressions. No function of this module, which the workers could not import."""

    def evaluate(names):
        return [eval(name) for name in names]

    return evaluate


def deadly(flag):
    """`propose_chunk`, but `VICTIM` kills the process it is in: always, or once, making the file ``flag``."""

    def propose_or_die(root, settings, weights, names):
        if VICTIM in names:
            with suppress(FileExistsError):
                if flag:
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        return propose_chunk(root, settings, weights, names)

    return propose_or_die


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """Parts of four images, worked on one at a time: more chunks than `Elsewhere` is given at once."""
    monkeypatch.setattr(data_set, "PART_IMAGES", 4)
    monkeypatch.setattr(data_set, "CHUNK_IMAGES", 1)


def propose(root, boxes):
    return propose_dataset(open_dataset("folder", root), ProposalSettings(primary=3), boxes).boxes


@pytest.fixture
def local(folder, tmp_path):
    with joblib.parallel_config(backend="sequential"):
        return propose(folder, tmp_path / "local.h5")


def test_a_cluster_writes_the_bytes_of_a_local_run(backend, folder, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Elsewhere, "started", 0)
    assert propose(folder.relative_to(tmp_path), tmp_path / "boxes.h5").read_bytes() == local.read_bytes()
    assert backend == "dask" or Elsewhere.started == WORKERS


@pytest.mark.usefixtures("backend")
def test_results_come_in_order_from_other_processes(evaluate):
    slow = "__import__('time').sleep(0.5) or (0, __import__('os').getpid())"
    chunks = [[slow], *([f"({number}, __import__('os').getpid())"] for number in range(1, 40))]
    results = [result for chunk in in_parallel(chunks, evaluate, str, None) for result in chunk]
    assert [number for number, _ in results] == list(range(40))
    assert len({process for _, process in results} - {os.getpid()}) == WORKERS


@pytest.mark.usefixtures("backend")
def test_a_workers_error_arrives(evaluate):
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        list(in_parallel([["1"], ["2"], ["1 / 0"], ["3"]], evaluate, str, None))
    assert list(in_parallel([["1"]], evaluate, str, None)) == [[1]]


@pytest.mark.usefixtures("backend")
def test_a_worker_that_dies_once_costs_nothing(folder, local, tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "propose_chunk", deadly(str(tmp_path / "flag")))
    assert propose(folder, tmp_path / "boxes.h5").read_bytes() == local.read_bytes()
    assert (tmp_path / "flag").exists()


@pytest.mark.usefixtures("backend")
def test_an_image_that_kills_its_worker_costs_itself_alone(folder, local, tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "propose_chunk", deadly(None))
    boxes, expected = read_boxes(propose(folder, tmp_path / "boxes.h5")), read_boxes(local)
    ((name, reason),) = boxes.failures
    assert name == VICTIM and "killed" in reason
    others = boxes.names != VICTIM.encode()
    assert boxes.usable.tolist() == np.flatnonzero(others).tolist()
    assert boxes.contents[others].tolist() == expected.contents[others].tolist()
    assert np.array_equal(boxes.primary_xyxy, expected.primary_xyxy[others])


def test_after_a_death_only_what_was_under_way_is_done_here(backend, evaluate):
    """Here it is done by one process, which would take for ever with what is left for a whole cluster."""
    under_way = {"elsewhere": 8, "dask": 2}[backend] * WORKERS
    chunks = [["__import__('multiprocessing').current_process().name"] for _ in range(60)]
    chunks[20] = ["__import__('os').kill(__import__('os').getpid(), 9)"]
    results = list(in_parallel(chunks, evaluate, lambda name, reason: "lost", None))
    assert len(results) == 60 and results[20] == ["lost"]
    assert sum("Loky" in name for (name,) in results) < under_way

"""joblib itself, made to do and say what `joblib_internals` counts on: what fails here, an upgrade has changed."""

import signal
import threading
from pathlib import Path

import joblib
import pytest
from joblib.parallel import ParallelBackendBase

from agnet.data.joblib_internals import (
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

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signals here")


def test_the_backend_chosen_is_known_and_whether_it_streams():
    for name, local in (("loky", True), ("threading", False)):
        with joblib.parallel_config(backend=name, n_jobs=3):
            backend, jobs = get_active_backend()
            assert is_loky(backend) is local and not is_dask(backend) and can_stream(backend) and jobs == 3
    plain = type("Plain", (ParallelBackendBase,), dict.fromkeys(ParallelBackendBase.__abstractmethods__))
    assert not can_stream(plain())


class Missing:
    """A task that a worker cannot load."""

    def __reduce__(self):
        return __import__, ("no_such_module",)


@pytest.fixture(scope="module")
def errors():
    """What a pool of loky's says of workers that were killed or ended, and of tasks that failed or never began."""

    # No functions of this module, which workers could not import.
    def kill():
        import os

        os.kill(os.getpid(), 9)

    def end():
        import os

        os._exit(3)

    def fail():
        raise OSError(5, "Input/output error")

    found = {}
    for name, task in (
        ("killed", kill),
        ("ended", end),
        ("failed", fail),
        ("never began", Missing()),
    ):
        executor = ProcessPoolExecutor(1)
        try:
            found[name] = executor.submit(task).exception()
        except Exception as error:
            found[name] = error
        finally:
            executor.shutdown(kill_workers=True)
    return found


def test_deaths_of_workers_are_known_by_the_names_of_their_errors(errors):
    assert {name: is_death(error) for name, error in errors.items()} == {
        "killed": True,
        "ended": True,
        "failed": False,
        "never began": True,
    }


def test_how_a_worker_died_is_told_in_known_words(errors):
    assert cause_of_death(errors["killed"]) == ("SIGKILL", "")
    assert cause_of_death(errors["ended"]) == ("EXIT 3", "")
    assert cause_of_death(errors["never began"]) == ("", "ModuleNotFoundError: No module named 'no_such_module'")


def test_what_a_task_raised_has_its_traceback_for_a_cause(errors):
    assert is_from_worker(errors["failed"]) and isinstance(errors["failed"], OSError)
    with pytest.raises(OSError) as caught:
        Path("nowhere").stat()
    assert not is_from_worker(caught.value)


def test_want_of_threads_is_known_by_pythons_words():
    before = threading.stack_size(2**46)  # more than any machine has
    try:
        with pytest.raises(RuntimeError) as caught:
            threading.Thread(target=int).start()
    finally:
        threading.stack_size(before)
    assert lacks_threads(caught.value) and not lacks_threads(RuntimeError("another"))


def test_dasks_backend_and_deaths_have_the_names_that_are_looked_for():
    distributed = pytest.importorskip("distributed")
    from joblib._dask import DaskDistributedBackend

    assert is_death(distributed.scheduler.KilledWorker("a chunk", None, 3))
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None):
        backend = DaskDistributedBackend(resources=None)
        assert is_dask(backend) and not is_loky(backend)
        assert submit_to_dask(backend, len, "ab").result() == 2

"""PyTorch itself, made to do and say what `torch_internals` counts on: what fails here, an upgrade has changed."""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from multiprocessing.queues import Queue
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from agnet.data.errors import ImageError
from agnet.training.machine import torch_internals
from agnet.training.machine.torch_internals import (
    Batches,
    HeldTensors,
    are_functions_transformed,
    end_if_a_batch_cannot_be_sent,
    gradients_of_convolution,
    is_lone_value,
    is_lost_worker,
    is_of_compiler,
    is_of_worker,
    is_out_of_memory,
    lost_connection,
    message_of_worker,
    move_towards,
)


def raised(kind, function, *arguments, **named):
    """The error, of exactly this type or a child, that a call ends in."""
    with pytest.raises(kind) as caught:
        function(*arguments, **named)
    return caught.value


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_every_transform_of_functions_shows_while_it_is_at_work(transform):
    seen = []

    def function(x):
        seen.append(are_functions_transformed())
        return x.sum()

    assert not are_functions_transformed()
    transform(function)(torch.ones(2) if transform is not torch.func.vmap else torch.ones(2, 2))
    assert seen and all(seen) and not are_functions_transformed()


def test_tensors_are_counted_as_long_as_they_exist_and_views_not_at_all():
    given = torch.ones(100)  # 400 bytes
    with HeldTensors([given]) as held:
        assert held.now == held.peak == 400
        doubled = given[10:] * 2 + 1  # 360 bytes, and 360 of the product on the way
        assert (held.now, held.peak) == (760, 1120)
        view = doubled.view(9, 10).t()
        del doubled
        assert held.now == 760
        del view
        assert held.now == 400
        given.add_(1)
    assert (held.now, held.peak) == (400, 1120)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_move_by_their_share(dtype):
    means = [torch.arange(6, dtype=dtype).reshape(2, 3), torch.tensor(-1.0, dtype=dtype), torch.empty(0, dtype=dtype)]
    values = [torch.full_like(mean, 10) for mean in means]
    wanted = [torch.lerp(mean, value, 0.25) for mean, value in zip(means, values, strict=True)]
    places = [mean.data_ptr() for mean in means]
    move_towards(means, values, 0.25)
    assert all(torch.equal(one, other) for one, other in zip(means, wanted, strict=True))
    assert [mean.data_ptr() for mean in means] == places


def test_the_gradients_of_a_convolution_are_autograds():
    torch.manual_seed(0)
    images = torch.randn(3, 5, 4, 1, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, 5, 3, 1, dtype=torch.float64, requires_grad=True)
    made = nn.functional.conv2d(images, kernels)
    upstream = torch.randn_like(made)
    wanted = torch.autograd.grad(made, (images, kernels), upstream)
    got = gradients_of_convolution(upstream, images.detach(), kernels.detach())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_file_that_is_read_without_pytorch_says_what_it_was_built_with():
    told = runpy.run_path(str(Path(torch.__file__).with_name("version.py")))
    assert told["cuda"] == torch.version.cuda and told["hip"] == torch.version.hip


def test_a_processors_want_of_memory_is_known_by_its_words():
    assert is_out_of_memory(raised(RuntimeError, torch.empty, 2**60, dtype=torch.uint8))
    assert is_out_of_memory(raised(MemoryError, bytes, 2**62))
    assert issubclass(torch.OutOfMemoryError, RuntimeError)  # a GPU's
    assert not is_out_of_memory(raised(RuntimeError, torch.empty, -1))
    assert not is_out_of_memory(raised(RuntimeError, torch.matmul, torch.ones(2, 3), torch.ones(2, 3)))


@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d, (1, 3)), (nn.BatchNorm2d, (1, 3, 1, 1)), (nn.BatchNorm3d, (1, 3, 1, 1, 1))]
)
def test_a_batch_norm_that_sees_one_value_is_known_by_its_words(norm, shape):
    assert is_lone_value(raised(ValueError, norm(3).train(), torch.zeros(shape)))
    assert not is_lone_value(raised(ValueError, norm(3), torch.zeros(2)))


def test_what_fails_in_compiling_is_told_from_what_fails_in_running():
    def broken(graph, inputs):
        raise ValueError("no code for this")

    assert is_of_compiler(raised(RuntimeError, torch.compile(lambda x: x + 1, backend=broken), torch.ones(1)))
    unknown = torch.compile(lambda x: print(x), backend="eager", fullgraph=True)
    assert is_of_compiler(raised(RuntimeError, unknown, torch.ones(1)))
    assert not is_of_compiler(raised(RuntimeError, torch.matmul, torch.ones(2, 3), torch.ones(2, 3)))


# What a process of its own is for: its workers are forks, and gloo leaves threads that no fork should inherit.
PROGRAM = """
import json, multiprocessing, os, signal, sys, warnings
from datetime import timedelta
from threading import Thread

import torch
import torch.distributed as dist

from agnet.data.errors import ImageError
from agnet.training.machine import torch_internals as internals

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of forks while there are threads
told = {}


class Samples(torch.utils.data.Dataset):
    def __init__(self, fault=lambda: None):
        self.fault = fault

    def __len__(self):
        return 2

    def __getitem__(self, number):
        self.fault()
        return number


def broken(error):
    raise error


def batches(*fault):
    return internals.Batches(Samples(*fault), num_workers=1, multiprocessing_context="fork", persistent_workers=True)


def error_of(function, *arguments, **named):
    try:
        function(*arguments, **named)
    except Exception as error:
        return error


loader = batches()
told["first"] = next(iter(loader)).tolist()
(worker,) = multiprocessing.active_children()
loader.close()
told["alive"] = worker.is_alive()

error = error_of(next, iter(batches(lambda: broken(ImageError("a.png: it is cut off")))))
told["unreadable"] = type(error).__name__, "Traceback" in str(error), internals.message_of_worker(error)
error = error_of(next, iter(batches(lambda: broken(OSError(5, "Input/output error")))))
told["broken disk"] = type(error).__name__, internals.is_of_worker(error)
error = error_of(next, iter(batches(lambda: os.kill(os.getpid(), signal.SIGKILL))))
told["killed"] = type(error).__name__, internals.is_lost_worker(error)

# Two processes' ends in one, of which one is gone when the other wants to exchange.
store, ends = dist.HashStore(), {}


def meet(rank):
    ends[rank] = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=20))


threads = [Thread(target=meet, args=(rank,)) for rank in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
del ends[1]
error = error_of(lambda: ends[0].allreduce([torch.ones(1)]).wait())
told["gone"] = isinstance(error, RuntimeError), internals.lost_connection(error), str(error)
error = error_of(dist.TCPStore, "127.0.0.1", 1, is_master=False, timeout=timedelta(milliseconds=100))
told["nobody there"] = isinstance(error, RuntimeError), internals.lost_connection(error), str(error)
error = error_of(store.wait, ["never set"], timedelta(milliseconds=10))
told["silent"] = isinstance(error, RuntimeError), internals.lost_connection(error), str(error)
print(json.dumps(told), flush=True)
os._exit(0)  # gloo would wait for the end that is gone
"""


@pytest.fixture(scope="module")
def told():
    """What PyTorch did and said in a process of its own."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("the program's classes reach its workers by a fork")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_workers_end_when_they_are_told_to(told):
    assert told["first"] == [0] and told["alive"] is False


def test_a_workers_error_arrives_with_its_traceback_before_the_message(told):
    assert told["unreadable"] == ["ImageError", True, "a.png: it is cut off"]
    assert message_of_worker(ImageError("a.png: it is cut off")) == "a.png: it is cut off"  # raised here


def test_a_workers_error_of_the_system_arrives_without_its_number(told):
    assert told["broken disk"] == ["OSError", True]
    assert not is_of_worker(raised(OSError, os.stat, "nowhere"))


def test_a_killed_worker_is_known_by_its_words(told):
    assert told["killed"] == ["RuntimeError", True]
    assert not is_lost_worker(raised(RuntimeError, torch.empty, -1))


@pytest.mark.parametrize("how", ["gone", "nobody there", "silent"])
def test_a_lost_connection_is_known_by_its_words_or_type(told, how):
    is_runtime_error, reason, text = told[how]
    assert is_runtime_error and reason, text
    assert lost_connection(raised(RuntimeError, torch.empty, -1)) is None


def test_only_pytorchs_own_loader_warns_of_more_workers_than_cores():
    with pytest.warns(UserWarning, match="worker"):
        DataLoader([0], num_workers=5000)
    assert Batches([0], num_workers=5000).num_workers == 5000  # a warning would be an error here
    assert Batches([0]).close() is None  # none was started


def test_a_batch_that_cannot_be_sent_ends_the_process(monkeypatch):
    monkeypatch.setattr(Queue, "_on_queue_feeder_error", Queue.__dict__["_on_queue_feeder_error"])  # put back later
    ended = []
    monkeypatch.setattr(torch_internals.os, "_exit", ended.append)
    end_if_a_batch_cannot_be_sent()
    queue = multiprocessing.Queue()
    queue.put(lambda: 0)  # no pickle takes it
    queue.close()
    queue.join_thread()
    assert ended == [1]

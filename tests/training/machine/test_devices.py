"""Devices by name, and what is done where memory does not suffice for what does not learn."""

import subprocess
import sys
from itertools import chain

import pytest
import torch

from agnet.data.errors import ConfigurationError
from agnet.training.machine.devices import Device, Pieces, choose_device
from agnet.training.machine.torch_internals import is_out_of_memory

CPU = Device(torch.device("cpu"))
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
    RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


def test_a_network_for_which_memory_does_not_suffice_is_told_in_a_line(monkeypatch):
    network = torch.nn.Linear(2, 2)
    assert CPU.take(network) is network

    def full(**_):
        raise FULL[0]

    monkeypatch.setattr(network, "to", full)
    with pytest.raises(ConfigurationError, match="memory of cpu does not suffice for the network"):
        CPU.take(network)


@pytest.mark.parametrize("error", FULL)
def test_what_does_not_fit_goes_through_in_smaller_pieces_in_its_order(error):
    tried, told = [], []

    def numbers(cut):
        tried.append(cut.stop - cut.start)
        if tried[-1] > 3:
            raise error
        return list(range(cut.start, cut.stop))

    pieces = Pieces(CPU, told.append)
    assert list(chain(*pieces.of(13, numbers))) == list(range(13))
    assert tried == [13, 6, 3, 3, 3, 3, 1]
    assert list(chain(*pieces.of(4, numbers))) == list(range(4)) and tried[7:] == [3, 1]  # it has learnt
    assert pieces.of(0, numbers) == []
    assert len(told) == 2 and "13 images at once" in told[0] and "3 at a time" in told[1]


@pytest.mark.parametrize("error", FULL)
def test_an_image_that_does_not_fit_is_an_error(error):
    def nothing(cut):
        raise error

    with pytest.raises(ConfigurationError, match=r"the memory of cpu does not suffice for a single image \(.+\)"):
        Pieces(CPU).of(5, nothing)


def test_other_errors_are_not_taken_for_want_of_memory():
    def differ(cut):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes"):
        Pieces(CPU).of(5, differ)
    assert not is_out_of_memory(ValueError("out of range"))
    unsupported = "could not create a primitive descriptor for a convolution forward propagation primitive"
    assert not is_out_of_memory(RuntimeError(unsupported))


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:", "cuda:one", "CPU", ""])
def test_a_name_of_no_device_is_told_what_names_there_are(name):
    with pytest.raises(ConfigurationError, match=r"^device '.*': wanted cpu, cuda, cuda:N, mps or auto$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:77", "mps"])
def test_a_device_that_is_not_there_is_an_error_of_a_line_with_a_remedy(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(ConfigurationError, match=r"cannot be used: .*use --device auto$") as caught:
        choose_device(name)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_freed_memory_goes_back_to_the_system_before_less_is_tried():
    """Else a heap that is told to keep it fills what there may be, and convolutions find none for themselves."""
    program = """
import numpy, torch
from agnet.data.memory import keep_network_memory
from agnet.training.machine.devices import Device
if keep_network_memory():
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
    block = numpy.ones(50_000_000)
    del block
    kept = resident()
    Device(torch.device("cpu")).free_memory()
    assert kept - resident() > 300_000_000, (kept, resident())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)

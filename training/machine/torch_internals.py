"""Undocumented behaviour of PyTorch that agnet relies on: private names, undocumented operators, error messages.

An upgrade may change any of it without notice. It is therefore collected here, each item with a test that provokes the
real behaviour (`tests/test_torch_internals.py`), and `setup.cfg` excludes PyTorch's next major version. Nothing of
agnet is imported, so that the models can use this module, too.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.queues import Queue
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

# The last alternative is the only message of a CPU's convolutions (oneDNN). For operations that this CPU does not
# support, such as bf16, they report "could not create a primitive descriptor".
_FULL = re.compile(
    "out of memory|DefaultCPUAllocator|can't allocate memory|not enough memory|std::bad_alloc"
    "|could not create a primitive(?! descriptor)"
)
_BROKEN = re.compile(r"connection (was )?(closed|reset|refused)[\w ]*|broken pipe|timed? ?out", re.IGNORECASE)


# Operators


def are_functions_transformed() -> bool:
    """Whether a `torch.func` transform such as vmap is active, in which tensors are not plain ones.

    `torch.func` has no public query for this; the flag exists since PyTorch 2.0.
    """
    return torch._C._are_functorch_transforms_active()


def move_towards(means: list[Tensor], values: list[Tensor], share: float) -> None:
    """``mean += share * (value - mean)`` for each pair, in place, in one kernel on a GPU.

    `torch.optim.swa_utils` uses the same function, but only with a constant decay.
    """
    torch._foreach_lerp_(means, values, share)


def gradients_of_convolution(upstream: Tensor, images: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``conv2d(images, kernels)`` with respect to both operands, from ``upstream``, in one call.

    `torch.nn.grad` offers two functions, each of which needlessly writes the other's operand. Both call this
    operator of autograd.
    """
    to_images, to_kernels, _ = torch.ops.aten.convolution_backward(
        upstream, images, kernels, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return to_images, to_kernels


class HeldTensors(TorchDispatchMode):
    """Context that counts the bytes of the tensors that exist at once, on any device.

    It sees each operator's results, and when their memory is freed. Memory that an operator uses within itself, such as
    the workspace of a convolution, is not seen. `torch.utils.flop_counter` counts operations in the same way.

    Args:
        tensors: Tensors that exist before, such as weights and inputs. They count as long as they exist.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0  #: bytes
        self._seen: set[int] = set()
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: object, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._add(result)
        return results

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # one object for all views, as long as the memory exists
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._seen:
            return
        self._seen.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, place, size).atexit = False

    def _remove(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size


# Error messages


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation ran out of memory on any device; only GPUs have an exception class for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_FULL.search(str(error)))


def is_lone_value(error: ValueError) -> bool:
    """Whether a batch norm rejects a single value per channel: a single image whose feature map is one cell."""
    return "more than 1 value per channel" in str(error)


def is_of_compiler(error: Exception) -> bool:
    """Whether `torch.compile` itself failed, not the compiled code: its errors have no common public type."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def lost_connection(error: RuntimeError) -> str | None:
    """Description of a lost connection to another process; empty if unknown, None for any other error.

    Gloo raises plain errors; PyTorch's store and NCCL have an exception class.
    """
    text = str(error)
    if not isinstance(error, dist.DistError) and not any(name in text for name in ("gloo", "NCCL", "Connection")):
        return None
    found = _BROKEN.search(text)
    return found[0] if found else ""


# Processes that read images


class Batches(DataLoader[Any]):
    """PyTorch's loader without its warning about more workers than cores, and with workers that can be ended."""

    def check_worker_number_rationality(self) -> None:
        """Suppress the warning: it fills a screen, and two workers on a single core are intended."""

    def close(self) -> None:
        """End the workers. PyTorch does so on garbage collection, which a traceback's references can delay."""
        iterator: Any = self._iterator  # None unless workers are persistent
        if iterator is not None:
            iterator._shutdown_workers()


def end_if_a_batch_cannot_be_sent() -> None:
    """Make this worker process exit if a batch cannot be sent, for example because shared memory is full.

    Otherwise Python's queue drops the batch with a traceback, and the parent waits for it forever.
    """
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: object) -> None:
    os._exit(1)


def is_lost_worker(error: RuntimeError) -> bool:
    """Whether a worker has ended, killed or by itself; also for errors that cannot be raised again here."""
    return "DataLoader worker" in str(error)


def is_of_worker(error: OSError) -> bool:
    """Whether a worker raised the error: rebuilt from text, it has no errno, unlike errors of starting workers."""
    return error.errno is None


def message_of_worker(error: Exception) -> str:
    """The message of an error that a worker may have raised, without the traceback that precedes it."""
    kind = type(error)
    return str(error).strip().splitlines()[-1].removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")

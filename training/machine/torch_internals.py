"""What agnet uses of PyTorch that PyTorch does not promise: private names, undocumented operators, the words of errors.

An upgrade may change any of it without a word. So all of it is here, each with a test that provokes the real thing
(`tests/test_torch_internals.py`), and `setup.cfg` ends before PyTorch's next major version. Nothing of agnet is
imported, so that the models may have their part of it, too.
"""

from __future__ import annotations

import os
import re
from multiprocessing.queues import Queue
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

# The last is all that a CPU's convolutions (oneDNN) say of it; of what they cannot do on this CPU, such as bf16, they
# say "could not create a primitive descriptor".
_FULL = re.compile(
    "out of memory|DefaultCPUAllocator|can't allocate memory|not enough memory|std::bad_alloc"
    "|could not create a primitive(?! descriptor)"
)
_BROKEN = re.compile(r"connection (was )?(closed|reset|refused)[\w ]*|broken pipe|timed? ?out", re.IGNORECASE)


# Operators


def are_functions_transformed() -> bool:
    """Whether this is computed within a transform of `torch.func`, as vmap: what it sees then is no plain tensor.

    `torch.func` has no question of its own for that; the flag is there since PyTorch 2.0.
    """
    return torch._C._are_functorch_transforms_active()


def move_towards(means: list[Tensor], values: list[Tensor], share: float) -> None:
    """``mean += share * (value - mean)`` of each pair, in place, on a GPU in one kernel.

    `torch.optim.swa_utils` calls it for a decay that stays the same, which is all that it offers.
    """
    torch._foreach_lerp_(means, values, share)


def gradients_of_convolution(upstream: Tensor, images: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """What ``upstream``, the gradient of ``conv2d(images, kernels)``, makes of both of them, at once.

    `torch.nn.grad` has this in two halves, each of which first writes the other's operand for nothing. The operator
    that both call is a part of autograd.
    """
    to_images, to_kernels, _ = torch.ops.aten.convolution_backward(
        upstream, images, kernels, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return to_images, to_kernels


# The words of errors


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation failed for want of memory, on whatever device; only GPUs have a type of error for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_FULL.search(str(error)))


def is_lone_value(error: ValueError) -> bool:
    """Whether a batch norm complains that it sees one value: of a single image, whose map is a single cell."""
    return "more than 1 value per channel" in str(error)


def is_of_compiler(error: Exception) -> bool:
    """Whether it is `torch.compile` that failed, and not what was compiled: its errors have no common public type."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def lost_connection(error: RuntimeError) -> str | None:
    """What an exchange says of the connection to another process; empty for nothing known, None if it is not that.

    Gloo raises plain errors; those of PyTorch's store and of NCCL have a type.
    """
    text = str(error)
    if not isinstance(error, dist.DistError) and not any(name in text for name in ("gloo", "NCCL", "Connection")):
        return None
    found = _BROKEN.search(text)
    return found[0] if found else ""


# Processes that read images


class Batches(DataLoader[Any]):
    """PyTorch's loader, which says nothing of more workers than cores, and whose workers can be ended."""

    def check_worker_number_rationality(self) -> None:
        """No warning for them: it fills a screen, and two on a single core are meant."""

    def close(self) -> None:
        """End the workers. PyTorch does so when the iterator is garbage, and tracebacks hold it."""
        iterator: Any = self._iterator  # None unless there are persistent workers
        if iterator is not None:
            iterator._shutdown_workers()


def end_if_a_batch_cannot_be_sent() -> None:
    """Let the worker that this process is end where a batch cannot be sent, as where shared memory is full.

    It would else be dropped with a traceback by the queue (Python's own), and waited for for ever.
    """
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: object) -> None:
    os._exit(1)


def is_lost_worker(error: RuntimeError) -> bool:
    """Whether a worker has ended, killed or on its own; also what one raised that cannot be raised again here."""
    return "DataLoader worker" in str(error)


def is_of_worker(error: OSError) -> bool:
    """Whether a worker raised it: made anew from its text, it has no number. One of starting them has."""
    return error.errno is None


def message_of_worker(error: Exception) -> str:
    """The message of an error that a worker may have raised: it arrives with its traceback before it."""
    kind = type(error)
    return str(error).strip().splitlines()[-1].removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")

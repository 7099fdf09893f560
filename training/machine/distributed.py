"""Training of one network by several processes: their ranks, their communication, and detection of lost processes.

They are started by torchrun, or manually with its environment variables: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...data.errors import AgnetError, ConfigurationError
from ...data.text import first_line
from .torch_internals import lost_connection

Result = TypeVar("Result")

_MEETING_SECONDS = 120  # until all processes have started
_WAIT_MINUTES = 30  # in an exchange, for slow processes: process 0 may be saving to a slow disk
_BEAT_SECONDS = 2.0
_LOST_BEATS = 20  # 40 s without a heartbeat


class LostProcessError(AgnetError):
    """Another process of this training has ended."""


class Processes:
    """The processes of a training run, seen from one of them. With a single process, every exchange is the identity.

    Methods that communicate must be called by all processes in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def any(self, condition: bool) -> bool:
        """Whether the condition holds in any process."""
        if self.alone:
            return condition
        found = torch.tensor([int(condition)])
        with _named_loss():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, without gradient."""
        if self.alone:
            return values
        total = values.detach().clone()
        with _named_loss():
            dist.all_reduce(total)
        return total

    def sum_number(self, value: float) -> float:
        """Sum over all processes of a number in host memory; exact for counts."""
        return value if self.alone else float(self.sum(torch.tensor(value, dtype=torch.float64)))

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes, by rank, in every process."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        with _named_loss():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, function: Callable[[], Result]) -> Result:
        """Call ``function`` in process 0 only and return its result in all processes.

        Raises: in process 0, whatever ``function`` raises; in the others, `SystemExit`, since one message is enough.
        """
        if self.alone:
            return function()
        found: list[Any] = [None, True]
        error: BaseException | None = None
        if self.first:
            try:
                found = [function(), False]
            except BaseException as raised:  # the others wait for an answer in any case
                error = raised
        with _named_loss():
            dist.broadcast_object_list(found)
        if error is not None:
            raise error
        if found[1]:
            sys.exit(1)
        return found[0]

    def device(self, name: str) -> str:
        """The device of this process for the requested ``name``; a GPU becomes the current device, as NCCL requires.

        Raises: `ConfigurationError` if no device is available for it.
        """
        if self.alone or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return "cpu" if name == "auto" and not self.alone else name
        if name not in ("auto", "cuda"):
            raise ConfigurationError(f"device {name!r} cannot be used by several processes; wanted cpu, cuda or auto")
        if self.local_rank >= torch.cuda.device_count():
            raise ConfigurationError(
                f"process {self.rank} finds no GPU of its own: it is number {self.local_rank + 1} of this machine, "
                f"which has {torch.cuda.device_count()}; start fewer with --nproc-per-node, or use --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the running statistics of process 0, which are the saved ones, to every process."""
        if not self.alone:
            with _named_loss():
                for buffer in model.buffers():
                    dist.broadcast(buffer, 0)

    def parallel(self, model: nn.Module, *, synchronised_norms: bool) -> nn.Module:
        """Wrap ``model`` for training: gradients are averaged over processes, weights remain those of ``model``.

        Args:
            synchronised_norms: Whether batch norms use the whole batch; only on GPUs, as in PyTorch.
        """
        if self.alone:
            return model
        device = next(model.parameters()).device
        if synchronised_norms and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def exchanging_gradients(self, network: nn.Module, now: bool) -> AbstractContextManager[None]:
        """Context for one forward and backward pass of the wrapped network from `parallel`.

        Unless ``now``, gradients are kept and exchanged together with those of the next block.
        """
        if now or not isinstance(network, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return network.no_sync()


ALONE = Processes()


def place_of_this_process() -> Processes:
    """Read this process's rank from the environment. Raises: `ConfigurationError` if the values are inconsistent."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return ALONE
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
        if not (0 <= rank < size and 0 <= local <= rank):
            raise ValueError
    except ValueError:
        said = ", ".join(f"{name}={os.environ.get(name)}" for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        raise ConfigurationError(f"{said} do not describe a process of a group; use torchrun or unset them") from None
    return ALONE if size == 1 else Processes(rank, size, local)


@contextmanager
def meeting(place: Processes) -> Iterator[Processes]:
    """Context in which the processes communicate. Raises: `LostProcessError` if not all of them join.

    If a process is killed inside it, the others end within a minute, with a reason on stderr.
    """
    if place.alone:
        yield place
        return
    if dist.is_initialized():
        raise ConfigurationError("this process has already joined its group")
    try:
        # Both backends, so that numbers in host memory are exchanged without a GPU.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=_MEETING_SECONDS)))
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("exchange", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(minutes=_WAIT_MINUTES),
        )
        place.gather(rank)
        watch = _Watch(place)
    except (RuntimeError, ValueError) as error:  # PyTorch raises RuntimeError for connection errors
        raise LostProcessError(
            f"the {place.size} processes of this training did not find one another at "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {first_line(error)}"
        ) from None
    watch.start()
    with _named_loss():
        yield place
        place.gather(None)  # all are done, but still monitored
        watch.stop()
        place.gather(None)  # monitoring has stopped, so the first to leave is not reported as lost
    dist.destroy_process_group()


class _Watch(threading.Thread):
    """Send heartbeats to the other processes, and end this process if one of theirs stops."""

    def __init__(self, place: Processes) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._done = threading.Event()
        # A separate connection: exchanges may block the other one for a long time.
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_BEAT_SECONDS * _LOST_BEATS))
        self._store = dist.PrefixStore("alive", store)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        others = [rank for rank in range(self._place.size) if rank != self._place.rank]
        last, silent = dict.fromkeys(others, -1), dict.fromkeys(others, 0)
        # Counted in iterations, not in time: a group that was stopped and continued (Ctrl-Z, fg) is not lost.
        while not self._done.wait(_BEAT_SECONDS):
            try:
                self._store.add(str(self._place.rank), 1)
                beats = {rank: self._store.add(str(rank), 0) for rank in others}
            except RuntimeError:
                self._end("the process that coordinates all others cannot be reached any more")
                return
            for rank in others:
                silent[rank] = silent[rank] + 1 if beats[rank] == last[rank] else 0
                if silent[rank] >= _LOST_BEATS:
                    self._end(f"process {rank} has given no sign of life for {_LOST_BEATS * _BEAT_SECONDS:.0f} s")
            last = beats

    def _end(self, reason: str) -> None:
        if self._done.is_set():
            return
        # The main thread may be waiting for the lost process inside a library, where no exception reaches it.
        print(f"Error: process {self._place.rank}: {reason}; {_REMEDY}", file=sys.stderr, flush=True)
        os._exit(1)


_REMEDY = "see its own output, then continue with the same command and --resume"


@contextmanager
def _named_loss() -> Iterator[None]:
    """Convert PyTorch's error about a lost process to a `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        reason = lost_connection(error)
        if reason is None:
            raise
        reason = reason or first_line(error)
        raise LostProcessError(f"another process of this training has ended ({reason}); {_REMEDY}") from None

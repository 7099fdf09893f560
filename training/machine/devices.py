"""Where and how precisely to compute."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...data.errors import ConfigurationError
from ...data.memory import give_back_memory
from ...data.text import first_line
from .device_names import NO_MPS, check_device
from .torch_internals import is_out_of_memory

Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where and how precisely to compute."""

    device: torch.device
    precision: str = "fp32"  #: or bf16 or fp16, by autocast

    @property
    def answers_at_once(self) -> bool:
        """Whether a number can be looked at without waiting for a queue of work: on a CPU."""
        return self.device.type == "cpu"

    def wait(self) -> None:
        """Return when everything asked for so far is done, for timing."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def autocast(self) -> torch.autocast:
        enabled = self.precision in _AUTOCAST
        return torch.autocast(self.device.type, _AUTOCAST.get(self.precision, torch.bfloat16), enabled=enabled)

    def take(self, model: Network, memory_format: torch.memory_format = torch.preserve_format) -> Network:
        """The network, moved here. Raises: `ConfigurationError` when memory does not suffice."""
        try:
            return model.to(device=self.device, memory_format=memory_format)  # type: ignore[call-overload]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigurationError(
                f"the memory of {self.device} does not suffice for the network; free some, or take another --device"
            ) from None

    def on(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, without waiting for it to arrive."""
        return tensor.to(self.device, non_blocking=True)

    def pixels(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` on the device, channels last in memory."""
        return self.on(images).to(memory_format=torch.channels_last)

    def frames(self, frames: Tensor) -> Tensor:
        """Frames ``(B, T, 3, H, W)`` on the device, each channels last in memory."""
        return self.pixels(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def forget_peak(self) -> None:
        """Begin to measure `peak_memory` anew, where that is possible."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int | None:
        """The most bytes held so far: on a GPU by tensors, elsewhere by this process; None where nobody knows."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory()
        with suppress(ImportError):  # not on Windows
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024
        return None

    def free_memory(self) -> None:
        """Give back what an attempt that ran out of memory has left behind."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        else:  # convolutions take theirs from the system, which has none for them while the heap keeps it
            give_back_memory()


class Pieces:
    """Images for a network that does not learn: fewer go through at once from the time when memory has not sufficed.

    Args:
        say: told in a line that it has not.
    """

    def __init__(self, device: Device, say: Callable[[str], None] = lambda text: None) -> None:
        self._device, self._say = device, say
        self._at_once: int | None = None

    def of(self, images: int, compute: Callable[[slice], Result]) -> list[Result]:
        """What ``compute`` gives of so many images, slice by slice; one slice of all as long as memory suffices.

        Raises: `ConfigurationError` when it does not suffice for a single image.
        """
        results: list[Result] = []
        done = 0
        while done < images:
            size = min(self._at_once or images, images - done)
            try:
                results.append(compute(slice(done, done + size)))
                done += size
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise ConfigurationError(
                        f"the memory of {self._device.device} does not suffice for a single image "
                        f"({first_line(error, 'no reason given')}); free some, or take another --device"
                    ) from None
            # Only here are the tensors of the attempt gone, which the error's traceback held.
            self._at_once = size // 2
            self._device.free_memory()
            self._say(f"memory does not suffice for {size} images at once: going on with {self._at_once} at a time")
        return results


def choose_device(name: str, precision: str = "auto") -> Device:
    """The device of that name; ``auto`` takes a GPU where there is one.

    Raises: `ConfigurationError` for a device that is not there.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():  # what PyTorch says of it fills a screen
        raise ConfigurationError(NO_MPS)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).rstrip(".")
        raise ConfigurationError(f"device {name!r} cannot be used: {reason}; take --device auto") from None
    if precision not in ("fp32", "bf16", "fp16"):  # auto
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Device(device, precision)


def choose_training_device(name: str, precision: str = "auto") -> Device:
    """`choose_device`, for training. Raises: `ConfigurationError` also for fp16 on anything else than a CUDA GPU."""
    device = choose_device(name, precision)
    if device.precision == "fp16" and device.device.type != "cuda":
        raise ConfigurationError(
            f"fp16 on {device.device.type}: its gradients need scaling, which works on CUDA GPUs only; take "
            "--precision bf16 or fp32"
        )
    return device

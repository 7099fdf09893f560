"""Selection of the device and precision for computation."""

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
    """A device and a precision."""

    device: torch.device
    precision: str = "fp32"  #: or bf16 or fp16, with autocast

    @property
    def answers_at_once(self) -> bool:
        """Whether reading a value does not wait for queued work: on a CPU."""
        return self.device.type == "cpu"

    def wait(self) -> None:
        """Wait until all queued work is done, for timing."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def autocast(self) -> torch.autocast:
        enabled = self.precision in _AUTOCAST
        return torch.autocast(self.device.type, _AUTOCAST.get(self.precision, torch.bfloat16), enabled=enabled)

    def take(self, model: Network, memory_format: torch.memory_format = torch.preserve_format) -> Network:
        """Move a network to the device. Raises: `ConfigurationError` if memory does not suffice."""
        try:
            return model.to(device=self.device, memory_format=memory_format)  # type: ignore[call-overload]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigurationError(
                f"the memory of {self.device} does not suffice for the network; free some, or use another --device"
            ) from None

    def on(self, tensor: Tensor) -> Tensor:
        """Move a tensor to the device, without waiting for its arrival."""
        return tensor.to(self.device, non_blocking=True)

    def pixels(self, images: Tensor) -> Tensor:
        """Move images ``(B, 3, H, W)`` to the device, channels last in memory."""
        return self.on(images).to(memory_format=torch.channels_last)

    def frames(self, frames: Tensor) -> Tensor:
        """Move frames ``(B, T, 3, H, W)`` to the device, each channels last in memory, or features ``(B, T, L)``."""
        if frames.ndim == 3:
            return self.on(frames)
        return self.pixels(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def forget_peak(self) -> None:
        """Restart the measurement of `peak_memory`, where possible."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int | None:
        """Maximum memory in bytes so far: of tensors on a GPU, of this process elsewhere; None if unknown."""
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
        """Release memory left over from an attempt that ran out of memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        else:  # convolutions allocate from the system, which has no memory for them while the heap keeps it
            give_back_memory()


class Pieces:
    """Inference in slices that become smaller once memory does not suffice.

    Args:
        say: Function called with a line of text when it does not.
        called: What the samples are called in texts, images or clips.
    """

    def __init__(
        self, device: Device, say: Callable[[str], None] = lambda text: None, *, called: str = "images"
    ) -> None:
        self._device, self._say, self._called = device, say, called
        self._at_once: int | None = None

    def of(self, images: int, compute: Callable[[slice], Result]) -> list[Result]:
        """Apply ``compute`` to ``images`` images slice by slice, in a single slice as long as memory suffices.

        Raises: `ConfigurationError` if memory does not suffice for a single image.
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
                        f"the memory of {self._device.device} does not suffice for a single {self._called[:-1]} "
                        f"({first_line(error, 'no reason given')}); free some, or use another --device"
                    ) from None
            # Only here, after the error's traceback is gone, are the attempt's tensors freed.
            self._at_once = size // 2
            self._device.free_memory()
            self._say(
                f"memory does not suffice for {size} {self._called} at once: continuing with {self._at_once} at a time"
            )
        return results


def choose_device(name: str, precision: str = "auto") -> Device:
    """The device of that name; ``auto`` selects a GPU if available.

    Raises: `ConfigurationError` if the device is not available.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():  # PyTorch's own message fills a screen
        raise ConfigurationError(NO_MPS)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).rstrip(".")
        raise ConfigurationError(f"device {name!r} cannot be used: {reason}; use --device auto") from None
    if precision not in ("fp32", "bf16", "fp16"):  # auto
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Device(device, precision)


def choose_training_device(name: str, precision: str = "auto") -> Device:
    """As `choose_device`, for training. Raises: `ConfigurationError` also for fp16 without a CUDA GPU."""
    device = choose_device(name, precision)
    if device.precision == "fp16" and device.device.type != "cuda":
        raise ConfigurationError(
            f"fp16 on {device.device.type}: its gradients need scaling, which works on CUDA GPUs only; use "
            "--precision bf16 or fp32"
        )
    return device

"""Where and how precisely to compute."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.errors import ConfigurationError
from .models.backbones import Preprocessing


@dataclass(frozen=True)
class Device:
    """Where and how precisely to compute."""

    device: torch.device
    precision: str = "fp32"  #: or bf16, by autocast

    def wait(self) -> None:
        """Return when everything asked for so far is done, for timing."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def images(self, images: Tensor, preprocessing: Preprocessing) -> Tensor:
        """uint8 pixels -> normalised float32 on the device, channels last."""
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) * 255
            for values in (preprocessing.mean, preprocessing.std)
        )
        pixels = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last)
        return (pixels.float() - mean) / std


def choose_device(name: str, precision: str = "auto") -> Device:
    """The device of that name; ``auto`` takes a GPU where there is one. Raises: `ConfigurationError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("wanted cpu, cuda, cuda:N, mps or auto")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if precision not in ("fp32", "bf16"):  # auto
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return Device(device, precision)

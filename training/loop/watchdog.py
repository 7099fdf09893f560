"""Detect values that are not finite during training, without waiting for the GPU at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...data.errors import TrainingError
from ..machine.devices import Device

STEP, IMAGES, REGIONS, LOGITS, LOSS, NORM_BEFORE = range(6)  #: indices of the values recorded for a step


class Watchdog:
    """Record of the first step whose loss was not finite, kept on the device until `check` reads it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._first = torch.zeros(6, device=device.device)
        self._norm = torch.full((1,), torch.nan, device=device.device)

    def see(self, step: int, finite: Tensor, loss: Tensor) -> None:
        """Record a step's loss and whether its images, regions and logits are ``finite`` ``(3,)``, without waiting."""
        number = torch.full((1,), float(step), device=self._device.device)
        now = torch.cat([number, finite.float(), loss.detach().float().reshape(1), self._norm])
        self._first = torch.where(self._first[LOSS].isfinite(), now, self._first)

    def see_norm(self, norm: Tensor) -> None:
        """Record the norm of a step's gradients on the device."""
        self._norm = norm.detach().float().reshape(1)

    def check(self, model: nn.Module, rate: float, epoch: int, steps: int) -> None:
        """Raise `TrainingError` with a diagnosis if a loss was not finite since the last check; waits for the device.

        Args:
            model: Network in its current state.
            rate: Highest current learning rate of all groups.
            epoch: Epoch number, counted from 0.
            steps: Number of steps in the epoch.
        """
        found = self._first.tolist()
        if math.isfinite(found[LOSS]):
            return
        parameters = list(model.named_parameters())
        gradients = [(name, p.grad) for name, p in parameters if p.grad is not None]
        seen = ", ".join(
            f"{what} {'finite' if found[place] else 'NOT finite'}"
            for what, place in (("images", IMAGES), ("regions", REGIONS), ("logits", LOGITS))
        )
        norm = found[NORM_BEFORE]
        before = "" if norm != norm else f", gradient norm of the step before {norm:.4g}"
        raise TrainingError(
            f"the loss is {found[LOSS]} in epoch {epoch + 1}, step {int(found[STEP]) + 1} of {steps} (learning rate "
            f"{rate:.3g}{before}). {seen}; {_not_finite('parameters', parameters)}; "
            f"{_not_finite('gradients', gradients)}. {self._remedy(found)}"
        )

    def check_weights(self, model: nn.Module, rate: float, epoch: int, step: int) -> None:
        """Raise `TrainingError` if weights or statistics to be saved are not finite; waits for the device.

        The loss of the last step does not cover this: it was computed before the weights were updated.

        Args:
            model: Network after the step.
            rate: Highest current learning rate of all groups.
            epoch: Epoch number, counted from 0.
            step: Last step of the epoch that was done, counted from 1.
        """
        weights = [(name, value) for name, value in model.state_dict().items() if value.is_floating_point()]
        if all(value.isfinite().all() for _, value in weights):
            return
        raise TrainingError(
            f"the loss is finite in epoch {epoch + 1}, step {step}, but not the network after it (learning rate "
            f"{rate:.3g}): {_not_finite('weights', weights)}. {self._divergence()}"
        )

    def _remedy(self, found: list[float]) -> str:
        if not found[IMAGES] or not found[REGIONS]:
            return "The input is at fault: check the images with agnet inspect --verify, and propose again"
        return self._divergence()

    def _divergence(self) -> str:
        remedies = ["lower --lr", "--clip-norm 0.1", "a longer --warmup-epochs"]
        if self._device.precision != "fp32":
            remedies.append("--precision fp32")
        return f"Training diverged: try {', '.join(remedies[:-1])} or {remedies[-1]}; finished epochs are kept"


def _not_finite(what: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Describe which tensors contain values that are not finite: the first one and the number of others."""
    bad = [name for name, tensor in tensors if not tensor.isfinite().all()]
    if not bad:
        return f"all {what} finite"
    return f"{what} not finite: {bad[0]}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")

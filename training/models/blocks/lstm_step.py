"""One step of an LSTM, for vectors or maps, in which padded frames change nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .precision import precise

GATES = 4  #: i, f, g, o, in PyTorch's order
States = tuple[Tensor, Tensor]  #: hidden h and cell c, ``(B, U)`` or ``(B, U, h, w)``


def lstm_step(gates: Tensor, cell: Tensor) -> States:
    """c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g), h′ = σ(o) ⊙ tanh(c′), from the sums of the gates ``(B, 4U, ...)``."""
    i, f, g, o = precise(gates).chunk(GATES, dim=1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def kept(valid: Tensor, new: States, old: States) -> States:
    """The new states where a frame is valid ``(B,)``, and the old ones where it is padding."""
    mask = valid.view(-1, *[1] * (old[0].ndim - 1))
    return torch.where(mask, new[0], old[0]), torch.where(mask, new[1], old[1])


@torch.no_grad()
def start_lstm(bias: Tensor, recurrent: Tensor) -> None:
    """Initialise: forget bias 1, other biases 0, orthogonal recurrent weights for each gate.

    Args:
        bias: ``(4U,)``.
        recurrent: Weights ``(4U, U)``, or of a convolution ``(4U, U, k, k)``.
    """
    nn.init.zeros_(bias)
    bias.chunk(GATES)[1].fill_(1)
    for weights in recurrent.chunk(GATES):
        nn.init.orthogonal_(weights)


class Products:
    """x_t Wᵀ + b for T steps whose inputs x_t ``(B, D)`` become known one after the other.

    The gradient of W is one product over all steps. By autograd alone, each step would compute one of W's size and add
    it to the others, which takes longer than all else. `torch.compile` cannot follow this, and gets the plain formula.

    Args:
        weights: W ``(G, D)``.
        bias: b ``(G,)``.
        steps: T.
        batch: B.
    """

    def __init__(self, weights: Tensor, bias: Tensor, steps: int, batch: int) -> None:
        self._seen: list[Tensor] = []
        self._weights, self._biases = weights, bias.expand(steps, batch, -1)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._biases = _Deferred.apply(weights, bias, self._seen, (steps, batch))
            self._weights = weights.detach()
        self._waiting = iter(self._biases.unbind(0))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs of the next step -> ``(B, G)``."""
        self._seen.append(inputs.detach())
        return torch.addmm(next(self._waiting), inputs, self._weights.t())


class _Deferred(torch.autograd.Function):
    """The bias of every step ``(T, B, G)``, to whose gradient those of W and b are the same linear functions."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, bias: Tensor, seen: list[Tensor], size: tuple[int, int]) -> Tensor:
        ctx.seen = seen  # filled before the gradients come back
        return bias.repeat(*size, 1)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        inputs = torch.cat(ctx.seen).to(gradients.dtype)  # (T · B, D)
        return gradients.flatten(0, 1).t() @ inputs, gradients.sum(dim=(0, 1)), None, None

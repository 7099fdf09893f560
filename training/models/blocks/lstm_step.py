"""One step of an LSTM, for vectors or maps, in which padded frames change nothing."""

from __future__ import annotations

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

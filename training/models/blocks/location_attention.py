"""Soft attention over the positions of a map: once for all of it, or at each step of a spatial LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .precision import precise

MOST_POSITIONS = 196  #: for `RecurrentAttention`, whose memory grows with their square
UNITS_SHARE = 4  #: the scorer has one unit per 4 channels


class StaticAttention(nn.Module):
    """e = w₂ᵀ tanh(W₁ z + b₁) + b₂ at each position, α = softmax over all N positions, output N · α · z.

    (Times N, so that even attention changes nothing. The softmax cancels b₂.)

    Args:
        channels: Channels d of z; the scorer has ⌊d / 4⌋ units.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        units = channels // UNITS_SHARE
        self.positions = nn.Conv2d(channels, units, 1)  # W₁, b₁
        self.score = nn.Conv2d(units, 1, 1)  # w₂, b₂

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, d, h, w)`` -> the weighted map, same shape, and α ``(B, h, w)``, ≥ 0, sum 1."""
        B, _, h, w = z.shape
        scores = self.score(torch.tanh(self.positions(z))).flatten(1)
        shares = precise(scores).softmax(dim=1).view(B, 1, h, w)
        return z * shares * (h * w), shares[:, 0]


class RecurrentAttention(nn.Module):
    """α over all positions for each cell of a spatial LSTM, from the hidden states of the cell's two neighbours:
    e_k = w₂ᵀ tanh(W₁ z_k + b₁ + W_h [h_left; h_top]) + b₂, α = softmax over the positions k.

    Args:
        channels: Channels d of z; the scorer has ⌊d / 4⌋ units.
        units: Hidden units of the LSTM, per direction.
        directions: Directions of the LSTM; each has a W_h of its own.
    """

    def __init__(self, channels: int, units: int, directions: int) -> None:
        super().__init__()
        width = channels // UNITS_SHARE
        self.positions = nn.Linear(channels, width)  # W₁, b₁
        self.neighbours = nn.Parameter(torch.empty(directions, 2 * units, width))  # W_h
        self.score = nn.Linear(width, 1)  # w₂, b₂
        nn.init.uniform_(self.neighbours, -((2 * units) ** -0.5), (2 * units) ** -0.5)  # as nn.Linear's

    def keys(self, z: Tensor) -> Tensor:
        """Map ``(B, d, h, w)`` -> what each position contributes to its scores ``(B, N, width)``."""
        return self.positions(z.flatten(2).transpose(1, 2))

    def forward(self, neighbours: Tensor, keys: Tensor) -> Tensor:
        """Hidden states of both neighbours of n cells ``(directions, n, B, 2 · units)`` -> α ``(directions, B, n, N)``,
        ≥ 0, sum 1.
        """
        queries = neighbours.flatten(1, 2) @ self.neighbours  # (directions, n · B, width)
        queries = queries.unflatten(1, neighbours.shape[1:3]).transpose(1, 2)
        scores = self.score(torch.tanh(queries[:, :, :, None] + keys[:, None])).squeeze(-1)
        return precise(scores).softmax(dim=-1)


def coverage_loss(shares: Tensor) -> Tensor:
    """Σ_k (1 − Σ α_k over all steps)² for α ``(directions, steps, B, N)``, steps = N: the mean over the directions
    ``(B,)``. It is 0 if all positions get the same attention in total.
    """
    return (1 - shares.sum(dim=1)).square().sum(dim=-1).mean(dim=0)

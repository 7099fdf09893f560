"""Scores of a frame's positions, from which attention is computed, given the hidden state after the previous frame.

Each score computes what it needs of the frames for all of them at once (`keys`), and then the scores of one frame after
the other (`forward`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContentScore(nn.Module):
    """e_i = vᵀ tanh(W_x X_i + W_h h) at each position i; any number of positions (Xu et al., 2015).

    Args:
        channels: Channels D of the map X.
        hidden: Hidden units U.
        units: Width A.
    """

    def __init__(self, channels: int, hidden: int, units: int) -> None:
        super().__init__()
        self.positions = nn.Linear(channels, units)  # W_x
        self.state = nn.Linear(hidden, units, bias=False)  # W_h
        self.score = nn.Linear(units, 1)  # v

    def keys(self, maps: Tensor) -> Tensor:
        """``(B, T, N, D)`` -> ``(B, T, N, A)``."""
        return self.positions(maps)

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """Keys of a frame ``(B, N, A)`` and h ``(B, U)`` -> scores ``(B, N)``."""
        return self.score(torch.tanh(keys + self.state(hidden)[:, None])).squeeze(-1)


class LocationScore(nn.Module):
    """e = W₃ tanh(W₁ h + W₂ mean_i X_i): one output per position, of N.

    Args:
        channels: Channels D of the map X.
        hidden: Hidden units U.
        units: Width A.
        positions: Number of positions N.
    """

    def __init__(self, channels: int, hidden: int, units: int, positions: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden, units)  # W₁
        self.frame = nn.Linear(channels, units)  # W₂
        self.score = nn.Linear(units, positions)  # W₃

    def keys(self, maps: Tensor) -> Tensor:
        """``(B, T, N, D)`` -> ``(B, T, A)``."""
        return self.frame(maps.mean(dim=2))

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """Keys of a frame ``(B, A)`` and h ``(B, U)`` -> scores ``(B, N)``."""
        return self.score(torch.tanh(keys + self.state(hidden)))


class HiddenScore(nn.Module):
    """e = W h: one output per position, of N, which do not depend on the frame (Sharma et al., 2015).

    Args:
        hidden: Hidden units U.
        positions: Number of positions N.
    """

    def __init__(self, hidden: int, positions: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, positions)

    def keys(self, maps: Tensor) -> Tensor:
        """The maps; they are not used."""
        return maps

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """h ``(B, U)`` -> scores ``(B, N)``."""
        return self.score(hidden)


def coverage_loss(shares: Tensor, valid: Tensor, target: float | None = None) -> Tensor:
    """Σ_i (τ − Σ_t a_{t,i})² of each clip ``(B,)`` (Xu et al., 2015, section 4.2.1, for τ = 1).

    Args:
        shares: a ``(B, T, h, w)``, 0 for padded frames.
        valid: bool ``(B, T)``.
        target: τ; None: valid frames / positions, which even attention over all frames reaches.
    """
    totals = shares.flatten(2).sum(dim=1)  # (B, N)
    even = valid.sum(dim=1, keepdim=True) / totals.shape[1]
    return ((even if target is None else target) - totals).square().sum(dim=1)

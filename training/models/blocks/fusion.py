"""Fusion of average and maximum pooling by one shared scorer (AG-Net Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pooling(nn.Module):
    """Global pooling of one kind, without parameters: ``max`` (GMP) or ``mean`` (GAP)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """``(B, P, C)``, P positions -> ``(B, C)``."""
        return x.amax(dim=1) if self.kind == "max" else x.mean(dim=1)

    def coefficients(self, x: Tensor) -> Tensor:
        """Factors ``(B, P, C)`` with which ``forward(x)`` is the sum of x over the positions."""
        return _at_maximum(x) if self.kind == "max" else torch.full_like(x, 1 / x.shape[1])


class PoolingFusion(nn.Module):
    """F = Σ_k softmax_k(W p_k + b) p_k with p = (GMP(f̂), GAP(f̂)), one scorer for both (Eq. 4).

    The scorer is shared, so the softmax cancels its bias; the paper counts it.

    Args:
        channels: Number of channels, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)
        # Maxima are several times the means: with equal weights, fusion would start close to maximum pooling, for which
        # pretrained features were not trained. This starts close to GAP, whose weight is e^(2d) times that of GMP,
        # where d is the mean of GMP − GAP over the channels.
        nn.init.constant_(self.score.weight, -2 / channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, P, C)``, P positions -> ``(B, C)``."""
        pooled = torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=1)  # (B, 2, C)
        return (torch.softmax(self.score(pooled), dim=1) * pooled).sum(dim=1)

    def coefficients(self, x: Tensor) -> Tensor:
        """Factors ``(B, P, C)`` with which ``forward(x)`` is the sum of x over the positions."""
        pooled = torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=1)
        maximum, mean = torch.softmax(self.score(pooled), dim=1).split(1, dim=1)  # each (B, 1, 1)
        return maximum * _at_maximum(x) + mean / x.shape[1]


def _at_maximum(x: Tensor) -> Tensor:
    """1 at the position of each channel's maximum, 0 elsewhere; equal maxima share: ``(B, P, C)`` -> same shape."""
    highest = (x == x.amax(dim=1, keepdim=True)).to(x.dtype)
    return highest / highest.sum(dim=1, keepdim=True)

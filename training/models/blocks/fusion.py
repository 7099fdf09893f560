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

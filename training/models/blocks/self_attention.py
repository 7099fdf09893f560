"""Self-attention over the positions of a feature map (AG-Net Eq. 1; SAGAN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

KEYS_SHARE = 8  #: f and g project to a channel for so many of the map's


class SelfAttention(nn.Module):
    """o = δ·(h t) + x with t = softmax over i of f(x_i)ᵀ g(x_j), and δ = 0 at the start.

    Args:
        channels: C. f and g project to ⌊C/8⌋ channels, h to C; all three have biases.
            (The softmax over i cancels f's bias: its gradient is zero; the paper counts it.)
        spectral: normalise f, g and h spectrally (in the authors' sister code; the paper does not say).
    """

    def __init__(self, channels: int, spectral: bool = False) -> None:
        super().__init__()
        keys = channels // KEYS_SHARE
        self.f = nn.Conv2d(channels, keys, 1)
        self.g = nn.Conv2d(channels, keys, 1)
        self.h = nn.Conv2d(channels, channels, 1)
        if spectral:
            for conv in (self.f, self.g, self.h):
                spectral_norm(conv)
        self.delta = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` -> the attended map, same shape, and each position's share of attention ``(B, H, W)``."""
        B, C, H, W = x.shape
        f, g, h = (conv(x).flatten(2) for conv in (self.f, self.g, self.h))  # (B, C/8 or C, HW)
        t = torch.softmax(f.transpose(1, 2) @ g, dim=1)  # (B, HW i, HW j), columns sum to 1
        o = self.delta * (h @ t).view(B, C, H, W) + x
        return o, t.mean(dim=2).view(B, H, W)

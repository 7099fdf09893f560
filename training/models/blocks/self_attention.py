"""Self-attention over the positions of a feature map (AG-Net Eq. 1; SAGAN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

KEYS_SHARE = 8  #: f and g reduce the number of channels by this factor


class SelfAttention(nn.Module):
    """o = δ·(h t) + x with t = softmax over i of f(x_i)ᵀ g(x_j), and δ = 0 at the start.

    Args:
        channels: Number of channels, C. f and g project to ⌊C/8⌋ channels, h to C; all three have biases. (The softmax
            over i cancels the bias of f, whose gradient is therefore zero; the paper counts it.)
        spectral: Whether to apply spectral normalisation to f, g and h, as the authors' related code does; the paper
            does not mention it.
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
        """``(B, C, H, W)`` -> attended map of the same shape, and each position's share of attention ``(B, H, W)``."""
        B, C, H, W = x.shape
        f, g, h = (conv(x).flatten(2) for conv in (self.f, self.g, self.h))  # (B, ⌊C/8⌋, HW), h: (B, C, HW)
        t = torch.softmax(f.transpose(1, 2) @ g, dim=1)  # (B, HW over i, HW over j), columns sum to 1
        o = self.delta * (h @ t).view(B, C, H, W) + x  # (B, C, H, W)
        return o, t.mean(dim=2).view(B, H, W)

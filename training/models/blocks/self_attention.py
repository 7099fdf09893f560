"""Self-attention over the positions of a feature map (AG-Net Eq. 1; SAGAN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .token_products import on_eager_cpu

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
        f, g, h = (_at_positions(conv, x) for conv in (self.f, self.g, self.h))  # (B, HW, ⌊C/8⌋), h: (B, HW, C)
        t = torch.softmax(f @ g.mT, dim=1)  # (B, HW over i, HW over j), columns sum to 1
        o = self.delta * (t.mT @ h).mT.view(B, C, H, W) + x  # (B, C, H, W)
        return o, t.mean(dim=2).view(B, H, W)


def _at_positions(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a 1 × 1 convolution to a map ``(B, C, H, W)``, positions first: ``(B, HW, channels)``."""
    if not on_eager_cpu(x) or not len(x):  # in this order: a traced batch has no fixed length
        return conv(x).flatten(2).mT
    # CPUs multiply image by image, and read the weights each time. One image of all positions is a single product; of a
    # channels-last map, it is a view.
    B, C, H, W = x.shape
    projected = conv(x.transpose(0, 1).reshape(1, C, B * H, W))  # (1, channels, BH, W)
    return projected.unflatten(2, (B, H)).squeeze(0).flatten(2).permute(1, 2, 0)

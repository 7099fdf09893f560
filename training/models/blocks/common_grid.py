"""The maps of two streams on one grid of positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .precision import precise_dtype


class CommonGrid(nn.Module):
    """Resize two maps to one grid: ``size`` × ``size``, or the grid of the first map.

    A side that shrinks is averaged, as adaptive average pooling does; a side that grows is interpolated bilinearly.

    Args:
        size: Side of the grid; 0 for the grid of the first map.
        most: Largest number of positions. A larger grid of the first map is reduced to ``√most`` along each side.
    """

    def __init__(self, size: int = 0, most: int | None = None) -> None:
        super().__init__()
        self.size, self.most = size, most

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, h, w)`` and ``(B, C', h', w')`` -> both with the same height and width."""
        size_hw = self._grid(first.shape[2], first.shape[3])
        same = second is first
        first = resize_map(first, size_hw)
        return first, first if same else resize_map(second, size_hw)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        if self.size:
            return self.size, self.size
        if self.most is not None and height * width > self.most:
            side = math.isqrt(self.most)
            return min(height, side), min(width, side)
        return height, width


def resize_map(features: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """A map ``(B, C, h, w)`` resized to ``size_hw``.

    As matrix products, ``rows @ map @ columnsᵀ``: the gradients of PyTorch's own functions are not deterministic on
    GPUs.
    """
    if features.shape[-2:] == size_hw:
        return features
    rows, columns = (_weights(features, cells, size) for cells, size in zip(features.shape[-2:], size_hw, strict=True))
    return rows @ features @ columns.T


def _weights(like: Tensor, cells: int, size: int) -> Tensor:
    """Weight of each cell in each resized one ``(size, cells)``."""
    dtype = precise_dtype(like.dtype)
    position = torch.arange(cells, device=like.device)
    target = torch.arange(size, device=like.device)[:, None]
    if size <= cells:
        low, high = target * cells // size, ((target + 1) * cells + size - 1) // size
        return (((position >= low) & (position < high)).to(dtype) / (high - low)).to(like.dtype)
    middle = ((target.to(dtype) + 0.5) * cells / size - 0.5).clamp(0, cells - 1)
    return (1 - (middle - position).abs()).clamp(min=0).to(like.dtype)

"""Functions of single frames, applied to clips: padding costs nothing and reaches neither batch norms nor gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found", Tensor, list[Tensor], tuple[Tensor, ...])


def each_frame(function: Callable[[Tensor], Found], frames: Tensor, valid: Tensor) -> Found:
    """Apply a function to the n valid frames of a batch of clips.

    Args:
        function: ``(n, ...)`` -> a tensor ``(n, ...)``, or a list or tuple of them.
        frames: ``(B, T, ...)``.
        valid: bool ``(B, T)``.

    Returns: its result as ``(B, T, ...)``, 0 for padded frames. Nothing is copied if all frames are valid.
    """
    found = function(gather(frames, valid))
    if isinstance(found, Tensor):
        return scatter(found, valid)
    return type(found)(scatter(values, valid) for values in found)


def gather(values: Tensor, valid: Tensor) -> Tensor:
    """Select those of the valid frames: ``(B, T, ...)`` -> ``(n, ...)``, as a view if all are valid."""
    if _all(valid):
        return values.flatten(0, 1)
    if values.ndim == 5:  # selected as h × w × C, which keeps channels last in memory
        return values.permute(0, 1, 3, 4, 2)[valid].permute(0, 3, 1, 2)
    return values[valid]


def scatter(values: Tensor, valid: Tensor) -> Tensor:
    """Put those of the valid frames in their places: ``(n, ...)`` -> ``(B, T, ...)``, 0 elsewhere."""
    if _all(valid):
        return values.unflatten(0, valid.shape)
    every = values.new_zeros((*valid.shape, *values.shape[1:]))
    every[valid] = values
    return every


def valid_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid frames of each clip: ``(B, T, C)`` -> ``(B, C)``."""
    return torch.where(valid[..., None], values, 0).sum(dim=1) / valid.sum(dim=1, keepdim=True)


def _all(valid: Tensor) -> bool:
    return valid.is_meta or bool(valid.all())  # the meta device, on which costs are counted, has no values

"""Computation in float32 or better, whatever the precision of the inputs."""

from __future__ import annotations

import torch
from torch import Tensor


def precise_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or the data type itself if it is more precise."""
    return torch.promote_types(dtype, torch.float32)


def precise(values: Tensor) -> Tensor:
    """The values in float32; float64 is kept."""
    return values.to(precise_dtype(values.dtype))

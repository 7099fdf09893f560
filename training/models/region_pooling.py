"""Region pooling: each box of the feature map, bilinearly, to a small grid (AG-Net section III-B)."""

from __future__ import annotations

import torch
from torch import Tensor

POOLED = 7


def region_pooling(features: Tensor, boxes_xyxy: Tensor, size: int = POOLED, samples: int = 1) -> Tensor:
    """RoIAlign with ``samples`` × ``samples`` even samples in each bin, as matrix products.

    Bilinear sampling on a grid is separable: ``rows @ map @ columnsᵀ`` with one hat function for each
    sample. Same numbers as ``torchvision.ops.roi_align(aligned=True, sampling_ratio=samples)``, but its gradient
    is deterministic on a GPU, and the cost is that of a matrix product, however many samples.

    Args:
        features: ``(B, C, H, W)``.
        boxes_xyxy: ``(B, R, 4)`` in fractions of the image, xyxy. Boxes may be empty (all samples in one
            place) or leave the frame (samples more than a cell outside are 0, others take the border's value).
        size: S, of the grid.
        samples: along each side of a bin.

    Returns: ``(B, R, S·S, C)``, the grid row by row, channels last.

    Raises: `ValueError` for boxes of another shape.
    """
    B, C, H, W = features.shape
    R = boxes_xyxy.shape[1]
    if boxes_xyxy.shape != (B, R, 4):
        raise ValueError(f"boxes of {B} images must be ({B}, R, 4), got {tuple(boxes_xyxy.shape)}")
    # In the boxes' own precision: rounded to the features' bfloat16 they would move by hundredths of a cell.
    columns = _hat_functions(boxes_xyxy[..., 0], boxes_xyxy[..., 2], W, size, samples)  # (B, R, S, W)
    rows = _hat_functions(boxes_xyxy[..., 1], boxes_xyxy[..., 3], H, size, samples)  # (B, R, S, H)
    weights = torch.einsum("brih,brjw->brijhw", rows, columns).to(features.dtype)  # (B, R, S, S, H, W)
    positions = features.flatten(2).transpose(1, 2)  # (B, HW, C)
    pooled = weights.reshape(B, R * size * size, H * W) @ positions  # (B, R·S·S, C)
    return pooled.view(B, R, size * size, C)


def _hat_functions(low: Tensor, high: Tensor, cells: int, size: int, samples: int) -> Tensor:
    """Weights of ``cells`` positions in ``size`` means of bilinear samples of [low, high]: ``(..., size, cells)``."""
    steps = (torch.arange(size * samples, device=low.device, dtype=low.dtype) + 0.5) / (size * samples)
    position = (low[..., None] + (high - low)[..., None] * steps) * cells - 0.5
    inside = (position >= -1) & (position <= cells)
    distance = position.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=low.device, dtype=low.dtype)
    weights = (1 - distance.abs()).clamp(min=0) * inside[..., None]
    return weights.unflatten(-2, (size, samples)).mean(dim=-2)

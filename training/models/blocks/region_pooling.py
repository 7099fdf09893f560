"""Region pooling: bilinear resampling of each box of a feature map to a small grid (AG-Net section III-B)."""

from __future__ import annotations

import torch
from torch import Tensor

from .token_products import gather, on_eager_cpu

POOLED = 7  #: side of the pooled grid
FINER = 42  #: side of the finer map of `crop_pooling`


def region_pooling(
    features: Tensor, boxes_xyxy: Tensor, size: int = POOLED, samples: int = 1, mean: bool = False
) -> Tensor:
    """RoIAlign with ``samples`` × ``samples`` evenly spaced samples per bin, computed as matrix products.

    Bilinear sampling on a grid is separable: ``rows @ map @ columnsᵀ``, with one hat function per sample. The values
    are those of ``torchvision.ops.roi_align(aligned=True, sampling_ratio=samples)``, but the gradient is deterministic
    on GPUs, and the cost is that of a matrix product for any number of samples. (On CPUs, the few cells with nonzero
    weight are summed instead.)

    Args:
        features: Feature map ``(B, C, H, W)``.
        boxes_xyxy: Boxes ``(B, R, 4)``, xyxy in fractions of the image. A box may be empty (all samples at one
            position) or leave the frame (samples more than one cell outside are 0, others take the value at the
            border).
        size: Side of the grid, S.
        samples: Number of samples along each side of a bin.
        mean: Whether to return the mean over the grid instead, ``(B, R, 1, C)``, without computing the grid.

    Returns: pooled features ``(B, R, S·S, C)``, the grid in row-major order, channels last.

    Raises: `ValueError` for boxes of another shape.
    """
    B, C, H, W = features.shape
    x0, y0, x1, y1 = _sides(features, boxes_xyxy)
    x, x_inside = _sample(x0, x1, W, size, samples)
    y, y_inside = _sample(y0, y1, H, size, samples)
    if mean or not on_eager_cpu(features) or (2 * samples) ** 2 >= H * W:
        return _products(features, _hat_functions(y, y_inside, H), _hat_functions(x, x_inside, W), mean)
    column, x_share = _neighbours(x, x_inside, W)  # (B, R, S, k), k = 2·samples
    row, y_share = _neighbours(y, y_inside, H)
    # The k² pairs of a row and a column lie in the last dimension: loops over shorter ones take twice as long.
    k, image = row.shape[-1], torch.arange(B).view(B, 1, 1, 1) * H * W
    cells = (image + row * W).repeat_interleave(k, dim=-1)[:, :, :, None] + column.repeat(1, 1, 1, k)[:, :, None]
    shares = y_share.repeat_interleave(k, dim=-1)[:, :, :, None] * x_share.repeat(1, 1, 1, k)[:, :, None]
    table = features.permute(0, 2, 3, 1).reshape(B * H * W, C)
    return gather(table, cells, shares.to(features.dtype)).flatten(2, 3)  # (B, R, S·S, C)


def crop_pooling(features: Tensor, boxes_xyxy: Tensor, size: int = POOLED, mean: bool = False) -> Tensor:
    """Region pooling by cropping whole cells of a finer map and resizing the crop, as in the authors' related code.

    The paper only says "bilinear".

    The map is resized to `FINER` × `FINER`, each box is rounded to whole cells (at least one) and cropped, and the crop
    is resized to S × S; both resizings are bilinear. Boxes are clipped to the frame. (Pooling the full frame of a 7 × 7
    map does not quite return the map: a cell keeps 11/12 of its value in each direction.) Arguments, return value and
    errors are those of `region_pooling`.
    """
    x0, y0, x1, y1 = _sides(features, boxes_xyxy)
    H, W = features.shape[2:]
    return _products(features, _crop_functions(y0, y1, H, size), _crop_functions(x0, x1, W, size), mean)


def _sides(features: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, ...]:
    wanted = (features.shape[0], boxes_xyxy.shape[1], 4)
    if boxes_xyxy.shape != wanted:
        raise ValueError(f"boxes of {wanted[0]} images must be ({wanted[0]}, R, 4), got {tuple(boxes_xyxy.shape)}")
    return boxes_xyxy.unbind(dim=2)


def _products(features: Tensor, rows: Tensor, columns: Tensor, mean: bool) -> Tensor:
    """Compute ``rows @ map @ columnsᵀ`` for rows ``(B, R, S, H)`` and columns ``(B, R, S, W)``."""
    if mean:
        rows, columns = rows.mean(dim=2, keepdim=True), columns.mean(dim=2, keepdim=True)
    # Computed in the precision of the boxes up to here: rounded to bfloat16, they would move by hundredths of a cell.
    weights = torch.einsum("brih,brjw->brijhw", rows, columns).to(features.dtype)  # (B, R, S, S, H, W)
    positions = features.flatten(2).transpose(1, 2)  # (B, HW, C)
    pooled = weights.flatten(1, 3).flatten(2) @ positions  # (B, R·S·S, C)
    return pooled.unflatten(1, weights.shape[1:4]).flatten(2, 3)  # (B, R, S·S, C)


def _sample(low: Tensor, high: Tensor, cells: int, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """Sample positions in [low, high], 0 at the centre of cell 0, and 1 where they count, else 0: ``(..., S, s)``."""
    steps = (torch.arange(size * samples, device=low.device, dtype=low.dtype) + 0.5) / (size * samples)
    position = (low[..., None] + (high - low)[..., None] * steps) * cells - 0.5
    inside = ((position >= -1) & (position <= cells)).to(low.dtype)
    return position.clamp(0, cells - 1).unflatten(-1, (size, samples)), inside.unflatten(-1, (size, samples))


def _hat_functions(position: Tensor, inside: Tensor, cells: int) -> Tensor:
    """Weight of every cell in the mean of a bin's samples: ``(..., S, cells)``."""
    distance = position[..., None] - torch.arange(cells, device=position.device, dtype=position.dtype)
    return ((1 - distance.abs()).clamp(min=0) * inside[..., None]).mean(dim=-2)


def _neighbours(position: Tensor, inside: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The two cells next to each sample of a bin, and their weights in the mean: ``(..., S, 2·s)``."""
    first = position.floor().clamp(max=max(cells - 2, 0)).nan_to_num()  # NaN: any valid index, its weights are NaN
    beyond = position - first
    both = torch.stack([first, (first + 1).clamp(max=cells - 1)], dim=-1).long()
    weights = torch.stack([1 - beyond, beyond], dim=-1) * inside[..., None] / position.shape[-1]
    return both.flatten(-2), weights.flatten(-2)


def _crop_functions(low: Tensor, high: Tensor, cells: int, size: int) -> Tensor:
    """Weight of every cell in the result of `crop_pooling` for [low, high] along one side: ``(..., S, cells)``."""
    first = (low * FINER).round().clamp(0, FINER - 1)[..., None]
    beyond = (high * FINER).round().clamp(max=FINER)[..., None].maximum(first + 1)
    steps = (torch.arange(size, device=low.device, dtype=low.dtype) + 0.5) / size
    place = (first + (beyond - first) * steps - 0.5).maximum(first).minimum(beyond - 1)[..., None]
    fine = torch.arange(FINER, device=low.device, dtype=low.dtype)
    hats = _hat_functions(place, torch.ones_like(place), FINER)  # (..., S, FINER)
    resized = ((fine + 0.5) * cells / FINER - 0.5).clamp(0, cells - 1)[:, None]
    return hats @ _hat_functions(resized, torch.ones_like(resized), cells)

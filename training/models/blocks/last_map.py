"""The backbone's last map, resized to the 7 × 7 positions that the heads expect (AG-Net section III-A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .precision import precise_dtype
from .region_pooling import POOLED, region_pooling


class LastMap(nn.Module):
    """Bilinear resizing of a map ``(B, C, h, w)`` to ``(B, C, 7, 7)``. Forward hooks here see the head's input."""

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-2:] == (POOLED, POOLED):
            return features
        # Pooling the full frame equals `interpolate`, whose gradient is not deterministic on GPUs.
        dtype = precise_dtype(features.dtype)
        frame = torch.tensor([0, 0, 1, 1], dtype=dtype, device=features.device).expand(features.shape[0], 1, 4)
        return region_pooling(features, frame)[:, 0].transpose(1, 2).unflatten(2, (POOLED, POOLED))

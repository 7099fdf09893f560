"""The backbone's last map as the heads take it: 7 × 7 positions (AG-Net section III-A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .region_pooling import POOLED, region_pooling


class LastMap(nn.Module):
    """A map ``(B, C, h, w)``, brought to 7 × 7 bilinearly. Hook it to see what the head is given."""

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-2:] == (POOLED, POOLED):
            return features
        # Pooling the frame is resizing it, the same numbers as `interpolate`, whose gradient is left to chance on GPUs.
        precise = torch.promote_types(features.dtype, torch.float32)
        frame = torch.tensor([0, 0, 1, 1], dtype=precise, device=features.device).expand(features.shape[0], 1, 4)
        return region_pooling(features, frame)[:, 0].transpose(1, 2).unflatten(2, (POOLED, POOLED))

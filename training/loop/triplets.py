"""Batch-hard triplet loss of embeddings (Hermans et al., In defense of the triplet loss, 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def triplet_losses(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Compute the triplet loss of each image: how far its farthest positive is beyond its nearest negative.

    Positives are the other images of its class in the batch, negatives those of other classes. An image without
    either has a loss of 0.

    Args:
        vectors: Embeddings ``(B, C)``; distances are Euclidean, in float32 at least.
        labels: Classes ``(B,)``.
        margin: Distance by which negatives should be farther than positives.

    Returns: losses ``(B,)``.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        exact = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        # By matrix products, distances of close embeddings would lose their digits.
        distances = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distances.masked_fill(~same | itself, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(same, torch.inf).amin(dim=1)
    return (farthest - nearest + margin).relu()

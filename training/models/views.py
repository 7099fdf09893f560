"""Several views of a photograph by one network: how they are made, and how its answers to them are averaged.

With logits l_v of the views v = 1 … V, the answer is the product of experts (Hinton, 2002) with equal shares,
p = softmax(1/V Σ_v l_v): the logarithms of the views' probabilities are averaged, and the result is normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .blocks.precision import precise
from .contract import Output, Views

DISAGREEMENT = "disagreement"  #: name of the loss by which the mean of the views' losses exceeds that of their answer


def views_of(images: Tensor, views: Views) -> list[Tensor]:
    """Make the views of photographs ``(B, 3, H, W)``, on their device: ``(B, 3, h, w)`` each, the largest last.

    Smaller sizes are floats, interpolated bilinearly with antialiasing; crops are slices, and the centre is the last.
    """
    if not views.sizes:
        return [images[..., rows, columns] for rows, columns in _crops(*images.shape[-2:])]
    return [_resized(images, side) for side in views.sizes]


def boxes_of(views: Views, size_hw: tuple[int, int]) -> Tensor:
    """Where the views of a photograph of this height and width lie: ``(V, 4)`` xyxy in fractions of it."""
    if views.sizes:
        return torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(views.sizes), 1)
    height, width = size_hw
    places = [(x.start / width, y.start / height, x.stop / width, y.stop / height) for y, x in _crops(height, width)]
    return torch.tensor(places)


def averaged(outputs: Sequence[Output]) -> Output:
    """Average the outputs of several views, the largest last.

    Logits and embeddings are means: a linear classifier turns the mean of the embeddings into the mean of the logits.
    Region weights and attention map are those of the last view. The loss `DISAGREEMENT` of each sample,
    1/V Σ_v logsumexp(l_v) − logsumexp(1/V Σ_v l_v) ≥ 0, makes the cross-entropy of the mean logits, also with label
    smoothing, the mean of the views' own.
    """
    logits = torch.stack([precise(one.logits) for one in outputs])  # (V, B, K)
    mean = logits.mean(dim=0)
    every = [one.losses or {} for one in outputs]
    losses = {name: torch.stack([losses[name] for losses in every]).mean(dim=0) for name in every[-1]}
    losses[DISAGREEMENT] = logits.logsumexp(dim=-1).mean(dim=0) - mean.logsumexp(dim=-1)
    embeddings, compared = [one.embedding for one in outputs], [one.compared for one in outputs]
    return outputs[-1]._replace(logits=mean, embedding=_mean(embeddings), compared=_mean(compared), losses=losses)


def _mean(values: Sequence[Tensor | None]) -> Tensor | None:
    there = [value for value in values if value is not None]
    return torch.stack(there).mean(dim=0) if there else None


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return interpolate(precise(images), size=(side, side), mode="bilinear", antialias=True)


def _crops(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the four corners and the centre of a frame, each 7/8 as high and as wide."""
    high, wide = round(height * 7 / 8), round(width * 7 / 8)
    down, right = height - high, width - wide
    starts = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    return [(slice(y, y + high), slice(x, x + wide)) for y, x in starts]

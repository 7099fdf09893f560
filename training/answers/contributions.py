"""The exact decomposition of AG-Net's logits: what every place of every token adds to every class.

Given one image's own gates, attention, fusion weights and positions of maxima, AG-Net's logits are linear in its
tokens. With the tokens f_r after SE-Residual, ``(49, C)`` each, r = 1 … N, the whole image last:

- Equations 2 and 3 merge the tokens as f̂ = Σ_r s_r f_r with s_r = Σ_q w_q m_qr; without inter-attention, s_r = 1/N.
- Fusion, Equation 4, pools the 49 places p: F_c = Σ_p a_pc f̂_pc. With a_max and a_mean the softmax of its two scores,
  a_pc = a_mean / 49, plus a_max at the place of channel c's maximum. With max or mean alone, one of the two is 1.
- The shortcut makes it GAP(map)_c + γ F_c. GAP is a sum over the places of the whole image, and is counted there.
- The neck, a batch norm, is e_c ↦ g_c e_c + h_c in evaluation mode; without it, g = 1 and h = 0.
- The classifier is logit_k = b_k + Σ_c W_kc e_c.

Hence logit_k = bias_k + Σ_r Σ_p part_krp, with bias_k = b_k + Σ_c W_kc h_c and, where γ is 1 without a shortcut,

    part_krp = Σ_c W_kc g_c γ s_r a_pc f_rpc  (+ Σ_c W_kc g_c GAP's summand at p for the whole image).

The gates of SE-Residual, self-attention, region pooling and the stages of the backbone come before this: they shape
f_r, whatever they are. The sum is exact but for rounding, and no gradient is involved.

What it does not say: a place of a token is a vector of features, which has seen more of the photograph than the place,
through the backbone and through self-attention. And the factors are those of this image: with a part of it removed,
they would be others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...data.errors import ConfigurationError
from ...data.regions import Layout
from ..models.agnet import AGNet
from ..models.agnet_clips import AGNetClips
from ..models.blocks.precision import precise
from ..models.blocks.region_pooling import POOLED
from ..models.blocks.token_products import weighted_sum
from ..models.contract import Output
from ..models.model import Model

_NARROWEST = 1e-5  # width given to an empty side of a box, in fractions of the image


class Contributions(NamedTuple):
    """Parts of the logits of B images: the sum of ``parts`` over tokens and places, and ``bias``, is the logit."""

    output: Output  #: output of the network
    parts: Tensor  #: ``(B, classes, N, 7, 7)``, in logits: of each place of each token, the whole image last
    bias: Tensor  #: ``(classes,)``, in logits: what is the same for every image
    boxes: Tensor  #: ``(B, N, 4)``, xyxy in fractions of the image: where the tokens lie

    def of(self, image: int, this: int, against: int | None = None) -> Explained:
        """Return the parts of one image's logit of a class, or of its difference from another class's.

        Args:
            image: Number of the image in the batch.
            this: Number of the class.
            against: Number of the other class; None: none.
        """
        parts, bias = self.parts[image, this], self.bias[this]
        if against is not None:
            parts, bias = parts - self.parts[image, against], bias - self.bias[against]
        return Explained(parts.cpu().numpy(), float(bias), self.boxes[image].cpu().numpy())


@dataclass(frozen=True)
class Subtotals:
    """Sums of an image's parts by kind of token; with the bias, they add up to the logit."""

    primary: float  #: of the primary regions
    pairs: float  #: of the secondary regions
    whole: float  #: of the whole image


@dataclass(frozen=True)
class Explained:
    """What speaks for and against a class in one image, in logits."""

    parts: np.ndarray  #: ``(N, 7, 7)``, the whole image last
    bias: float
    boxes: np.ndarray  #: ``(N, 4)``, xyxy in fractions of the image

    @property
    def tokens(self) -> np.ndarray:
        """What each token adds, ``(N,)``."""
        return np.asarray(self.parts.sum(axis=(1, 2)))

    @property
    def total(self) -> float:
        """The logit, or the difference of two."""
        return float(self.parts.sum()) + self.bias

    def strongest(self, most_for: int = 5, most_against: int = 3) -> tuple[list[int], list[int]]:
        """Return the numbers of the regions that add most and take away most, strongest first.

        The whole image is not a region.
        """
        regions = self.tokens[:-1]
        order = np.argsort(-regions, kind="stable")
        speaking_for = [int(number) for number in order[:most_for] if regions[number] > 0]
        return speaking_for, [int(number) for number in order[::-1][:most_against] if regions[number] < 0]

    def subtotals(self, layout: Layout) -> Subtotals:
        """Sum the parts by kind of token. Raises: `ValueError` if the layout has another number of regions."""
        tokens = self.tokens
        if len(tokens) != layout.count + 1:
            raise ValueError(f"the layout has {layout.count} regions, the image {len(tokens) - 1}")
        primary = layout.count - len(layout.pairs)
        return Subtotals(float(tokens[:primary].sum()), float(tokens[primary:-1].sum()), float(tokens[-1]))

    def laid_back(self, size_hw: tuple[int, int]) -> np.ndarray:
        """Lay the parts back on the photograph: float ``size_hw``, whose sum is that of the parts; see `lay_back`."""
        parts, boxes = torch.from_numpy(self.parts), torch.from_numpy(self.boxes)
        return np.asarray(lay_back(parts[None], boxes[None], size_hw)[0].numpy())


def why_not(model: Model) -> str | None:
    """Return the reason why a network has no exact decomposition, or None if it has one."""
    if isinstance(model, AGNetClips) and type(model).classify_frames is not AGNetClips.classify_frames:
        return "an LSTM over the frames is not linear in them, so that its logits do not come apart into regions"
    if type(model).forward not in (AGNet.forward, AGNetClips.forward):
        return "only the logits of AG-Net come apart exactly into regions; HiResCAM is for every network"
    assert isinstance(model, AGNet)
    if model.views is not None:
        return "the network's answer is the mean over several views, and its logits come apart in each of them alone"
    for name in ("inter_attention", "fusion"):
        if not hasattr(getattr(model, name), "coefficients"):
            return f"the network's {name} is not of this package, and does not tell what it multiplies features by"
    if not isinstance(model.classifier, nn.Linear):
        return "the network's classifier is not a linear layer"
    if not isinstance(model.neck, nn.BatchNorm1d | None):
        return "the network's neck is not a batch norm"
    return None


@torch.no_grad()
def contributions(model: Model, images: Tensor, regions: Tensor | None = None) -> Contributions:
    """Classify images and take their logits apart; in single precision or better, also under autocast.

    Args:
        model: AG-Net for images, in evaluation mode.
        images: RGB images ``(B, 3, H, W)``, uint8 or floats in 0..255.
        regions: Boxes ``(B, R, 4)``, xyxy in fractions of the image; None if the model was built with R = 0.

    Raises: `ConfigurationError` with the reason if the network has no exact decomposition, `ValueError` for a network
        in training mode or regions of another shape.
    """
    reason = why_not(model)
    if isinstance(model, AGNetClips):
        reason = reason or "frames of clips come apart together, by clip_contributions"
    if reason:
        raise ConfigurationError(reason)
    if model.training:
        raise ValueError("logits come apart in evaluation mode only: call model.eval() first")
    assert isinstance(model, AGNet)
    with torch.autocast(images.device.type, enabled=False):
        seen = model.see(images, regions)
        output = model.classify(seen)
        direction, bias = affine(model)
        shares, tokens = model.inter_attention.coefficients(seen.tokens)  # (B, N)
        joined = weighted_sum(shares, tokens)  # (B, 49, C)
        factors = shares[:, :, None, None] * model.fusion.coefficients(joined)[:, None]  # (B, N, 49, C)
        parts = precise(tokens * factors) @ direction.T  # (B, N, 49, classes)
        if model.shortcut is not None:
            parts = parts * model.shortcut
            parts[:, -1] += gap_summands(seen.maps) @ direction.T
    return Contributions(output, parts.movedim(3, 1).unflatten(3, (POOLED, POOLED)), bias, seen.boxes)


def lay_back(parts: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Lay grids of parts back on the photograph, each place on its part of the box, spread evenly by area.

    The sum over the photograph is that of the parts. A part of a box outside the image is laid on the image's edge.

    Args:
        parts: Parts ``(B, …, N, 7, 7)``, row by row.
        boxes: Boxes ``(B, N, 4)``, xyxy in fractions of the image; they may be empty.
        size_hw: Height and width of the result, in any unit: pixels of the photograph, or a coarser grid.

    Returns: ``(B, …, *size_hw)``.
    """
    x0, y0, x1, y1 = precise(boxes).unbind(dim=2)
    rows = _places(y0, y1, parts.shape[-2], size_hw[0]).to(parts.dtype)  # (B, N, 7, H)
    columns = _places(x0, x1, parts.shape[-1], size_hw[1]).to(parts.dtype)
    spread = torch.einsum("b...nij,bniy->b...njy", parts, rows)
    return torch.einsum("b...njy,bnjx->b...yx", spread, columns)


def affine(model: AGNet) -> tuple[Tensor, Tensor]:
    """Neck and classifier as one affine function of the embedding: ``(classes, C)`` and bias ``(classes,)``."""
    classifier, neck = model.classifier, model.neck
    assert isinstance(classifier, nn.Linear)
    weight = precise(classifier.weight)
    bias = weight.new_zeros(len(weight)) if classifier.bias is None else precise(classifier.bias.detach())
    if neck is None:
        return weight, bias
    assert isinstance(neck, nn.BatchNorm1d) and neck.running_mean is not None and neck.running_var is not None
    scale = neck.weight / (neck.running_var + neck.eps).sqrt()
    return weight * scale, bias + weight @ (neck.bias - neck.running_mean * scale)


def gap_summands(maps: list[Tensor]) -> Tensor:
    """Summands of the maps' GAP at each of 49 places: maps ``(B, C_k, h_k, w_k)`` -> ``(B, 49, C)``.

    A cell of a finer map counts at the places that it lies on, by area.
    """
    found = []
    for each in maps:
        cells = precise(each) / (each.shape[2] * each.shape[3])
        frame = cells.new_tensor([0, 1])
        rows, columns = (_places(frame[0], frame[1], side, POOLED) for side in each.shape[2:])  # (h, 7), (w, 7)
        found.append(torch.einsum("bchw,hi,wj->bijc", cells, rows, columns).flatten(1, 2))
    return torch.cat(found, dim=2)


def _places(low: Tensor, high: Tensor, parts: int, cells: int) -> Tensor:
    """Shares ``(…, parts, cells)``, sum 1, of each of the equal parts of [low, high] in the equal cells of [0, 1]."""
    ends = torch.linspace(0, 1, parts + 1, device=low.device, dtype=low.dtype)
    ends = (low[..., None] + (high - low)[..., None] * ends).clamp(0, 1)
    first = ends[..., :-1].clamp(max=1 - _NARROWEST)
    last = ends[..., 1:].maximum(first + _NARROWEST)
    edges = torch.linspace(0, 1, cells + 1, device=low.device, dtype=low.dtype)
    lengths = (last[..., None].minimum(edges[1:]) - first[..., None].maximum(edges[:-1])).clamp(min=0)
    return lengths / lengths.sum(dim=-1, keepdim=True)

"""The exact decomposition of AG-Net's logits for clips: what every place of every token of every frame adds.

Of AG-Net on clips with its frames put together by ``mean`` or ``attention``, the token of a region is a weighted sum
over the frames: f_r = Σ_t a_tr g_tr ⊙ f_tr, with the tokens f_tr of frame t before the gates g_tr of SE-Residual, and
weights over time a_tr, Σ_t a_tr = 1. Given these, too, the logits are linear in the tokens of the frames, and with the
terms of `contributions`

    part_ktrp = Σ_c W_kc g_c γ s_r a_pc a_tr g_trc f_trpc  (+ Σ_c W_kc g_c GAP's summand at p of frame t / T for the
    whole image)

adds up over frames, tokens and places, and with the bias, to the logit: exactly, but for rounding. The fusion's
maxima are those of the clip's tokens, not of a frame's.

With ``alstm``, the frames pass the gates of an LSTM, whose logits are not linear in them: it does not come apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...data.errors import ConfigurationError
from ..models.agnet_clips import AGNetClips, Frames
from ..models.blocks.each_frame import scatter
from ..models.blocks.precision import precise
from ..models.blocks.region_pooling import POOLED
from ..models.blocks.token_products import weighted_sum
from ..models.contract import Output
from ..models.model import Model
from .contributions import Contributions, affine, contributions, gap_summands, why_not


class ClipContributions(NamedTuple):
    """Parts of the logits of B clips: the sum of ``parts`` over frames, tokens and places, and ``bias``, is the logit.

    Fields are those of `Contributions`, with frames.
    """

    output: Output  #: output of the network
    parts: Tensor  #: ``(B, classes, T, N, 7, 7)``, in logits, 0 for padding and for regions that a frame does not have
    bias: Tensor  #: ``(classes,)``, in logits
    boxes: Tensor  #: ``(B, T, N, 4)``, xyxy in fractions of the frame; empty where a region is not seen


def image_contributions(model: Model, inputs: tuple[Tensor | None, ...]) -> Contributions:
    """Take the logits of images apart, by AG-Net for images or for clips, to which an image is a clip of one frame.

    Args:
        model: Network in evaluation mode.
        inputs: Its inputs.

    Raises: as `contributions` and `clip_contributions`.
    """
    first, *others = inputs
    assert first is not None
    if not isinstance(model, AGNetClips):
        return contributions(model, first, *others)
    valid, *regions = others
    assert valid is not None
    found = clip_contributions(model, first, valid, *regions)
    return Contributions(found.output, found.parts[:, :, 0], found.bias, found.boxes[:, 0])


@torch.no_grad()
def clip_contributions(
    model: Model, frames: Tensor, valid: Tensor, regions: Tensor | None = None, region_valid: Tensor | None = None
) -> ClipContributions:
    """Classify clips and take their logits apart; in single precision or better, also under autocast.

    Arguments are those of `AGNetClips.forward`, for a model in evaluation mode.

    Raises: `ConfigurationError` with the reason if the network has no exact decomposition, `ValueError` for a network
        in training mode or regions of another shape.
    """
    if reason := why_not(model):
        raise ConfigurationError(reason)
    if model.training:
        raise ValueError("logits come apart in evaluation mode only: call model.eval() first")
    assert isinstance(model, AGNetClips)
    with torch.autocast(frames.device.type, enabled=False):
        maps: list[Tensor] = []
        watching = model.map_layer.register_forward_hook(lambda layer, inputs, features: maps.append(features))
        try:
            seen = model.see_frames(frames, valid, regions, region_valid)
        finally:
            watching.remove()
        output = model.classify_frames(seen, valid)
        direction, bias = affine(model)
        parts = _of_tokens(model, seen, direction)  # (B, T, N, 49, classes)
        if model.shortcut is not None:
            parts = parts * model.shortcut
            parts[:, :, -1] += _of_averages([*seen.maps[:-1], scatter(maps[0], valid)], valid) @ direction.T
    return ClipContributions(output, parts.movedim(4, 1).unflatten(4, (POOLED, POOLED)), bias, seen.boxes)


def _of_tokens(model: AGNetClips, seen: Frames, direction: Tensor) -> Tensor:
    """Parts ``(B, T, N, 49, classes)`` of the frames' tokens, without a shortcut."""
    factors = model.factors(seen)
    shares, tokens = model.inter_attention.coefficients(model.tokens_of_clip(seen, factors))  # (B, N)
    places = model.fusion.coefficients(weighted_sum(shares, tokens))  # (B, 49, C)
    reaching = shares[:, :, None, None] * places[:, None]  # (B, N, 49, C)
    found = [precise(model.tokens_of_frame(seen, t, factors) * reaching) @ direction.T for t in range(factors.shape[1])]
    return torch.stack(found, dim=1)


def _of_averages(maps: list[Tensor], valid: Tensor) -> Tensor:
    """Summands of the mean over the valid frames of the maps' GAP: maps ``(B, T, C_k, h_k, w_k)`` ->
    ``(B, T, 49, C)``.
    """
    each = gap_summands([one.flatten(0, 1) for one in maps]).unflatten(0, valid.shape)
    return each / valid.sum(dim=1)[:, None, None, None]

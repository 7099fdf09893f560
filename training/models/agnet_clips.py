"""AG-Net on clips: image AG-Net for every frame, with shared weights, and its regions or frames put together over time.

The paper names videos as future work. These networks are choices of this implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .agnet import AGNet, agnet_blocks, assemble_agnet
from .backbones.backbone import Backbone
from .blocks.each_frame import each_frame, valid_mean
from .blocks.inter_attention import InterAttention
from .blocks.last_map import LastMap
from .blocks.lstm_step import States, kept, lstm_step, start_lstm
from .blocks.precision import precise, precise_dtype
from .contract import Output
from .settings import AGNetSettings


class Frames(NamedTuple):
    """Image AG-Net's view of every frame, up to the pooling of the tokens."""

    maps: list[Tensor]  #: maps that regions are pooled from, each ``(B, T, C, h, w)``, 0 for padding
    boxes: Tensor  #: ``(B, T, N, 4)``, the whole frame last
    seen: Tensor  #: bool ``(B, T, N)``, False where a token says nothing
    factors: Tensor  #: ``(B, T, N, C)``: the gates of SE-Residual, or ones ``(B, T, N, 1)``
    means: Tensor  #: ``(B, T, N, C)``: mean of each token over its positions, after the gates
    attention: Tensor | None  #: ``(B, T, 7, 7)``, attention map of Eq. 1
    average: Tensor | None  #: ``(B, T, C)``, GAP of the maps, for the shortcut


class AGNetClips(AGNet):
    """AG-Net on clips: each region's token is a weighted mean over time; Eqs. 2 to 4 are applied to the clip's tokens.

    The weights are a softmax over the valid frames of a score, which is linear in the mean of the token's positions, as
    Eq. 3's is in a token. The scores start at 0, and so the tokens as means over time. Since the scores need no whole
    tokens, the weighted sum is computed frame by frame; its tokens are computed again for the gradient instead of kept.

    With one frame, this is the image AG-Net, bit for bit.

    Args:
        over_time: Score of a token's mean, ``(..., C)`` -> ``(..., 1)``; None: the mean over time.
        reduction: Convolution that the last map passes before all else; None: none.
        blocks: Arguments of `AGNet`.
    """

    inputs = ("frames", "valid", "regions", "region_valid")
    titles: ClassVar = {**AGNet.titles, "over_time": "attention over time", "last_map": "reduction of channels"}

    def __init__(self, over_time: nn.Linear | None = None, reduction: nn.Module | None = None, **blocks: Any) -> None:
        super().__init__(**blocks)
        self.over_time = over_time
        if over_time is not None:
            nn.init.zeros_(over_time.weight)
        if reduction is not None:
            self.last_map = nn.Sequential(LastMap(), reduction)

    def forward(  # type: ignore[override]
        self, frames: Tensor, valid: Tensor, regions: Tensor | None = None, region_valid: Tensor | None = None
    ) -> Output:
        """Classify clips by their regions.

        Args:
            frames: RGB frames ``(B, T, 3, H, W)``, uint8 or floats in 0..255.
            valid: bool ``(B, T)``, False for padding; every clip has a valid frame.
            regions: Boxes ``(B, T, R, 4)``, xyxy in fractions of the frame; None if the model was built with R = 0.
            region_valid: bool ``(B, T, R)``, False for boxes that are only interpolated, which are left out; None: none
                is. A region without any valid box in a clip is used with all its boxes.

        Returns: logits ``(B, classes)``, region weights ``(B, N)``, attention map ``(B, T, 7, 7)``, 0 for padding (None
            without self-attention), and embedding ``(B, C)``.

        Raises: `ValueError` if the shape of ``regions`` is not ``(B, T, R, 4)``.
        """
        return self.classify_frames(self.see_frames(frames, valid, regions, region_valid), valid)

    def see_frames(
        self, frames: Tensor, valid: Tensor, regions: Tensor | None = None, region_valid: Tensor | None = None
    ) -> Frames:
        """Compute all that comes before the tokens; arguments and errors are those of `forward`."""
        boxes = self._boxes(valid.shape, valid.device, regions)
        seen = _seen(valid, region_valid if self.regions else None, boxes.shape[2])
        boxes = torch.where(seen[..., None], boxes, 0)
        found = each_frame(self._of_frames, frames, valid)
        stages = len(self.backbone.channels_of_maps)
        maps, others = found[:stages], iter(found[stages:])
        attention = next(others) if self.self_attention else None
        average = next(others) if self.shortcut is not None else None
        means, factors = self._means(maps, boxes)
        return Frames(maps, boxes, seen, factors, means, attention, average)

    def _of_frames(self, images: Tensor) -> list[Tensor]:
        """Everything that is computed from single frames ``(n, 3, H, W)``: maps, attention map, average."""
        maps, features, attention = self._maps(images)
        averages = [] if self.shortcut is None else [self._average([*maps[:-1], features])]
        return [*maps, *([] if attention is None else [attention]), *averages]

    def _means(self, maps: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of each token after the gates ``(B, T, N, C)``, and the gates, without computing the tokens."""
        pooled = self._pool([each.flatten(0, 1) for each in maps], boxes.flatten(0, 1), mean=True).squeeze(2)
        gates = self.se_residual.gates(pooled) if self.se_residual else torch.ones_like(pooled[..., :1])
        return (pooled * gates).unflatten(0, boxes.shape[:2]), gates.unflatten(0, boxes.shape[:2])

    def classify_frames(self, frames: Frames, valid: Tensor) -> Output:
        """Merge the tokens and classify the clips: the second half of `forward`."""
        joined, weights = self.inter_attention(self.tokens_of_clip(frames, self.factors(frames)))
        embedding = self.fusion(joined)
        if self.shortcut is not None and frames.average is not None:
            embedding = valid_mean(frames.average, valid) + self.shortcut * embedding
        return self.classified(embedding, region_weights=weights, attention_map=frames.attention)

    def factors(self, frames: Frames) -> Tensor:
        """What each frame's tokens are multiplied by in the clip's tokens ``(B, T, N, C)`` or ``(B, T, N, 1)``: the
        gates of SE-Residual, times the weights over time, which are 0 for what is not seen.
        """
        score = self.over_time or torch.zeros_like  # equal scores: the mean
        scores = precise(score(frames.means)[..., :1]).masked_fill(~frames.seen[..., None], -math.inf)
        return frames.factors * scores.softmax(dim=1).to(frames.factors.dtype)

    def tokens_of_clip(self, frames: Frames, factors: Tensor) -> Tensor:
        """Tokens of the clips ``(B, N, 49, C)``: the sum of `tokens_of_frame` over the frames."""
        tokens = self.tokens_of_frame(frames, 0, factors)
        for t in range(1, factors.shape[1]):
            tokens = tokens + self.tokens_of_frame(frames, t, factors)
        return tokens

    def tokens_of_frame(self, frames: Frames, t: int, factors: Tensor) -> Tensor:
        """Tokens of frame t, times their factors: ``(B, N, 49, C)``."""
        return _again(self._scaled, frames.boxes[:, t], factors[:, t], *(each[:, t] for each in frames.maps))

    def _scaled(self, boxes: Tensor, factors: Tensor, *maps: Tensor) -> Tensor:
        return self._pool(list(maps), boxes) * factors[:, :, None]


class AGNetALSTM(AGNetClips):
    """AG-Net on clips with an LSTM over the frames, whose hidden state enters the next frame's region weighting.

    w_t = softmax over r of (W_α α_r + W_h h_{t−1})_r in place of Eq. 3, with W_h = 0 at the start; F_t of Eq. 4 feeds
    the LSTM, which starts from zeros; every frame is classified from h_t.

    Args:
        cell: LSTM cell, C -> U; its own ``forward`` is not used.
        reduction: As in `AGNetClips`.
        blocks: Arguments of `AGNet`; ``inter_attention`` is not `TokenMean`, ``classifier`` takes U features.
    """

    titles: ClassVar = {**AGNetClips.titles, "cell": "LSTM", "recall": "region scores of the LSTM"}

    def __init__(self, cell: nn.LSTMCell, reduction: nn.Module | None = None, **blocks: Any) -> None:
        super().__init__(None, reduction, **blocks)
        self.cell = cell
        self.recall = nn.Linear(cell.hidden_size, self.regions + 1, bias=False)  # W_h
        nn.init.zeros_(self.recall.weight)
        nn.init.zeros_(cell.bias_hh)
        start_lstm(cell.bias_ih, cell.weight_hh)

    def classify_frames(self, frames: Frames, valid: Tensor) -> Output:
        """Classify every frame: logits ``(B, T, classes)``, region weights ``(B, T, N)`` and embedding ``(B, U)``."""
        seen = frames.seen | ~valid[..., None]  # in padding, whose weights are not used, all is 0, and nothing NaN
        zeros = frames.means.new_zeros(len(valid), self.cell.hidden_size, dtype=precise_dtype(frames.means.dtype))
        states, found, weighted = (zeros, zeros), [], []
        for t in range(valid.shape[1]):
            now = (frames.boxes[:, t], frames.factors[:, t], *(each[:, t] for each in frames.maps))
            vector, weights = _again(self._vector, self.recall(states[0]), seen[:, t], *now)
            if self.shortcut is not None and frames.average is not None:
                vector = frames.average[:, t] + self.shortcut * vector
            states = kept(valid[:, t], self._step(vector, states), states)
            found.append(states[0])
            weighted.append(weights)
        weights = torch.where(valid[..., None], torch.stack(weighted, dim=1), 0)
        hidden = torch.stack(found, dim=1)
        return self.classified_frames(hidden, valid, region_weights=weights, attention_map=frames.attention)

    def _vector(self, bias: Tensor, seen: Tensor, *now: Tensor) -> tuple[Tensor, Tensor]:
        """F ``(B, C)`` of a frame, and its region weights ``(B, N)``."""
        joined, weights = self.inter_attention(self._scaled(*now), bias, seen)
        return self.fusion(joined), weights

    def _step(self, vector: Tensor, states: States) -> States:
        inputs = nn.functional.linear(vector, self.cell.weight_ih, self.cell.bias_ih)
        return lstm_step(inputs + nn.functional.linear(states[0], self.cell.weight_hh, self.cell.bias_hh), states[1])


def _seen(valid: Tensor, region_valid: Tensor | None, tokens: int) -> Tensor:
    """Which tokens of each frame count, bool ``(B, T, N)``; see `AGNetClips.forward`."""
    frames = valid[..., None]
    if region_valid is None:
        return frames.expand(*valid.shape, tokens)
    boxes = region_valid & frames
    boxes = boxes | (frames & ~boxes.any(dim=1, keepdim=True))
    return torch.cat([boxes, frames], dim=2)


def _again(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Call a function whose intermediate results are not kept, but computed again for the gradient."""
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def assemble_agnet_or_clips(settings: AGNetSettings, backbones: Sequence[Backbone]) -> AGNet:
    """Assemble AG-Net for images or clips from its settings on a backbone.

    Raises: `ValueError` for settings that do not fit the backbone, or each other.
    """
    if settings.temporal == "frames":
        return assemble_agnet(settings, backbones)
    (backbone,) = backbones
    last = settings.region_channels or backbone.channels
    reduction = nn.Conv2d(backbone.channels, last, 1) if settings.region_channels else None
    blocks = agnet_blocks(settings, backbone, last) | {"backbone": backbone, "reduction": reduction}
    channels = blocks["classifier"].in_features
    if settings.temporal != "alstm":
        over_time = nn.Linear(channels, 1, bias=False) if settings.temporal == "attention" else None
        return AGNetClips(over_time, **blocks)
    if not isinstance(blocks["inter_attention"], InterAttention):
        raise ValueError("temporal alstm weights the regions of inter-attention, which is switched off")
    blocks["classifier"] = nn.Linear(settings.lstm_units, settings.classes)
    return AGNetALSTM(nn.LSTMCell(channels, settings.lstm_units), **blocks)

"""ConvALSTM: a convolutional LSTM over the frames of a clip with soft attention over the positions of each.

frame ─ backbone ─ X ─ attention ⊙ X ─ convolutional LSTM ─ mean or all values ─ dropout ─ linear ─ logits of the frame

Li et al., VideoLSTM convolves, attends and flows for action recognition (arXiv 1607.01794), without optical flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from .backbones.backbone import Backbone
from .blocks.each_frame import each_frame, valid_mean
from .blocks.last_map import LastMap
from .blocks.lstm_step import GATES, States, kept, lstm_step, start_lstm
from .blocks.precision import precise, precise_dtype
from .blocks.region_pooling import POOLED
from .contract import Output
from .model import Model
from .settings import ConvALSTMSettings


class MapScore(nn.Module):
    """e = vᵀ tanh(W_x X + W_h h) at each position, for a hidden state that is a map.

    Args:
        channels: Channels D of the map X.
        units: Channels U of h, and width.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.positions = nn.Conv2d(channels, units, 1)  # W_x
        self.state = nn.Conv2d(units, units, 1)  # W_h
        self.score = nn.Conv2d(units, 1, 1)  # v

    def keys(self, maps: Tensor) -> Tensor:
        """``(B, T, D, h, w)`` -> ``(B, T, U, h, w)``."""
        return self.positions(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """Keys of a frame and h, both ``(B, U, h, w)`` -> scores ``(B, 1, h, w)``."""
        return self.score(torch.tanh(keys + self.state(hidden)))


class ConvLSTMCell(nn.Module):
    """Sums of the gates: 3 × 3 convolutions of the input and of the hidden state.

    Args:
        channels: Channels D of the input.
        units: Channels U of the states.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.input = nn.Conv2d(channels, GATES * units, 3, padding=1)
        self.recurrent = nn.Conv2d(units, GATES * units, 3, padding=1, bias=False)
        assert self.input.bias is not None
        start_lstm(self.input.bias, self.recurrent.weight)

    def weights(self) -> Tensor:
        """Weights for input and state side by side ``(4U, D + U, 3, 3)``, so that a step is one convolution."""
        return torch.cat([self.input.weight, self.recurrent.weight], dim=1)

    def forward(self, attended: Tensor, before: States, weights: Tensor) -> States:
        """Input ``(B, D, h, w)``, states ``(B, U, h, w)`` and `weights` -> new states."""
        hidden, cell = before
        both = torch.cat([attended, hidden.to(attended.dtype)], dim=1)
        return lstm_step(conv2d(both, weights, self.input.bias, padding=1), cell)


class ConvALSTM(Model):
    """Backbone → attention → convolutional LSTM → linear, frame by frame.

    The blocks are passed in; `assemble_conv_alstm` builds them from settings.

    Args:
        backbone: Backbone.
        grid: ``(n, D, h, w)`` -> the map that the LSTM reads.
        attention: Score of the positions.
        cell: Convolutional LSTM.
        start: Convolution of the mean map to both initial states ``(B, 2U, h, w)``; None: zeros.
        readout: Hidden maps ``(B, T, U, h, w)`` -> input of the classifier ``(B, T, C)``.
        classifier: ``(..., C)`` -> ``(..., classes)``.
        carry: Whether the LSTM keeps its states from frame to frame; if not, only the attention sees the hidden state.
        rescale: Whether the attended map is multiplied by the number of positions.
    """

    inputs = ("frames", "valid")
    titles: ClassVar = {"start": "initial states", "cell": "convolutional LSTM"}

    def __init__(
        self,
        backbone: Backbone,
        grid: nn.Module,
        attention: MapScore,
        cell: ConvLSTMCell,
        start: nn.Conv2d | None,
        readout: nn.Module,
        classifier: nn.Module,
        carry: bool = True,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid = grid
        self.attention = attention
        self.cell = cell
        self.start = start
        self.readout = readout
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier
        self.carry, self.rescale = carry, rescale

    def forward(self, frames: Tensor, valid: Tensor) -> Output:
        """Classify every frame of clips.

        Args:
            frames: RGB frames ``(B, T, 3, H, W)``, uint8 or floats in 0..255.
            valid: bool ``(B, T)``, False for padding; every clip has a valid frame.

        Returns: logits ``(B, T, classes)``, attention map ``(B, T, h, w)``, 0 for padding, and embedding ``(B, C)``.
        """
        maps = each_frame(lambda images: self.grid(self.backbone(images)), frames, valid)  # (B, T, D, h, w)
        hidden, shares = self._read(maps, valid)
        shares = torch.where(valid[..., None, None], shares, 0)
        return self.classified_frames(self.readout(hidden), valid, attention_map=shares)

    def _read(self, maps: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, T, D, h, w)`` -> hidden states ``(B, T, U, h, w)`` and attention ``(B, T, h, w)``."""
        hidden, cell = self._started(maps, valid)
        zeros = torch.zeros_like(hidden)
        weights, found, attended = self.cell.weights(), [], []
        # Unbound at once: the gradient of each single index would be as large as all frames.
        frames = zip(self.attention.keys(maps).unbind(1), maps.unbind(1), valid.unbind(1), strict=True)
        for keys, places, real in frames:
            scores = precise(self.attention(keys, hidden))
            shares = scores.flatten(1).softmax(dim=1).view_as(scores)  # (B, 1, h, w)
            scale = shares[0].numel() if self.rescale else 1
            before = (hidden, cell) if self.carry else (zeros, zeros)
            states = self.cell(places * (scale * shares).to(places.dtype), before, weights)
            hidden, cell = kept(real, states, (hidden, cell))
            found.append(hidden)
            attended.append(shares[:, 0])
        return torch.stack(found, dim=1), torch.stack(attended, dim=1)

    def _started(self, maps: Tensor, valid: Tensor) -> States:
        B, _, _, h, w = maps.shape
        if self.start is None:
            zeros = maps.new_zeros(B, self.cell.units, h, w, dtype=precise_dtype(maps.dtype))
            return zeros, zeros
        mean = valid_mean(maps.flatten(2), valid).unflatten(1, maps.shape[2:])
        hidden, cell = precise(torch.tanh(self.start(mean))).chunk(2, dim=1)
        return hidden, cell


class MapMean(nn.Module):
    """Mean over the positions: ``(B, T, U, h, w)`` -> ``(B, T, U)``."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(3, 4))


def assemble_conv_alstm(settings: ConvALSTMSettings, backbones: Sequence[Backbone]) -> ConvALSTM:
    """Assemble ConvALSTM from its settings on a backbone; all layer sizes are computed here."""
    (backbone,) = backbones
    channels, units, flatten = backbone.channels, settings.units, settings.readout == "flatten"
    return ConvALSTM(
        backbone=backbone,
        grid=LastMap() if flatten else nn.Identity(),  # the mean takes any size
        attention=MapScore(channels, units),
        cell=ConvLSTMCell(channels, units),
        start=nn.Conv2d(channels, 2 * units, 3, padding=1) if settings.start == "conv" else None,
        readout=nn.Flatten(2) if flatten else MapMean(),
        classifier=nn.Linear(units * POOLED * POOLED if flatten else units, settings.classes),
        carry=settings.carry,
        rescale=settings.rescale,
    )

"""ALSTM: an LSTM over the frames of a clip with soft attention over the positions of each.

frame ─ backbone ─ X ─ weighted sum over the positions ─ LSTM ─ dropout ─ linear ─ logits of the frame
                        softmax(score(X, h of the frame before))

Sharma et al., Action recognition using visual attention (arXiv 1511.04119), and the tutorial code that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from .backbones.backbone import Backbone
from .blocks.each_frame import each_frame, valid_mean
from .blocks.frame_scores import ContentScore, HiddenScore, LocationScore, coverage_loss
from .blocks.last_map import LastMap
from .blocks.lstm_step import Products, kept, lstm_step, start_lstm
from .blocks.precision import precise
from .blocks.region_pooling import POOLED
from .contract import Output
from .model import Model
from .settings import ALSTMSettings


class ALSTM(Model):
    """Backbone → attention → LSTM → linear, frame by frame.

    The blocks are passed in; `assemble_alstm` builds them from settings.

    Args:
        backbone: Backbone.
        grid: ``(n, D, h, w)`` -> the map whose positions are attended to.
        attention: Score of the positions.
        cell: LSTM cell, D -> U; its own ``forward`` is not used.
        classifier: ``(..., U)`` -> ``(..., classes)``.
        carry: Whether the LSTM keeps its states from frame to frame; if not, only the attention sees the hidden state.
        coverage: Weight of the coverage loss; 0: no such loss.
        coverage_target: Attention that each position should get over all frames; None: frames / positions.
    """

    inputs = ("frames", "valid")
    titles: ClassVar = {"start_hidden": "initial hidden state", "start_cell": "initial cell", "cell": "LSTM"}

    def __init__(
        self,
        backbone: Backbone,
        grid: nn.Module,
        attention: ContentScore | LocationScore | HiddenScore,
        cell: nn.LSTMCell,
        classifier: nn.Module,
        carry: bool = True,
        coverage: float = 0.0,
        coverage_target: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid = grid
        self.start_hidden = nn.Linear(cell.input_size, cell.hidden_size)
        self.start_cell = nn.Linear(cell.input_size, cell.hidden_size)
        self.attention = attention
        self.cell = cell
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier
        self.carry, self.coverage, self.coverage_target = carry, coverage, coverage_target
        nn.init.zeros_(cell.bias_hh)
        start_lstm(cell.bias_ih, cell.weight_hh)

    def forward(self, frames: Tensor, valid: Tensor) -> Output:
        """Classify every frame of clips.

        Args:
            frames: RGB frames ``(B, T, 3, H, W)``, uint8 or floats in 0..255.
            valid: bool ``(B, T)``, False for padding; every clip has a valid frame.

        Returns: logits ``(B, T, classes)``, attention map ``(B, T, h, w)``, 0 for padding, and embedding ``(B, U)``.
        """
        maps = each_frame(lambda images: self.grid(self.backbone(images)), frames, valid)  # (B, T, D, h, w)
        hidden, shares = self._read(maps.flatten(3).transpose(2, 3), valid)
        shares = torch.where(valid[..., None], shares, 0).unflatten(2, maps.shape[3:])
        losses = None
        if self.coverage:
            losses = {"coverage": self.coverage * coverage_loss(shares, valid, self.coverage_target)}
        return self.classified_frames(hidden, valid, attention_map=shares, losses=losses)

    def _read(self, maps: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, T, N, D)`` -> hidden states ``(B, T, U)`` and attention ``(B, T, N)``."""
        mean = valid_mean(maps.mean(dim=2), valid)
        hidden, cell = (precise(torch.tanh(start(mean))) for start in (self.start_hidden, self.start_cell))
        weights = torch.cat([self.cell.weight_ih, self.cell.weight_hh], dim=1)  # one product for input and state
        gates = Products(weights, self.cell.bias_ih + self.cell.bias_hh, maps.shape[1], len(maps))
        found, attended = [], []
        # Unbound at once: the gradient of each single index would be as large as all frames.
        frames = zip(self.attention.keys(maps).unbind(1), maps.unbind(1), valid.unbind(1), strict=True)
        for keys, places, real in frames:
            shares = precise(self.attention(keys, hidden)).softmax(dim=1)
            z = (shares[:, None].to(places.dtype) @ places).squeeze(1)
            before = (hidden, cell) if self.carry else (torch.zeros_like(hidden), torch.zeros_like(cell))
            states = lstm_step(gates(torch.cat([z.to(hidden.dtype), before[0]], dim=1)), before[1])
            hidden, cell = kept(real, states, (hidden, cell))
            found.append(hidden)
            attended.append(shares)
        return torch.stack(found, dim=1), torch.stack(attended, dim=1)


def assemble_alstm(settings: ALSTMSettings, backbones: Sequence[Backbone]) -> ALSTM:
    """Assemble ALSTM from its settings on a backbone; all layer sizes are computed here."""
    (backbone,) = backbones
    channels, units = backbone.channels, settings.units
    width, positions = settings.attention_units or max(units // 2, 1), POOLED * POOLED
    attention: ContentScore | LocationScore | HiddenScore
    if settings.score == "content":
        attention = ContentScore(channels, units, width)
    elif settings.score == "location":
        attention = LocationScore(channels, units, width, positions)
    else:
        attention = HiddenScore(units, positions)
    return ALSTM(
        backbone=backbone,
        # Only the score of the content takes any number of positions.
        grid=nn.Identity() if settings.score == "content" else LastMap(),
        attention=attention,
        cell=nn.LSTMCell(channels, units),
        classifier=nn.Linear(units, settings.classes),
        carry=settings.carry,
        coverage=settings.coverage,
        coverage_target=1.0 if settings.coverage_target == "one" else None,
    )

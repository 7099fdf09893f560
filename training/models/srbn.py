"""SRBN: spatial recurrent bilinear network (Wu and Wang, arXiv 1709.05769), in the order of its abstract.

image ─┬─ backbone ──────── a ─┐
       └─ second backbone ── b ─┴─ bilinear at each position ─ z ─ attention ─ spatial LSTM ─ mean or last
          state ─ linear

The abstract gives no widths, no grid and no loss: they are choices of this implementation, named in `SRBNSettings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .blocks.bilinear import CompactBilinear, LowRankBilinear, PositionNorm
from .blocks.common_grid import CommonGrid
from .blocks.location_attention import (
    MOST_POSITIONS,
    UNITS_SHARE,
    RecurrentAttention,
    StaticAttention,
    coverage_loss,
)
from .blocks.spatial_lstm import SpatialLSTM
from .contract import Output
from .model import Model
from .settings import SRBNSettings


class SRBN(Model):
    """Two streams → bilinear features at each position → attention → spatial LSTM → linear.

    The blocks are passed in; `assemble_srbn` builds them from settings.

    Args:
        backbone: Backbone of the first stream, whose grid the second's map is resized to.
        second_backbone: Backbone of the second stream; None: both are one, computed once.
        common_grid: Resizing of both maps to one grid.
        bilinear: Two maps -> ``(B, d, h, w)``.
        attention: Attention over the positions, once or at each step of the LSTM.
        spatial_lstm: Spatial LSTM over the attended map.
        classifier: ``(B, directions · units)`` -> ``(B, classes)``.
        last: Classify the corners' states instead of the mean over all positions.
        coverage: Weight of the coverage loss of recurrent attention; 0: no such loss.
    """

    titles: ClassVar = {"second_backbone": "second backbone", "spatial_lstm": "spatial LSTM"}

    def __init__(
        self,
        backbone: Backbone,
        second_backbone: Backbone | None,
        common_grid: CommonGrid,
        bilinear: LowRankBilinear | CompactBilinear,
        attention: StaticAttention | RecurrentAttention,
        spatial_lstm: SpatialLSTM,
        classifier: nn.Module,
        last: bool = False,
        coverage: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.second_backbone = second_backbone
        self.common_grid = common_grid
        self.bilinear = bilinear
        self.position_norm = PositionNorm()
        self.attention = attention
        self.spatial_lstm = spatial_lstm
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier
        self.last, self.coverage = last, coverage

    def forward(self, images: Tensor) -> Output:
        """RGB images ``(B, 3, H, W)``, uint8 or floats 0..255 -> logits, the attention map and the embedding."""
        a = self.backbone(images)  # (B, C, h, w)
        b = a if self.second_backbone is None else self.second_backbone(images)
        z = self.position_norm(self.bilinear(*self.common_grid(a, b)))  # (B, d, h, w)
        losses = None
        if isinstance(self.attention, StaticAttention):
            z, attention_map = self.attention(z)
            hidden = self.spatial_lstm(z).hidden
        else:
            attend = partial(self.attention, keys=self.attention.keys(z))
            hidden, shares = self.spatial_lstm(z, attend)
            attention_map = shares.mean(dim=(0, 1)).unflatten(1, z.shape[2:])
            losses = {"coverage": self.coverage * coverage_loss(shares)} if self.coverage else None
        # hidden: (B, directions, units, h, w)
        embedding = self.spatial_lstm.corners(hidden) if self.last else hidden.mean(dim=(3, 4)).flatten(1)
        return self.classified(embedding, attention_map=attention_map, losses=losses)

    @property
    def map_layer(self) -> nn.Module:
        # Before the norm a position's own scale changes nothing: gradient times activation is 0 everywhere.
        return self.position_norm


def assemble_srbn(settings: SRBNSettings, backbones: Sequence[Backbone]) -> SRBN:
    """Assemble SRBN from its settings on its backbones; all layer sizes are computed here.

    Raises: `ValueError` for settings that exclude each other.
    """
    recurrent = settings.attention == "recurrent"
    if recurrent and settings.grid**2 > MOST_POSITIONS:
        most = int(MOST_POSITIONS**0.5)
        raise ValueError(f"recurrent attention takes a grid of up to {most} x {most}, got {settings.grid}")
    channels, d = (backbones[0].channels, backbones[-1].channels), settings.bilinear_channels
    if d < UNITS_SHARE:
        raise ValueError(f"wanted bilinear_channels {UNITS_SHARE} or more, got {d}")
    return SRBN(
        backbone=backbones[0],
        second_backbone=backbones[1] if len(backbones) > 1 else None,
        common_grid=CommonGrid(settings.grid, MOST_POSITIONS if recurrent else None),
        bilinear=LowRankBilinear(channels, d, settings.rank)
        if settings.bilinear == "lowrank"
        else CompactBilinear(channels, d, settings.sketch),
        attention=RecurrentAttention(d, settings.units, settings.directions) if recurrent else StaticAttention(d),
        spatial_lstm=SpatialLSTM(d, settings.units, settings.directions, settings.stable),
        classifier=nn.Linear(settings.directions * settings.units, settings.classes),
        last=settings.readout == "last",
        coverage=settings.coverage,
    )

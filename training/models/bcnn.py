"""B-CNN: bilinear pooling of two streams (Lin et al., 2015), the baseline of SRBN.

image ─┬─ backbone ──────── a ─┐
       └─ second backbone ── b ─┴─ Σ over positions of a ⊗ b ─ signed square root ─ L2 ─ linear
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .blocks.bilinear import BilinearSum, LowRankBilinear, LowRankSum, TensorSketch, UnitRoot
from .blocks.common_grid import CommonGrid
from .contract import Output
from .model import Model
from .settings import BCNNSettings


class BCNN(Model):
    """Two streams → sum of outer products over all positions → signed square root, L2 → linear.

    Args:
        backbone: Backbone of the first stream, whose grid the second's map is resized to.
        second_backbone: Backbone of the second stream; None: both are one, computed once.
        common_grid: Resizing of both maps to one grid.
        bilinear: Two maps -> a vector ``(B, D)``.
        classifier: ``(B, D)`` -> ``(B, classes)``.
    """

    titles: ClassVar = {"second_backbone": "second backbone"}

    def __init__(
        self,
        backbone: Backbone,
        second_backbone: Backbone | None,
        common_grid: CommonGrid,
        bilinear: BilinearSum | LowRankSum,
        classifier: nn.Module,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.second_backbone = second_backbone
        self.common_grid = common_grid
        self.first_map = nn.Identity()  # for hooks, since both streams may be one
        self.bilinear = bilinear
        self.unit_root = UnitRoot()
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier

    def forward(self, images: Tensor) -> Output:
        """RGB images ``(B, 3, H, W)``, uint8 or floats 0..255 -> logits and the embedding."""
        a = self.backbone(images)  # (B, C, h, w)
        b = a if self.second_backbone is None else self.second_backbone(images)
        a, b = self.common_grid(a, b)
        embedding = self.unit_root(self.bilinear(self.first_map(a), b))  # (B, D)
        return self.classified(embedding)

    @property
    def map_layer(self) -> nn.Module:
        return self.first_map

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Context in which the root's scale is a constant for gradients: the logits are then linear in the first map,
        and the contributions of its positions and the classifier's bias add up to the logit.
        """
        self.unit_root.constant_scale = True
        try:
            yield
        finally:
            self.unit_root.constant_scale = False


def assemble_bcnn(settings: BCNNSettings, backbones: Sequence[Backbone]) -> BCNN:
    """Assemble B-CNN from its settings on its backbones; all layer sizes are computed here."""
    channels = backbones[0].channels, backbones[-1].channels
    bilinear: BilinearSum | LowRankSum
    if settings.bilinear == "lowrank":
        outputs = settings.bilinear_channels
        bilinear = LowRankSum(LowRankBilinear(channels, outputs, settings.rank))
    elif settings.bilinear == "compact":
        outputs, bilinear = settings.sketch, BilinearSum(TensorSketch(channels, settings.sketch))
    else:
        outputs, bilinear = channels[0] * channels[1], BilinearSum()
    return BCNN(
        backbone=backbones[0],
        second_backbone=backbones[1] if len(backbones) > 1 else None,
        common_grid=CommonGrid(settings.grid),
        bilinear=bilinear,
        classifier=nn.Linear(outputs, settings.classes),
    )

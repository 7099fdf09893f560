"""The control of every claim: the same backbone, average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .blocks.last_map import LastMap
from .contract import Output
from .model import Model
from .settings import PlainSettings


class Plain(Model):
    """Backbone → global average pooling → linear."""

    def __init__(self, backbone: Backbone, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        # An average over 7 × 7 positions is not one over all h × w: without this, maps of another size would give other
        # numbers than AG-Net's shortcut and the plain networks trained so far.
        self.last_map = LastMap()
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier

    def forward(self, images: Tensor) -> Output:
        """RGB images ``(B, 3, H, W)``, uint8 or floats 0..255 -> logits."""
        embedding = self.last_map(self.backbone(images)).mean(dim=(2, 3))  # (B, C)
        return Output(self.classifier(self.dropout(embedding)), embedding=embedding)

    @property
    def map_layer(self) -> nn.Module:
        return self.last_map


def assemble_plain(settings: PlainSettings, backbones: Sequence[Backbone]) -> Plain:
    """The network of these settings on its backbone."""
    (backbone,) = backbones
    return Plain(backbone, nn.Linear(backbone.channels, settings.classes))

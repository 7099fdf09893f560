"""AG-Net's control: the same backbone, average pooling and one linear layer."""

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
        # The mean over 7 × 7 positions differs from the mean over all h × w. Maps of other sizes are resized, too, so
        # that the embedding is the GAP(map) of AG-Net's shortcut, and so that existing checkpoints keep their outputs.
        self.last_map = LastMap()
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier

    def forward(self, images: Tensor) -> Output:
        """Classify RGB images ``(B, 3, H, W)``, uint8 or floats in 0..255."""
        embedding = self.last_map(self.backbone(images)).mean(dim=(2, 3))  # (B, C)
        return self.classified(embedding)

    @property
    def map_layer(self) -> nn.Module:
        return self.last_map


def assemble_plain(settings: PlainSettings, backbones: Sequence[Backbone]) -> Plain:
    """Assemble the control from its settings on a backbone."""
    (backbone,) = backbones
    return Plain(backbone, nn.Linear(backbone.channels, settings.classes))

"""The control of every claim: the same backbone, average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .contract import Output
from .model import Model
from .settings import PlainSettings


class Plain(Model):
    """Backbone → global average pooling → linear. Regions are accepted and not looked at."""

    def __init__(self, backbone: Backbone, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier

    def forward(self, images: Tensor, regions: Tensor | None = None) -> Output:
        """Images ``(B, 3, H, W)``, normalised -> logits."""
        embedding = self.backbone(images).mean(dim=(2, 3))  # (B, C)
        return Output(self.classifier(self.dropout(embedding)), embedding=embedding)


def assemble_plain(settings: PlainSettings, backbones: Sequence[Backbone]) -> Plain:
    """The network of these settings on its backbone."""
    (backbone,) = backbones
    return Plain(backbone, nn.Linear(backbone.channels, settings.classes))

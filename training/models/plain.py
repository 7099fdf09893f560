"""The control of every claim: the same backbone, average pooling and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .output import Output


class Plain(nn.Module):
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

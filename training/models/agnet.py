"""AG-Net: Attend and Guide (Bera et al., IEEE TIP 30, 2021), Figure 1 from left to right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbones import Backbone
from .fusion import Pooling, PoolingFusion
from .inter_attention import InterAttention, TokenMean
from .output import Output
from .region_pooling import POOLED, region_pooling
from .se_residual import SEResidual
from .self_attention import SelfAttention


class AGNet(nn.Module):
    """Recognise an image by its parts and by what they have to do with each other.

    The blocks are passed in; `build.build_model` knows their numbers.

    Args:
        backbone: images ``(B, 3, H, W)`` -> feature map ``(B, C, 7, 7)``.
        self_attention: over the map's positions; None leaves the map as it is.
        se_residual: one gate for each of the N = R + 1 tokens, `nn.Identity` for none.
        inter_attention: between the tokens, or their mean.
        fusion: of average and maximum pooling, or one of them.
        classifier: ``(B, C)`` -> ``(B, classes)``.
        regions: R; with 0, regions are accepted and not looked at.
        pooling_samples: of the region pooling, along each side of a bin.
    """

    def __init__(
        self,
        backbone: Backbone,
        self_attention: SelfAttention | None,
        se_residual: SEResidual | nn.Identity,
        inter_attention: InterAttention | TokenMean,
        fusion: PoolingFusion | Pooling,
        classifier: nn.Module,
        regions: int,
        pooling_samples: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.self_attention = self_attention
        self.se_residual = se_residual
        self.inter_attention = inter_attention
        self.fusion = fusion
        self.classifier = classifier
        self.regions = regions
        self.pooling_samples = pooling_samples

    def forward(self, images: Tensor, regions: Tensor) -> Output:
        """Classify images by their regions.

        Args:
            images: ``(B, 3, H, W)``, normalised as the backbone's weights want it.
            regions: ``(B, R, 4)`` boxes xyxy in fractions of the image; R as the model was built for.

        Raises: `ValueError` for another number of regions or images.
        """
        wanted = (len(images), self.regions, 4)
        if self.regions == 0:
            regions = regions[:, :0]
        if regions.shape != wanted:
            raise ValueError(f"regions must be {wanted}, as this model was built; got {tuple(regions.shape)}")
        features = self.backbone(images)  # (B, C, 7, 7)
        attended, attention = self.self_attention(features) if self.self_attention else (features, None)
        # The whole image is the last token: pooling the full frame of a 7×7 map gives the map itself.
        whole = regions.new_tensor([0, 0, 1, 1]).expand(len(regions), 1, 4)
        pooled = region_pooling(
            attended, torch.cat([regions, whole], dim=1), samples=self.pooling_samples
        )  # (B, N, 49, C)
        tokens = self.se_residual(pooled)  # (B, N, 49, C)
        joined, weights = self.inter_attention(tokens.flatten(2))  # (B, 49·C), (B, N)
        embedding = self.fusion(joined.unflatten(1, (POOLED * POOLED, -1)))  # (B, C)
        return Output(self.classifier(embedding), weights, attention, embedding)

"""AG-Net: Attend and Guide (Bera et al., IEEE TIP 30, 2021), Figure 1 from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from .backbones.backbone import Backbone
from .blocks.fusion import Pooling, PoolingFusion
from .blocks.inter_attention import InterAttention, TokenMean
from .blocks.last_map import LastMap
from .blocks.region_pooling import POOLED, crop_pooling, region_pooling
from .blocks.se_residual import SEResidual
from .blocks.self_attention import KEYS_SHARE, SelfAttention
from .contract import Output
from .model import Model
from .settings import AGNetSettings


class AGNet(Model):
    """Recognise an image by its parts and by what they have to do with each other.

    The blocks are passed in; `assemble_agnet` knows their numbers.

    Args:
        backbone: images ``(B, 3, H, W)`` -> feature map ``(B, C, h, w)``, brought to 7 × 7 here. If it gives maps of
            several stages, regions are pooled from each of them, and from there on C is the sum of their channels.
        self_attention: over the last map's positions; None leaves the map as it is.
        se_residual: one gate for each of the N = R + 1 tokens; None leaves them as they are.
        inter_attention: between the tokens, or their mean.
        fusion: of average and maximum pooling, or one of them.
        classifier: ``(B, C)`` -> ``(B, classes)``.
        regions: R; with 0, regions are accepted and not looked at.
        pool: maps ``(B, C, h, w)`` and boxes -> ``(B, N, 49, C)``, or their mean over the 49.
        shortcut: classify GAP(map) + γF, γ = 0 at the start, instead of F: training begins as the plain backbone's.
    """

    inputs = ("images", "regions")
    titles: ClassVar = {"se_residual": "SE-residuals"}

    def __init__(
        self,
        backbone: Backbone,
        self_attention: SelfAttention | None,
        se_residual: SEResidual | None,
        inter_attention: InterAttention | TokenMean,
        fusion: PoolingFusion | Pooling,
        classifier: nn.Module,
        regions: int,
        pool: Callable[..., Tensor] = region_pooling,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.last_map = LastMap()
        self.self_attention = self_attention
        self.se_residual = se_residual
        self.inter_attention = inter_attention
        self.fusion = fusion
        self.dropout = nn.Dropout(0.0)
        self.classifier = classifier
        self.regions = regions
        self.pool = pool
        self.shortcut = nn.Parameter(torch.zeros(())) if shortcut else None  # γ

    def forward(self, images: Tensor, regions: Tensor | None = None) -> Output:
        """Classify images by their regions.

        Args:
            images: ``(B, 3, H, W)`` RGB, uint8 or floats 0..255.
            regions: ``(B, R, 4)`` boxes xyxy in fractions of the image; R as the model was built for, None where that
                is 0.

        Raises: `ValueError` for another number of regions or images.
        """
        wanted = (images.shape[0], self.regions, 4)
        if regions is None:
            regions = images.new_zeros((images.shape[0], 0, 4), dtype=torch.float32)
        elif self.regions == 0:
            regions = regions[:, :0]
        if regions.shape != wanted:
            raise ValueError(f"regions must be {wanted}, as this model was built; got {tuple(regions.shape)}")
        *shallower, features = self.backbone.maps(images)  # shallower: of more stages than one
        features = self.last_map(features)  # (B, C, 7, 7)
        attended, attention = self.self_attention(features) if self.self_attention else (features, None)
        # The whole image is the last token: pooling the full frame of a 7×7 map gives the map itself.
        whole = regions.new_tensor([0, 0, 1, 1]).expand(regions.shape[0], 1, 4)
        maps, boxes = [*shallower, attended], torch.cat([regions, whole], dim=1)
        tokens = self._pool(maps, boxes)  # (B, N, 49, C)
        if self.se_residual:
            means = self._pool(maps, boxes, mean=True).squeeze(2)  # (B, N, C)
            tokens = self.se_residual(tokens, means, inplace=True)
        joined, weights = self.inter_attention(tokens)  # (B, 49, C), (B, N)
        embedding = self.fusion(joined)  # (B, C)
        if self.shortcut is not None:
            average = torch.cat([each.mean(dim=(2, 3)) for each in [*shallower, features]], dim=1)
            embedding = average + self.shortcut * embedding
        return Output(self.classifier(self.dropout(embedding)), weights, attention, embedding)

    @property
    def map_layer(self) -> nn.Module:
        return self.last_map

    def _pool(self, maps: list[Tensor], boxes_xyxy: Tensor, mean: bool = False) -> Tensor:
        """Every box of every map, what the maps give side by side: ``(B, N, 49, C)``, or its mean ``(B, N, 1, C)``."""
        pooled = [self.pool(features, boxes_xyxy, mean=mean) for features in maps]
        return torch.cat(pooled, dim=-1) if len(pooled) > 1 else pooled[0]  # a single one is not copied


def assemble_agnet(settings: AGNetSettings, backbones: Sequence[Backbone]) -> AGNet:
    """The one place that knows AG-Net's numbers. Raises: `ValueError` for settings that do not fit the backbone."""
    (backbone,) = backbones
    regions = settings.regions if settings.use_regions else 0
    channels, tokens = sum(backbone.channels_of_maps), regions + 1
    if settings.se != "none" and not 1 <= settings.se_ratio <= channels:
        raise ValueError(f"wanted se_ratio 1 to {channels}, the tokens' channels; got {settings.se_ratio}")
    if settings.self_attention and backbone.channels < KEYS_SHARE:
        raise ValueError(f"self-attention wants {KEYS_SHARE} channels or more; the last map has {backbone.channels}")
    return AGNet(
        backbone=backbone,
        self_attention=SelfAttention(backbone.channels, settings.spectral_norm) if settings.self_attention else None,
        se_residual=None
        if settings.se == "none"
        else SEResidual(tokens if settings.se == "slot" else 1, channels, settings.se_ratio),
        inter_attention=InterAttention(tokens, POOLED * POOLED * channels, settings.units, settings.attention_softmax)
        if settings.inter_attention
        else TokenMean(),
        fusion=PoolingFusion(channels) if settings.fusion == "learned" else Pooling(settings.fusion),
        classifier=nn.Linear(channels, settings.classes),
        regions=regions,
        pool=crop_pooling if settings.pooling == "crop" else partial(region_pooling, samples=settings.pooling_samples),
        shortcut=settings.shortcut,
    )

"""AG-Net, "Attend and Guide" (Bera et al., IEEE TIP 30, 2021): Figure 1 from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

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


class Seen(NamedTuple):
    """AG-Net's view of images: everything before the tokens are merged."""

    tokens: Tensor  #: ``(B, N, 49, C)``, after SE-Residual
    boxes: Tensor  #: ``(B, N, 4)``, xyxy in fractions of the image, the whole image last
    maps: list[Tensor]  #: maps before self-attention, each ``(B, C_k, h_k, w_k)``; the last is 7 × 7
    attention: Tensor | None  #: ``(B, 7, 7)``, attention map of Eq. 1


class AGNet(Model):
    """AG-Net: recognition of an image by its regions and the relations between them.

    The N = R + 1 tokens of an image are its R regions and, last, the whole image. The blocks are passed in;
    `assemble_agnet` builds them from settings.

    Args:
        backbone: Backbone, images ``(B, 3, H, W)`` -> feature map ``(B, C, h, w)``, which is resized to 7 × 7 here. If
            the backbone returns maps of several stages, regions are pooled from each of them, and C is the sum of their
            channels from then on.
        self_attention: Self-attention over the positions of the last map (Eq. 1); None leaves the map unchanged.
        se_residual: SE-Residual blocks, one per token; None leaves the tokens unchanged.
        inter_attention: Inter-attention and region weighting of the tokens (Eqs. 2 and 3), or their mean.
        fusion: Fusion of maximum and average pooling (Eq. 4), or one of the two.
        classifier: Classifier, ``(B, C)`` -> ``(B, classes)``.
        regions: Number of regions per image, R. With 0, regions are accepted and ignored.
        pool: Region pooling, maps ``(B, C, h, w)`` and boxes ``(B, N, 4)`` -> ``(B, N, 49, C)``; with ``mean``, the
            mean over the 49 positions ``(B, N, 1, C)``.
        shortcut: Whether to classify GAP(map) + γF instead of F, with γ = 0 at the start: training then starts from the
            plain backbone.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images", "regions")
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
        self.last_map: nn.Module = LastMap()
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
            images: RGB images ``(B, 3, H, W)``, uint8 or floats in 0..255.
            regions: Boxes ``(B, R, 4)``, xyxy in fractions of the image; None if the model was built with R = 0.

        Returns: logits ``(B, classes)``, region weights ``(B, N)``, attention map ``(B, 7, 7)`` (None without
            self-attention) and embedding ``(B, C)``.

        Raises: `ValueError` if the shape of ``regions`` is not ``(B, R, 4)``.
        """
        return self.classify(self.see(images, regions))

    def see(self, images: Tensor, regions: Tensor | None = None) -> Seen:
        """Compute the tokens of images; arguments and errors are those of `forward`."""
        boxes = self._boxes(images.shape[:1], images.device, regions)  # (B, N, 4)
        maps, features, attention = self._maps(images)
        tokens = self._pool(maps, boxes)  # (B, N, 49, C)
        if self.se_residual:
            means = self._pool(maps, boxes, mean=True).squeeze(2)  # (B, N, C): GAP of each token
            tokens = self.se_residual(tokens, means, inplace=True)  # (B, N, 49, C)
        return Seen(tokens, boxes, [*maps[:-1], features], attention)

    def classify(self, seen: Seen) -> Output:
        """Merge the tokens and classify: the second half of `forward`."""
        joined, weights = self.inter_attention(seen.tokens)  # Eqs. 2 and 3: f̂ (B, 49, C), region weights (B, N)
        embedding = self.fusion(joined)  # Eq. 4: F (B, C)
        if self.shortcut is not None:
            embedding = self._average(seen.maps) + self.shortcut * embedding
        return self.classified(embedding, region_weights=weights, attention_map=seen.attention)

    @property
    def map_layer(self) -> nn.Module:
        return self.last_map

    def _boxes(self, samples: torch.Size, device: torch.device, regions: Tensor | None) -> Tensor:
        """Check regions ``(*samples, R, 4)`` and append the whole image: ``(*samples, N, 4)``."""
        wanted = (*samples, self.regions, 4)
        if regions is None:
            regions = torch.zeros((*samples, 0, 4), device=device)
        elif self.regions == 0:
            regions = regions[..., :0, :]
        if regions.shape != wanted:
            raise ValueError(f"regions must have shape {wanted} for this model; got {tuple(regions.shape)}")
        # The whole image is the last token: pooling the full frame of a 7 × 7 map returns the map itself.
        whole = regions.new_tensor([0, 0, 1, 1]).expand(*samples, 1, 4)
        return torch.cat([regions, whole], dim=-2)

    def _maps(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Compute the maps that regions are pooled from, the last map before self-attention, and the attention map."""
        *shallower, features = self.backbone.maps(images)  # (B, C, h, w); shallower maps only with several stages
        features = self.last_map(features)  # (B, C, 7, 7)
        # Self-attention, Eq. 1: attended map (B, C, 7, 7), attention map (B, 7, 7)
        attended, attention = self.self_attention(features) if self.self_attention else (features, None)
        return [*shallower, attended], features, attention

    @staticmethod
    def _average(maps: list[Tensor]) -> Tensor:
        """GAP of the maps before self-attention, ``(B, C)``."""
        return torch.cat([each.mean(dim=(2, 3)) for each in maps], dim=1)

    def _pool(self, maps: list[Tensor], boxes_xyxy: Tensor, mean: bool = False) -> Tensor:
        """Pool the boxes from every map, channels concatenated: ``(B, N, 49, C)``, or their mean ``(B, N, 1, C)``."""
        pooled = [self.pool(features, boxes_xyxy, mean=mean) for features in maps]
        return torch.cat(pooled, dim=-1) if len(pooled) > 1 else pooled[0]  # a single map is not copied


def assemble_agnet(settings: AGNetSettings, backbones: Sequence[Backbone]) -> AGNet:
    """Assemble AG-Net for images from its settings on a backbone. Raises: `ValueError`, as `agnet_blocks`."""
    (backbone,) = backbones
    return AGNet(backbone=backbone, **agnet_blocks(settings, backbone, backbone.channels))


def agnet_blocks(settings: AGNetSettings, backbone: Backbone, last: int) -> dict[str, Any]:
    """Build the blocks of AG-Net from its settings; all layer sizes are computed here.

    Args:
        settings: Settings.
        backbone: Backbone.
        last: Number of channels of the last map that the head receives.

    Returns: the arguments of `AGNet` except the backbone.
    Raises: `ValueError` for settings that do not fit the backbone.
    """
    regions = settings.regions if settings.use_regions else 0
    channels, tokens = sum(backbone.channels_of_maps[:-1]) + last, regions + 1
    if settings.se != "none" and not 1 <= settings.se_ratio <= channels:
        raise ValueError(f"wanted se_ratio 1 to {channels}, the number of channels; got {settings.se_ratio}")
    if settings.self_attention and last < KEYS_SHARE:
        raise ValueError(f"self-attention needs at least {KEYS_SHARE} channels; the last map has {last}")
    return {
        "self_attention": SelfAttention(last, settings.spectral_norm) if settings.self_attention else None,
        "se_residual": None
        if settings.se == "none"
        else SEResidual(tokens if settings.se == "slot" else 1, channels, settings.se_ratio),
        "inter_attention": InterAttention(
            tokens, POOLED * POOLED * channels, settings.units, settings.attention_softmax
        )
        if settings.inter_attention
        else TokenMean(),
        "fusion": PoolingFusion(channels) if settings.fusion == "learned" else Pooling(settings.fusion),
        "classifier": nn.Linear(channels, settings.classes),
        "regions": regions,
        "pool": crop_pooling
        if settings.pooling == "crop"
        else partial(region_pooling, samples=settings.pooling_samples),
        "shortcut": settings.shortcut,
    }

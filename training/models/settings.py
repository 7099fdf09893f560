"""The networks' settings, without the networks: nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...data.fields import A_NAME, ANY, AT_LEAST_1, NOT_NEGATIVE, choice, setting
from .contract import Needs, Settings, Stream

FUSIONS = ("learned", "max", "mean")
SE_KINDS = ("slot", "shared", "none")
POOLINGS = ("align", "crop")

NETWORK, PARTS = "Network", "AG-Net's parts"


@dataclass(frozen=True)
class AGNetSettings(Settings):
    """Everything that decides an AG-Net's shape; the defaults are the paper's."""

    model: ClassVar[str] = "agnet"

    regions: int = setting(NETWORK, "Regions of an image, primary and secondary together: R.", NOT_NEGATIVE, 36)
    backbone: str = setting(NETWORK, "A backbone's name, torchvision:NAME or timm:NAME.", A_NAME, "resnet50")
    units: int = setting(PARTS, "Width of the inter-attention.", AT_LEAST_1, 32, needs=("inter_attention", True))
    se_ratio: int = setting(PARTS, "Of the SE-Residual blocks.", AT_LEAST_1, 16)
    spectral_norm: bool = setting(
        PARTS, "On the self-attention's projections.", ANY, False, needs=("self_attention", True)
    )
    attention_softmax: bool = setting(
        PARTS, "After the inter-attention's sigmoid.", ANY, False, needs=("inter_attention", True)
    )
    # What follows takes parts away: the rows of the paper's Table VII.
    use_regions: bool = setting(PARTS, "Without, the whole image is the only token.", ANY, True)
    self_attention: bool = setting(PARTS, "Without, regions are pooled from the backbone's own map.", ANY, True)
    inter_attention: bool = setting(PARTS, "Without, tokens are averaged.", ANY, True)
    fusion: str = choice(PARTS, "Of maximum and average pooling (Eq. 4), or one of them.", FUSIONS, "learned")
    se: str = choice(PARTS, "An SE-Residual for each token slot, one for all, or none.", SE_KINDS, "slot")
    pooling: str = choice(
        PARTS, "Of regions: RoIAlign, or whole cells of a finer map (in the authors' sister code).", POOLINGS, "align"
    )
    pooling_samples: int = setting(
        PARTS, "Bilinear samples along each side of a bin of RoIAlign.", AT_LEAST_1, 1, needs=("pooling", "align")
    )
    shortcut: bool = setting(
        PARTS, "The last map's average beside F, by a share of F that begins at 0; not in the paper.", ANY, False
    )
    stages: int = setting(
        PARTS, "Of the backbone, from its last map back: regions are pooled from each.", AT_LEAST_1, 1
    )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone, self.stages),)


def agnet_needs(settings: AGNetSettings) -> Needs:
    """Images, and their regions unless they were taken away."""
    return Needs(regions=settings.regions if settings.use_regions else 0)


@dataclass(frozen=True)
class PlainSettings(Settings):
    """Everything that decides a plain backbone's shape."""

    model: ClassVar[str] = "plain"

    backbone: str = setting(NETWORK, "A backbone's name, torchvision:NAME or timm:NAME.", A_NAME, "resnet50")

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone),)


def plain_needs(settings: PlainSettings) -> Needs:
    """Images alone."""
    return Needs()

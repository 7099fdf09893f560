"""Settings of the networks; importing them loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...data.fields import A_NAME, ANY, AT_LEAST_1, NOT_NEGATIVE, choice, setting
from .contract import NETWORK, Needs, Settings, Stream

FUSIONS = ("learned", "max", "mean")
SE_KINDS = ("slot", "shared", "none")
POOLINGS = ("align", "crop")

PARTS = "AG-Net's parts"
BACKBONE = "Name of the backbone, torchvision:NAME or timm:NAME."


@dataclass(frozen=True)
class AGNetSettings(Settings):
    """Settings that determine the architecture of AG-Net; the defaults are the paper's."""

    model: ClassVar[str] = "agnet"

    regions: int = setting(
        NETWORK,
        "Number of regions per image, R, primary and secondary together.",
        NOT_NEGATIVE,
        36,
        option="region-count",
    )
    backbone: str = setting(NETWORK, BACKBONE, A_NAME, "resnet50")
    units: int = setting(PARTS, "Width of the inter-attention.", AT_LEAST_1, 32, needs=("inter_attention", True))
    se_ratio: int = setting(
        PARTS, "Reduction ratio of the SE-Residual blocks.", AT_LEAST_1, 16, needs=("se", ("slot", "shared"))
    )
    spectral_norm: bool = setting(
        PARTS,
        "Spectral normalisation of the self-attention's projections.",
        ANY,
        False,
        needs=("self_attention", True),
    )
    attention_softmax: bool = setting(
        PARTS, "Softmax after the inter-attention's sigmoid.", ANY, False, needs=("inter_attention", True)
    )
    # The next three remove parts: the rows of the paper's Table VII.
    use_regions: bool = setting(
        PARTS, "Region tokens. Off: the whole image is the only token.", ANY, True, off="no-regions"
    )
    self_attention: bool = setting(
        PARTS, "Self-attention. Off: regions are pooled from the backbone's own map.", ANY, True
    )
    inter_attention: bool = setting(PARTS, "Inter-attention. Off: tokens are averaged.", ANY, True)
    fusion: str = choice(
        PARTS,
        "Fusion of max and average pooling. learned: sum with learned weights (Eq. 4); max or mean: that one alone.",
        FUSIONS,
        "learned",
    )
    se: str = choice(PARTS, "SE-Residual blocks: one per token slot, one for all tokens, or none.", SE_KINDS, "slot")
    pooling: str = choice(
        PARTS,
        "Region pooling: RoIAlign, or whole cells of a map resized to 42 x 42 (the authors' sister code).",
        POOLINGS,
        "align",
    )
    pooling_samples: int = setting(
        PARTS,
        "Number of bilinear samples along each side of a RoIAlign bin.",
        AT_LEAST_1,
        1,
        needs=("pooling", "align"),
    )
    shortcut: bool = setting(
        PARTS,
        "Shortcut: the classifier's input is the last map's average plus a learned multiple of F, initially 0; not in "
        "the paper.",
        ANY,
        False,
    )
    stages: int = setting(
        PARTS,
        "Number of feature maps of the backbone that regions are pooled from, counted back from the last.",
        AT_LEAST_1,
        1,
    )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone, self.stages),)


def agnet_needs(settings: AGNetSettings) -> Needs:
    """Return the inputs of AG-Net: images, and regions unless they are switched off."""
    return Needs(regions=settings.regions if settings.use_regions else 0)


@dataclass(frozen=True)
class PlainSettings(Settings):
    """Settings that determine the architecture of a plain backbone."""

    model: ClassVar[str] = "plain"

    backbone: str = setting(NETWORK, BACKBONE, A_NAME, "resnet50")

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone),)


def plain_needs(settings: PlainSettings) -> Needs:
    """Return the inputs of a plain backbone: images only."""
    return Needs()

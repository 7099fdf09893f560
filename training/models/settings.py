"""A network's settings, without the network: nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

MODEL_NAMES = ("agnet", "plain")
FUSIONS = ("learned", "max", "mean")
SE_KINDS = ("slot", "shared", "none")
POOLINGS = ("align", "crop")


@dataclass(frozen=True)
class ModelSettings:
    """Everything that decides a network's shape; the defaults are the paper's."""

    classes: int
    regions: int = 36  #: R, primary and secondary together
    model: str = "agnet"  #: one of `MODEL_NAMES`
    backbone: str = "resnet50"
    units: int = 32  #: width of the inter-attention
    se_ratio: int = 16  #: of the SE-Residual blocks
    spectral_norm: bool = False  #: on the self-attention's projections
    attention_softmax: bool = False  #: after the inter-attention's sigmoid
    # What follows takes parts away: the rows of the paper's Table VII.
    use_regions: bool = True  #: without, the whole image is the only token
    self_attention: bool = True
    inter_attention: bool = True  #: without, tokens are averaged
    fusion: str = "learned"  #: of maximum and average pooling (Eq. 4), or one of the two alone
    se: str = "slot"  #: an SE-Residual for each token slot, one shared by all, or none
    pooling: str = "align"  #: of regions: RoIAlign, or whole cells of a finer map (in the authors' sister code)
    pooling_samples: int = 1  #: bilinear samples along each side of a bin of RoIAlign
    shortcut: bool = False  #: the last map's average beside F, by a share of F that begins at 0; not in the paper
    stages: int = 1  #: of the backbone, counted from its last map back, that regions are pooled from

"""A network's settings, without the network: nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

MODEL_NAMES = ("agnet", "plain")


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

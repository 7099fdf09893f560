"""The one place that knows the numbers: from settings to a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .agnet import AGNet
from .backbones import Backbone, StateDict, build_backbone
from .fusion import PoolingFusion
from .inter_attention import InterAttention
from .plain import Plain
from .region_pooling import POOLED
from .se_residual import SEResidual
from .self_attention import SelfAttention


@dataclass(frozen=True)
class ModelSettings:
    """Everything that decides a network's shape; the defaults are the paper's."""

    classes: int
    regions: int = 36  #: R, primary and secondary together
    model: str = "agnet"  #: a key of `MODELS`
    backbone: str = "resnet50"
    units: int = 32  #: width of the inter-attention
    se_ratio: int = 16  #: of the SE-Residual blocks
    spectral_norm: bool = False  #: on the self-attention's projections
    attention_softmax: bool = False  #: after the inter-attention's sigmoid


Model = AGNet | Plain


def build_model(settings: ModelSettings, weights: StateDict | None = None) -> Model:
    """The network of these settings, its backbone from ``weights`` where given (a whole classifier's state dict).

    Raises: `ValueError` for settings no network can be built from, or weights that do not fit.
    """
    if settings.model not in MODELS:
        raise ValueError(f"unknown model {settings.model!r}; known: {', '.join(MODELS)}")
    if settings.classes < 1:
        raise ValueError(f"a classifier needs at least 1 class, got {settings.classes}")
    return MODELS[settings.model](settings, build_backbone(settings.backbone, weights))


def _agnet(settings: ModelSettings, backbone: Backbone) -> AGNet:
    channels, tokens = backbone.channels, settings.regions + 1
    return AGNet(
        backbone=backbone,
        self_attention=SelfAttention(channels, settings.spectral_norm),
        se_residual=SEResidual(tokens, channels, settings.se_ratio),
        inter_attention=InterAttention(tokens, POOLED * POOLED * channels, settings.units, settings.attention_softmax),
        fusion=PoolingFusion(channels),
        classifier=nn.Linear(channels, settings.classes),
    )


def _plain(settings: ModelSettings, backbone: Backbone) -> Plain:
    return Plain(backbone, nn.Linear(backbone.channels, settings.classes))


MODELS: dict[str, Callable[[ModelSettings, Backbone], Model]] = {"agnet": _agnet, "plain": _plain}

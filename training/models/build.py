"""The one place that knows the numbers: from settings to a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .agnet import AGNet
from .backbones import Backbone, StateDict, build_backbone
from .fusion import PoolingFusion
from .inter_attention import InterAttention
from .plain import Plain
from .region_pooling import POOLED
from .se_residual import SEResidual
from .self_attention import SelfAttention
from .settings import ModelSettings

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
    if settings.regions < 0 or settings.units < 1 or not 1 <= settings.se_ratio <= channels:
        raise ValueError(f"{settings} cannot be built: wanted regions ≥ 0, units ≥ 1, se_ratio 1 to {channels}")
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

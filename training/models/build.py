"""The one place that knows the numbers: from settings to a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ...data.spelling import did_you_mean
from .agnet import AGNet
from .backbones.backbone import Backbone, StateDict, build_backbone
from .blocks.fusion import Pooling, PoolingFusion
from .blocks.inter_attention import InterAttention, TokenMean
from .blocks.region_pooling import POOLED, crop_pooling, region_pooling
from .blocks.se_residual import SEResidual
from .blocks.self_attention import KEYS_SHARE, SelfAttention
from .plain import Plain
from .settings import FUSIONS, POOLINGS, SE_KINDS, ModelSettings

Model = AGNet | Plain


def build_model(settings: ModelSettings, weights: StateDict | None = None) -> Model:
    """The network of these settings, its backbone from ``weights`` where given (a whole classifier's state dict).

    Raises: `ValueError` for settings no network can be built from, or weights that do not fit.
    """
    return assemble(settings, build_backbone(settings.backbone, weights, settings.stages))


def assemble(settings: ModelSettings, backbone: Backbone) -> Model:
    """The network of these settings on a backbone of the caller's, which decides ``backbone`` and ``stages`` itself.

    Raises: `ValueError` for settings no network can be built from.
    """
    if settings.model not in MODELS:
        meant = did_you_mean(settings.model, MODELS)
        raise ValueError(f"unknown model {settings.model!r}; known: {', '.join(MODELS)}{meant}")
    _one_of("fusion", settings.fusion, FUSIONS)
    _one_of("se", settings.se, SE_KINDS)
    _one_of("pooling", settings.pooling, POOLINGS)
    if settings.classes < 1:
        raise ValueError(f"a classifier needs at least 1 class, got {settings.classes}")
    return MODELS[settings.model](settings, backbone)


def _agnet(settings: ModelSettings, backbone: Backbone) -> AGNet:
    regions = settings.regions if settings.use_regions else 0
    channels, tokens = sum(backbone.channels_of_maps), regions + 1
    if settings.pooling_samples < 1:
        raise ValueError(f"pooling_samples: wanted 1 or more, got {settings.pooling_samples}")
    if settings.regions < 0 or settings.units < 1:
        raise ValueError(f"wanted regions ≥ 0, units ≥ 1; got {settings.regions} and {settings.units}")
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


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(choices)}, got {value!r}")


def _plain(settings: ModelSettings, backbone: Backbone) -> Plain:
    return Plain(backbone, nn.Linear(backbone.channels, settings.classes))


MODELS: dict[str, Callable[[ModelSettings, Backbone], Model]] = {"agnet": _agnet, "plain": _plain}

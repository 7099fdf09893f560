"""Construction of a model of any family from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from torch import nn

from .backbones.backbone import Backbone, StateDict, build_backbone
from .contract import Settings, check_settings
from .model import Model
from .registry import model_spec


def build_model(settings: Settings, weights: Mapping[str, StateDict] | StateDict | None = None) -> Model:
    """Build the model that the settings describe.

    Args:
        settings: Settings of any family.
        weights: Whole classifiers' state dicts by backbone name, or a single state dict if the model has one backbone.
            None: random weights.

    Raises: `ValueError` for settings from which no model can be built, or weights that do not fit.
    """
    given = _by_name(settings, weights or {})
    backbones = [build_backbone(name, given.get(name), stages) for name, stages in settings.streams]
    return assemble(settings, *backbones)


def assemble(settings: Settings, *backbones: Backbone) -> Model:
    """Assemble the model that the settings describe on the caller's own backbones.

    Args:
        settings: Settings of any family; the backbones named in ``settings.streams`` are ignored.
        backbones: One backbone for each of ``settings.streams``, in order.

    Raises: `ValueError` for settings from which no model can be built, or another number of backbones.
    """
    spec = model_spec(settings.model)
    check_settings(settings)
    if len(backbones) != len(settings.streams):
        raise ValueError(f"{settings.model} needs {len(settings.streams)} backbones, got {len(backbones)}")
    module, _, function = spec.builder.partition(":")
    model: Model = getattr(import_module(module, __package__), function)(settings, backbones)
    if settings.neck != "none":
        _add_neck(model)
    return model


def _add_neck(model: Model) -> None:
    """Add a batch norm before the classifier; neither has a bias, so that a direction is what classes differ by.

    "BNNeck" of Luo et al., Bag of tricks and a strong baseline for deep person re-identification (2019).
    """
    classifier = model.classifier
    assert isinstance(classifier, nn.Linear)
    model.neck = nn.BatchNorm1d(classifier.in_features)
    model.neck.bias.requires_grad_(False)
    classifier.register_parameter("bias", None)


def _by_name(settings: Settings, weights: Mapping[str, StateDict] | StateDict) -> Mapping[str, StateDict]:
    names = {stream.backbone for stream in settings.streams}
    if set(weights) <= names:
        return weights  # type: ignore[return-value]
    if len(names) > 1:
        raise ValueError(f"weights of {', '.join(sorted(names))} must be given by backbone name")
    return {names.pop(): weights}  # type: ignore[dict-item]

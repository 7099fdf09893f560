"""From settings to a network, of whatever family."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from .backbones.backbone import Backbone, StateDict, build_backbone
from .contract import Settings, check_settings
from .model import Model
from .registry import model_spec


def build_model(settings: Settings, weights: Mapping[str, StateDict] | StateDict | None = None) -> Model:
    """The network of these settings.

    Args:
        weights: of its backbones by their names, or of its only one: each a whole classifier's state dict.

    Raises: `ValueError` for settings no network can be built from, or weights that do not fit.
    """
    given = _by_name(settings, weights or {})
    backbones = [build_backbone(name, given.get(name), stages) for name, stages in settings.streams]
    return assemble(settings, *backbones)


def assemble(settings: Settings, *backbones: Backbone) -> Model:
    """The network of these settings on backbones of the caller's, one for each of ``settings.streams``, which are not
    looked at.

    Raises: `ValueError` for settings no network can be built from.
    """
    spec = model_spec(settings.model)
    check_settings(settings)
    if len(backbones) != len(settings.streams):
        raise ValueError(f"{settings.model} wants {len(settings.streams)} backbones, got {len(backbones)}")
    module, _, function = spec.builder.partition(":")
    model: Model = getattr(import_module(module, __package__), function)(settings, backbones)
    return model


def _by_name(settings: Settings, weights: Mapping[str, StateDict] | StateDict) -> Mapping[str, StateDict]:
    names = {stream.backbone for stream in settings.streams}
    if set(weights) <= names:
        return weights  # type: ignore[return-value]
    if len(names) > 1:
        raise ValueError(f"weights of {', '.join(sorted(names))} are wanted by these names")
    return {names.pop(): weights}  # type: ignore[dict-item]

"""Registry of the model families, and their settings as stored in files. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from ...data.fields import type_name
from ...data.spelling import did_you_mean
from .contract import ModelSpec, Needs, Settings
from .settings import (
    AGNetSettings,
    ALSTMSettings,
    BCNNSettings,
    ConvALSTMSettings,
    PlainSettings,
    SRBNSettings,
    agnet_needs,
    clip_needs,
    plain_needs,
    srbn_needs,
    stream_needs,
)

MODELS: dict[str, ModelSpec] = {
    "agnet": ModelSpec(
        about="attention to regions and to the relations between them",
        settings=AGNetSettings,
        needs=agnet_needs,
        builder=".agnet_clips:assemble_agnet_or_clips",
    ),
    "plain": ModelSpec(
        about="the backbone with one linear layer, AG-Net's control",
        settings=PlainSettings,
        needs=plain_needs,
        builder=".plain:assemble_plain",
    ),
    "srbn": ModelSpec(
        about="two streams, bilinear features at each place, attention and a spatial LSTM",
        settings=SRBNSettings,
        needs=srbn_needs,
        builder=".srbn:assemble_srbn",
    ),
    "bcnn": ModelSpec(
        about="two streams and bilinear pooling, SRBN's baseline",
        settings=BCNNSettings,
        needs=stream_needs,
        builder=".bcnn:assemble_bcnn",
    ),
    "alstm": ModelSpec(
        about="an LSTM over the frames of a clip, which attends to places of each",
        settings=ALSTMSettings,
        needs=clip_needs,
        builder=".alstm:assemble_alstm",
    ),
    "conv-alstm": ModelSpec(
        about="a convolutional LSTM over the frames of a clip, with attention to places",
        settings=ConvALSTMSettings,
        needs=clip_needs,
        builder=".conv_alstm:assemble_conv_alstm",
    ),
}

# Records of these families contain the fields of both: the format dates from when they shared one settings class.
_OF_ONE_RECORD = ("agnet", "plain")


def model_spec(name: str) -> ModelSpec:
    """Look up a family by name. Raises: `ValueError` for an unknown name."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}{did_you_mean(name, MODELS)}")
    return MODELS[name]


def needs_of(settings: Settings) -> Needs:
    """Inputs that a model with these settings needs."""
    return model_spec(settings.model).needs(settings)


def ModelSettings(classes: int, regions: int | None = None, model: str = "agnet", **others: Any) -> Any:
    """Create the settings of a family by its name: `AGNetSettings` or another class.

    Args:
        classes: Number of classes.
        regions: Number of regions per image; None for the family's default.
        model: Name of the family.
        others: Other fields of the family's settings. For ``plain``, AG-Net's fields are accepted and ignored.

    Raises: `ValueError` for an unknown family, `TypeError` for settings that it does not have.
    """
    values = {"classes": classes, **({} if regions is None else {"regions": regions}), **others}
    return model_spec(model).settings(**_own(model, values))


def record_of(settings: Settings) -> dict[str, object]:
    """Convert settings to a record for checkpoints and configurations: ``model`` and every field."""
    record: dict[str, object] = {}
    if settings.model in _OF_ONE_RECORD:
        for name in _OF_ONE_RECORD:
            record |= _defaults(name)
    return record | {"model": settings.model} | asdict(settings)


def settings_of(record: Mapping[str, object]) -> Settings:
    """Convert a record to settings, the inverse of `record_of`. Fields missing in older records take their defaults.

    Raises: `ValueError` for a field that the family does not have, or a value of the wrong type.
    """
    name = record.get("model", "agnet")
    if not isinstance(name, str):
        raise ValueError(f"model is {name!r}: it must be of type str")
    own = _own(name, {key: value for key, value in record.items() if key != "model"}, check=True)
    return model_spec(name).settings(**own)


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Normalise a record for comparing runs: missing fields take their defaults, fields of other families are dropped.

    The record of an unknown family is returned unchanged.
    """
    name = record.get("model", "agnet")
    if not isinstance(name, str) or name not in MODELS:
        return dict(record)
    others = {key for one in _OF_ONE_RECORD if name in _OF_ONE_RECORD for key in _types(one)} - set(_types(name))
    return {"model": name} | _defaults(name) | {key: value for key, value in record.items() if key not in others}


def _own(name: str, values: Mapping[str, Any], check: bool = False) -> dict[str, Any]:
    """Drop the values that are accepted for a family but are not fields of its own.

    Raises: `ValueError`, with ``check``, for unknown names and values of the wrong type.
    """
    types = _types(name)
    accepted = dict(types)
    for one in _OF_ONE_RECORD if name in _OF_ONE_RECORD else ():
        accepted |= _types(one)
    if check:
        if unknown := set(values) - set(accepted):
            raise ValueError(f"unknown model settings {', '.join(sorted(unknown))}")
        for key, value in values.items():
            allowed = ("int", "float") if accepted[key] == "float" else (accepted[key],)
            if type(value).__name__ not in allowed:
                raise ValueError(f"{key} is {value!r}: it must be of type {accepted[key]}")
    return {key: value for key, value in values.items() if key in types or key not in accepted}


def _types(name: str) -> dict[str, str]:
    return {one.name: type_name(one) for one in fields(model_spec(name).settings)}


def _defaults(name: str) -> dict[str, object]:
    return {one.name: one.default for one in fields(model_spec(name).settings) if one.default is not MISSING}

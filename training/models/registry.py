"""The families of models by name, and their settings as files have them. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from ...data.spelling import did_you_mean
from .contract import ModelSpec, Needs, Settings
from .settings import (
    AGNetSettings,
    BCNNSettings,
    PlainSettings,
    SRBNSettings,
    agnet_needs,
    plain_needs,
    stream_needs,
)

MODELS: dict[str, ModelSpec] = {
    "agnet": ModelSpec(
        about="attends to regions and to what they have to do with each other",
        settings=AGNetSettings,
        needs=agnet_needs,
        builder=".agnet:assemble_agnet",
    ),
    "plain": ModelSpec(
        about="its control: the backbone with one linear layer",
        settings=PlainSettings,
        needs=plain_needs,
        builder=".plain:assemble_plain",
    ),
    "srbn": ModelSpec(
        about="two streams, bilinear features at each place, attention and a spatial LSTM",
        settings=SRBNSettings,
        needs=stream_needs,
        builder=".srbn:assemble_srbn",
    ),
    "bcnn": ModelSpec(
        about="two streams and bilinear pooling, SRBN's baseline",
        settings=BCNNSettings,
        needs=stream_needs,
        builder=".bcnn:assemble_bcnn",
    ),
}

# A record of either of these has the fields of both: the form from before each family had settings of its own.
_OF_ONE_RECORD = ("agnet", "plain")


def model_spec(name: str) -> ModelSpec:
    """The family of that name. Raises: `ValueError` for an unknown one."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}{did_you_mean(name, MODELS)}")
    return MODELS[name]


def needs_of(settings: Settings) -> Needs:
    """What a model of these settings is given."""
    return model_spec(settings.model).needs(settings)


def ModelSettings(classes: int, regions: int | None = None, model: str = "agnet", **others: Any) -> Any:
    """The settings of a family by its name: `AGNetSettings` or another's.

    Args:
        classes: to tell apart.
        regions, others: fields of the family's settings. Those of AG-Net are taken for ``plain``, too, where they
            change nothing.

    Raises: `ValueError` for an unknown family, `TypeError` for settings that it does not have.
    """
    values = {"classes": classes, **({} if regions is None else {"regions": regions}), **others}
    return model_spec(model).settings(**_own(model, values))


def record_of(settings: Settings) -> dict[str, object]:
    """Settings as checkpoints and configurations have them: ``model`` and every field."""
    record: dict[str, object] = {}
    if settings.model in _OF_ONE_RECORD:
        for name in _OF_ONE_RECORD:
            record |= _defaults(name)
    return record | {"model": settings.model} | asdict(settings)


def settings_of(record: Mapping[str, object]) -> Settings:
    """`record_of` backwards; a field that is not there has its default, as in records older than it.

    Raises: `ValueError` for a field that the family does not have, or a value of another type.
    """
    name = record.get("model", "agnet")
    if not isinstance(name, str):
        raise ValueError(f"model is {name!r}: it must be of type str")
    own = _own(name, {key: value for key, value in record.items() if key != "model"}, check=True)
    return model_spec(name).settings(**own)


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record for comparing runs: defaults where it has nothing, and only what its family has. Of a family that is not
    known here it is what it is.
    """
    name = record.get("model", "agnet")
    if not isinstance(name, str) or name not in MODELS:
        return dict(record)
    others = {key for one in _OF_ONE_RECORD if name in _OF_ONE_RECORD for key in _types(one)} - set(_types(name))
    return {"model": name} | _defaults(name) | {key: value for key, value in record.items() if key not in others}


def _own(name: str, values: Mapping[str, Any], check: bool = False) -> dict[str, Any]:
    """The values that are of the family, of those that may be there. Raises: `ValueError` with ``check``."""
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
    return {one.name: str(one.type) for one in fields(model_spec(name).settings)}


def _defaults(name: str) -> dict[str, object]:
    return {one.name: one.default for one in fields(model_spec(name).settings) if one.default is not MISSING}

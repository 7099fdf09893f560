"""Networks to and from folders in the format of the Hugging Face hub, as `models.pretrained` offers them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from ...data.errors import CheckpointError, ConfigurationError
from ...data.files import write_text
from ..models.contract import Settings
from ..models.model import Model
from .checkpoint_header import CheckpointHeader
from .checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from .folder import CONFIG, WEIGHTS, writing
from .hub import HubName, fetch, is_on_the_hub, licence_on_hub, public_config, push, to_push
from .model_card import CARD, card_text, read_card_facts

Network = TypeVar("Network")


def load_pretrained(kind: type[Network], name: str | Path, revision: str | None = None) -> Network:
    """Load a network of a class: see `Pretrained.from_pretrained`."""
    if Path(name).exists() and not is_on_the_hub(name):
        if revision is not None:
            raise ConfigurationError(f"{name} is a folder, which has no revision {revision!r}; leave it out")
        place = Path(name)
    else:
        found = HubName.parse(str(name))
        place = fetch(replace(found, revision=revision) if revision else found)
    model: object = load_checkpoint(place).model
    if not isinstance(model, kind):
        raise CheckpointError(
            f"{name} holds a network of {type(model).__name__}, not of {kind.__name__}; agnet.load reads any of them"
        )
    return model


def save_pretrained(
    model: object,
    folder: Path,
    settings: Settings | None = None,
    classes: Sequence[str] | None = None,
    proposals: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network as a folder of the hub: see `Pretrained.save_pretrained`."""
    network = cast(Model, model)
    checkpoint = Checkpoint(model=network, **_values(_header(network, settings, classes, proposals)))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in (CONFIG, CARD):
            (folder / file).unlink(missing_ok=True)  # of another network
        weights = save_checkpoint(folder / WEIGHTS, checkpoint)
        write_text(folder / CONFIG, json.dumps(public_config(weights), indent=2, ensure_ascii=False) + "\n")
        write_text(folder / CARD, card_text(read_card_facts(folder)))
    return folder


def push_pretrained(model: object, name: str, private: bool, licence: str, force: bool) -> str:
    """Write a network into a repository: see `Pretrained.push_to_hub`."""
    to = HubName.parse(name)
    with TemporaryDirectory() as folder:
        saved = save_pretrained(model, Path(folder))
        return push(to_push(saved, to, licence=licence or licence_on_hub(to)), to, private=private, force=force)


def _header(
    model: Model, settings: Settings | None, classes: Sequence[str] | None, proposals: Mapping[str, Any] | None
) -> CheckpointHeader:
    """What is written with the weights: as given, otherwise as it was read with them."""
    header = model.header
    if header is None:
        if settings is None or classes is None:
            raise ConfigurationError(
                "this network was not read from a checkpoint: name its settings and classes, as in "
                "save_pretrained(folder, settings=settings, classes=['ant', 'bee'])"
            )
        header = CheckpointHeader(settings, tuple(classes), {}, "", 0, None)
    header = replace(
        header,
        settings=settings or header.settings,
        classes=header.classes if classes is None else tuple(classes),
        proposals=header.proposals if proposals is None else dict(proposals),
    )
    if len(header.classes) != header.settings.classes:
        raise ConfigurationError(f"{len(header.classes)} class names for {header.settings.classes} classes")
    return header


def _values(header: CheckpointHeader) -> dict[str, Any]:
    return {one.name: getattr(header, one.name) for one in fields(CheckpointHeader)}

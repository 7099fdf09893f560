"""Sources of initial weights, as named with ``--weights``. Does not import PyTorch, which takes seconds to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...data.errors import ConfigurationError
from ...data.spelling import did_you_mean

LIBRARY_SOURCES = ("none", "imagenet")  #: of backbone weights, besides files


def sources_by_backbone(source: str, backbones: Sequence[str]) -> dict[str, str]:
    """Return the source of the weights of each backbone of a model.

    Args:
        source: One source for all, or ``BACKBONE=SOURCE`` for each, separated by commas.
        backbones: Names of the model's backbones; two streams may have the same one.

    Raises: `ConfigurationError` for a file for several backbones, a backbone that the model does not have, or one
        without a source.
    """
    names = list(dict.fromkeys(backbones))
    if not is_by_backbone(source):
        if source not in LIBRARY_SOURCES and len(names) > 1:
            example = ",".join(f"{name}=FILE" for name in names)
            raise ConfigurationError(
                f"{source} holds the weights of one backbone, but this model has {' and '.join(names)}: use a run, "
                f"imagenet, none, or a source for each, --weights {example}"
            )
        return dict.fromkeys(names, source)
    found = _split(source)
    for name in found:
        if name not in names:
            raise ConfigurationError(
                f"--weights {source}: this model has no backbone {name!r}, but {' and '.join(names)}"
                f"{did_you_mean(name, names)}"
            )
    if missing := [name for name in names if name not in found]:
        lacking = " and ".join(missing)
        raise ConfigurationError(f"--weights {source}: no source for {lacking}; name a file, imagenet or none")
    return found


def is_by_backbone(source: str) -> bool:
    """Whether a source names one for each backbone, rather than a single source or an existing file."""
    return "=" in source and not Path(source).exists()


def recorded_source(source: str, run_file: str) -> str:
    """Value of ``--weights`` as recorded for a run: names of files or of a run, without their private paths.

    Args:
        source: Value of the option.
        run_file: Name of the checkpoint in the folder of a run, which is then recorded by the folder's name.
    """
    if is_by_backbone(source):
        return ",".join(f"{name}={recorded_source(one, run_file)}" for name, one in _split(source).items())
    path = Path(source)
    name = path.parent if path.name == run_file else path
    return name.name if name.name not in ("", "..") else name.resolve().name


def needs_no_file(source: str) -> bool:
    """Whether the weights come from a library or from chance alone."""
    sources: Mapping[str, str] = _split(source) if is_by_backbone(source) else {"": source}
    return set(sources.values()) <= set(LIBRARY_SOURCES)


def _split(source: str) -> dict[str, str]:
    parts = [part.partition("=") for part in source.split(",")]
    if any(not (name and sign and one) for name, sign, one in parts):
        raise ConfigurationError(f"--weights {source}: wanted BACKBONE=SOURCE, separated by commas")
    return {name: one for name, _, one in parts}

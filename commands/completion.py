"""Shell completion of values that click does not know: names of backbones, devices, trackers and data sets.

The shell starts the program for every completion, so nothing here may import PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from ..data.sets.catalogue import CATALOGUE

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _matching(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_backbones(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a backbone, or of the library before its colon."""
    from ..training.models.backbones.names import BACKBONE_NAMES, LIBRARY_NAMES

    return _matching([*BACKBONE_NAMES, *(f"{library}:" for library in LIBRARY_NAMES)], incomplete)


def _devices(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _matching(("auto", "cpu", "cuda", "mps"), incomplete)


# A path comes first among items: bash's script forgets those before it, and falls back to paths if no name matches.


def _weights(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a name, and otherwise a file or the folder of a run."""
    return [CompletionItem(incomplete, type="file"), *_matching(("none", "imagenet"), incomplete)]


def complete_photographs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a data set, and otherwise a folder of photographs."""
    return [CompletionItem(incomplete, type="dir"), *_matching(CATALOGUE, incomplete)]


def complete_trackers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last of several names separated by commas."""
    from ..training.runs.trackers import KINDS, NONE

    before, comma, _ = incomplete.rpartition(",")
    words = [name for name in KINDS if name not in before.split(",")] + [NONE] * (not comma)
    return _matching([f"{before}{comma}{word}" for word in words], incomplete)


#: Completion of the option of a field, by the field's name.
OF_FIELDS: dict[str, Complete] = {
    "backbone": complete_backbones,
    "second_backbone": complete_backbones,
    "device": _devices,
    "weights": _weights,
}

"""Options for the views of a photograph that a network sees: `--sizes 224 448`, `--crops five`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ..training.models.contract import FIVE, NONE, SIZES_WANTED, Views, are_sizes, sizes_text
from .field_options import Choice

_Function = TypeVar("_Function", bound=Callable[..., Any])

SIZES = "--sizes"
_NUMBERS = re.compile(r"[ ,]*\d[\d ,]*")  # sizes, or a part of them: 224, or 224,448


class SizesCommand(click.Command):
    """A command with ``--sizes``, which takes all numbers that follow: ``--sizes 224 448`` or ``--sizes=224, 448``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, in_one_word(args))


def in_one_word(words: Sequence[str]) -> list[str]:
    """Rewrite ``--sizes 224 448`` and ``--sizes=224, 448`` as ``--sizes '224 448'``, which click understands."""
    found: list[str] = []
    for word in words:
        if word.startswith(f"{SIZES}="):
            found += word.split("=", 1)
        elif found[-2:-1] == [SIZES] and _NUMBERS.fullmatch(word) and _NUMBERS.fullmatch(found[-1]):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _parse_sizes(context: click.Context, parameter: click.Parameter, text: str | None) -> Views | None:
    if text is None:
        return None
    try:
        sizes = sizes_text(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if sizes == NONE or not are_sizes(sizes, least=1):
        raise click.BadParameter(f"wanted {SIZES_WANTED}, got {text}")
    return Views.parse(sizes)


def _parse_crops(context: click.Context, parameter: click.Parameter, text: str | None) -> Views | None:
    return Views.parse(crops=text) if text else None


def views(command: _Function) -> _Function:
    """Add the options to a command of the class `SizesCommand`, which turns them into one by `views_in`."""
    sizes = click.option(
        SIZES,
        metavar="SIZES",
        callback=_parse_sizes,
        help="Sizes in pixels at which the network sees each photograph: 224 448; the logarithms of its probabilities "
        "are averaged.  [default: as trained]",
    )
    crops = click.option(
        "--crops",
        type=Choice([FIVE]),
        callback=_parse_crops,
        help="Crops that the network sees in place of the photograph, averaged as --sizes are: the corners and the "
        "centre.  [default: as trained]",
    )
    return sizes(crops(command))


def views_in(sizes: Views | None, crops: Views | None) -> Views | None:
    """Return the views that the two options ask for, if any. Raises: `click.UsageError` for both."""
    if sizes and crops:
        raise click.UsageError("--sizes and --crops are two kinds of views: leave one of them out")
    return sizes or crops

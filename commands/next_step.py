"""What to run next: told at a command's end, on stderr, ready to be copied into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .places import images_root

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes, Listing

QUIET = "no next step"  #: the root context's object, where a command is a step of another one


def command_text(words: Sequence[str | Path]) -> str:
    """The words of a command of agnet's as a shell takes them."""
    return shlex.join(["agnet", *map(str, words)])


def say_next(*words: str | Path) -> None:
    """Tell the command that comes next, in its words."""
    if click.get_current_context().find_root().obj != QUIET:
        click.echo(f"next: {command_text(words)}", err=True)


def say_predict(run: Path, found: Boxes, images: Path, split: str) -> None:
    """Tell how to predict the first image of a part; nothing where that takes a file of weights, too."""
    from ..proposals.settings import ProposalSettings

    if found.settings.get("proposals", {}).get("weights", ProposalSettings.weights) == ProposalSettings.weights:
        name = found.names[found.usable[found.rows(split)[0]]].decode()
        say_next("predict", "--run", run, images / name)


def root_words(boxes: Listing, images: Path) -> list[str | Path]:
    """The words of ``--root``, where another command would not find the images by itself."""
    return [] if images_root(boxes, None).resolve() == images.resolve() else ["--root", images]

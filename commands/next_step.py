"""The suggested next command, printed on stderr at the end of a command, ready to be pasted into a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .places import images_root

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes, Listing
    from ..training.models.contract import Views

QUIET = "no next step"  #: object of the root context if a command runs as a step of another one


def command_text(words: Sequence[str | Path]) -> str:
    """Return an agnet command line, quoted for a shell."""
    return shlex.join(["agnet", *map(str, words)])


def say_next(*words: str | Path) -> None:
    """Print the next command."""
    if click.get_current_context().find_root().obj != QUIET:
        click.echo(f"next: {command_text(words)}", err=True)


def say_predict(run: Path, found: Boxes, images: Path, split: str, views: Views | None = None) -> None:
    """Print the command that classifies the first image of a split, or searches for it in the images of its gallery.

    Nothing is printed if the command would also need a weights file.

    Args:
        views: Views that the command asks for; None: those of the run.
    """
    from ..proposals.settings import ProposalSettings

    if found.settings.get("proposals", {}).get("weights", ProposalSettings.weights) == ProposalSettings.weights:
        name = found.names[found.usable[found.rows(split)[0]]].decode()
        asked = views.options.split() if views else []
        say_next("predict", "--run", run, *asked, *gallery_words(found, images, split), images / name)


def gallery_words(found: Boxes, images: Path, split: str) -> list[str | Path]:
    """Return the arguments for ``--gallery``: where the split's images are searched for; none for classes."""
    if not found.is_retrieval:
        return []
    names = found.names[found.usable[found.rows("gallery" if split == "query" else split)]]
    return ["--gallery", images / os.path.commonpath([str(Path(name.decode()).parent) for name in names.tolist()])]


def root_words(boxes: Listing, images: Path) -> list[str | Path]:
    """Return the arguments for ``--root``, empty if other commands find the images without it."""
    return [] if images_root(boxes, None).resolve() == images.resolve() else ["--root", images]

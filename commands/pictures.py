"""Messages about the pictures that commands write, and words in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..training.runs.checkpoint_header import CheckpointHeader


def say_what_cannot_be_drawn(texts: Iterable[str]) -> None:
    """Warn on stderr if a picture's texts contain characters that no font on this machine has."""
    from ..data.fonts import cannot_draw

    if said := cannot_draw(texts):
        click.echo(said, err=True)


def by_the_run(run: Path, header: CheckpointHeader) -> str:
    """Return words for a caption: which run answers, and in which views of the photograph."""
    from ..training.runs.folder import display_name

    views = f", {header.views}" if header.views else ""
    return f"by the run '{display_name(run)}', epoch {header.epoch}{views}"

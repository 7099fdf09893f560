"""Messages about the pictures that commands write."""

from __future__ import annotations

from collections.abc import Iterable

import click


def say_what_cannot_be_drawn(texts: Iterable[str]) -> None:
    """Warn on stderr if a picture's texts contain characters that no font on this machine has."""
    from ..data.fonts import cannot_draw

    if said := cannot_draw(texts):
        click.echo(said, err=True)

"""What commands say of the pictures they write."""

from __future__ import annotations

from collections.abc import Iterable

import click


def say_what_cannot_be_drawn(texts: Iterable[str]) -> None:
    """Tell in a line on stderr if texts of a picture have letters that no font on this machine has."""
    from ..data.fonts import cannot_draw

    if said := cannot_draw(texts):
        click.echo(said, err=True)

"""Progress on stderr: a bar in a terminal, otherwise one line per minute."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ..data.text import percent


def progress_bar(what: str, total: int | None, unit: str = "image") -> Any:
    from tqdm import tqdm

    shown: dict[str, Any] = {"total": total, "desc": what, "unit": unit, "unit_scale": unit == "B"}
    if not sys.stderr.isatty():  # a log: one line per minute, none for shorter work
        return tqdm(**shown, ascii=True, file=_Lines(), mininterval=60, delay=60)
    return tqdm(**shown, dynamic_ncols=True, file=sys.stderr)


def advance(bar: Any, done: int, values: dict[str, Any]) -> None:
    if values:
        bar.set_postfix({name: _text(name, value) for name, value in values.items()}, refresh=False)
    bar.update(done - bar.n)
    if bar.n >= bar.total:
        bar.close()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return percent(value) if name == "top1" else f"{value:.3f}"


def close(bar: Any) -> None:
    if bar is not None:
        bar.close()


def watch(what: str, images: int) -> Callable[[int, dict[str, float]], None]:
    bar = progress_bar(what, images)
    return lambda done, values: advance(bar, done, values)


def finish(predicted: int, failed: int, seconds: float, waited: float | None, called: str = "images") -> None:
    """Print the speed, and exit with 1 if something failed; ``waited`` is None if no network was loaded."""
    if waited is not None and predicted > 1:
        click.echo(
            f"{predicted:,} {called} in {seconds:.1f} s: {predicted / seconds:.1f} {called} per second; "
            f"the network waited {min(waited / seconds, 1):.0%} of the time for {called} and regions",
            err=True,
        )
    if failed:
        if predicted > 1:  # their messages may have scrolled out of sight
            click.echo(f"{failed:,} error{'s' if failed > 1 else ''}: see above", err=True)
        sys.exit(1)


class _Lines:
    """A file object that writes the updates of a progress bar as lines of a log."""

    def write(self, text: str) -> None:
        if text.strip():
            click.echo(text.strip(), err=True)

    def flush(self) -> None:
        pass

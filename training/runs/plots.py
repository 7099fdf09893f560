"""Plots of matplotlib in the style of all pictures, written as PNG and as SVG, the same bytes for the same plot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ...data.files import atomic_file
from ...data.palette import STYLE
from .plot_texts import DPI

# What a program writes about itself and the day: the same plot would have other bytes tomorrow.
_NO_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


@contextmanager
def plot(width: float, height: float) -> Iterator[Figure]:
    """A figure of ``width`` x ``height`` inches, whose parts have the common style within the block."""
    with rc_context(STYLE):
        yield Figure(figsize=(width, height))


def save_plot(figure: Figure, path: Path, tight: bool = True, dpi: int = DPI) -> Path:
    """Write a plot in the format of the suffix of ``path``, .png, .svg or .pdf. Returns ``path``.

    An existing file is replaced only once the new one is complete.

    Args:
        figure: Plot to write.
        path: File to write.
        tight: Whether the paper is cut to what is drawn, instead of the size of the figure.
        dpi: Dots per inch of a PNG, and of photographs.
    """
    format_ = path.suffix.lower().removeprefix(".")
    cut = "tight" if tight else None
    with rc_context(STYLE), atomic_file(path) as unfinished:
        figure.savefig(
            unfinished, format=format_, dpi=dpi, metadata=_NO_METADATA[format_], bbox_inches=cut, pad_inches=0.15
        )
    return path


def save_plot_to_publish(figure: Figure, path: Path, tight: bool = True) -> Path:
    """Write a plot as PNG to ``path``, and as SVG beside it. Returns ``path``."""
    save_plot(figure, path.with_suffix(".svg"), tight)
    return save_plot(figure, path, tight)

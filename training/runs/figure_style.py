"""Style and files of the figures of papers."""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ...data.files import atomic_file
from ...data.palette import FAINT, TEXT

_STYLE = {
    "text.color": TEXT,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": TEXT,
    "pdf.fonttype": 42,
    "svg.hashsalt": "agnet",
}
_NO_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
styled = rc_context(_STYLE)


def save_figure(figure: Figure, path: Path) -> Path:
    format_ = path.suffix.lower().removeprefix(".")
    with rc_context(_STYLE), atomic_file(path) as unfinished:
        figure.savefig(
            unfinished, format=format_, dpi=300, bbox_inches="tight", pad_inches=0.05, metadata=_NO_METADATA[format_]
        )
    return path

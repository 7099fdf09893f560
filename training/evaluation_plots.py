"""Pictures of an evaluation: who is taken for whom, and whether confidence is deserved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.ft2font import FT2Font

from ..data.atomic import atomic_file
from .metrics import BINS, Metrics

_BLUE, _RED, _GREY = "#4363d8", "#c0392b", "#6b6b6b"
_LONGEST = 28  # letters of a class' name
_NUMBERED = 25  # with so many classes or fewer, cells have their numbers
# Where a computer may have letters that matplotlib's own font lacks.
_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Arial Unicode MS", "Microsoft YaHei", "Hiragino Sans")


def draw_confusion(metrics: Metrics, path: Path) -> Path:
    """The confusion matrix as a PNG, each row's shares: every class has a legible name, however many there are."""
    counts = np.array(metrics.confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    n = len(counts)
    names, family = class_labels(list(metrics.class_images))
    cell = 0.42 if n <= _NUMBERED else 0.17 if n <= 120 else 0.12  # inches
    points = 9 if n <= _NUMBERED else 8 if n <= 120 else 6
    room = 1.0 + points / 72 * 0.62 * max(map(len, names))  # for the names
    side = max(n * cell, 2.5)
    figure = Figure(figsize=(room + side + 1.0, room + side + 0.6))
    width, height = figure.get_size_inches()
    axes = figure.add_axes((room / width, room / height, side / width, side / height))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(n), names, fontsize=points, family=family, rotation=rotation, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    axes.set_title(f"Confusion on {metrics.images:,} images (shares of each row)", fontsize=11)
    if n <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    bar = figure.add_axes(((room + side + 0.15) / width, room / height, 0.15 / width, min(side, 3) / height))
    figure.colorbar(picture, cax=bar)
    return save_figure(figure, path)


def draw_calibration(metrics: Metrics, path: Path) -> Path:
    """A reliability diagram as a PNG: accuracy of each bin of confidence, and how many images are in it."""
    figure = Figure(figsize=(5.2, 6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [place for place in metrics.calibration if place.images]
    middles = [place.above + 0.5 / BINS for place in filled]
    accuracy = [place.accuracy or 0.0 for place in filled]
    confidence = [place.confidence or 0.0 for place in filled]
    above.bar(middles, accuracy, width=0.94 / BINS, color=_BLUE, label="accuracy")
    above.plot(confidence, accuracy, "o", color="black", markersize=3, label="mean confidence of the bin")
    above.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="deserved confidence")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers")
    above.set_title(
        f"Calibration error (ECE) {metrics.calibration_error:.1%}, accuracy {metrics.top1:.1%}", fontsize=11
    )
    above.legend(fontsize=8, loc="best")
    below.bar(middles, [place.images for place in filled], width=0.94 / BINS, color=_GREY)
    below.set(xlabel="confidence: probability of the best class", ylabel="images")
    figure.tight_layout()
    return save_figure(figure, path)


def class_labels(classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names short enough to draw, and the fonts to draw them in. A name with letters that no font here has is its
    number in the list of classes, from 0.
    """
    own = FontProperties().get_family()
    family = [*own, *(name for name in _FONTS if name in fontManager.get_font_names())]
    fonts: list[FT2Font] = [get_font(fontManager.findfont(FontProperties(family=[name]))) for name in family]
    known = set().union(*(font.get_charmap() for font in fonts))
    names = []
    for number, name in enumerate(classes):
        drawn = name if all(ord(letter) in known for letter in name) else f"class {number}"
        names.append(drawn if len(drawn) <= _LONGEST else drawn[: _LONGEST - 1] + "…")
    return names, family


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG with the resolution of a screen, complete or not at all."""
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120, bbox_inches="tight", pad_inches=0.15)
    return path

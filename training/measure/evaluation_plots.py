"""Plots of an evaluation: confusion matrix, reliability diagram, and CMC of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...data.files import atomic_file
from ..runs.plot_texts import DPI, class_labels, inches_of, line
from .metrics import BINS, Metrics
from .searches import SEARCH_MEASURES, SearchMetrics

_BLUE, _RED, _GREY = "#4363d8", "#c0392b", "#6b6b6b"
_NUMBERED = 25  # most classes for which counts are written into the cells


def draw_confusion(metrics: Metrics, path: Path, dataset: str = "") -> Path:
    """Draw the confusion matrix, normalised by row, as a PNG with a legible name for every class.

    Args:
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    counts = np.array(metrics.confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    n = len(counts)
    cell = 0.42 if n <= _NUMBERED else 0.17 if n <= 120 else 0.12  # inches
    points = 9 if n <= _NUMBERED else 8 if n <= 120 else 6
    names, family = class_labels(list(metrics.class_images), points)
    room = 0.8 + max(inches_of(name, family, points) for name in names)
    side = max(n * cell, 2.5)
    figure = Figure(figsize=(room + side + 1.0, room + side + 0.6))
    width, height = figure.get_size_inches()
    axes = figure.add_axes((room / width, room / height, side / width, side / height))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(n), names, fontsize=points, family=family, rotation=rotation, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    _titled(axes, dataset, f"Confusion on {metrics.counted} (colour: share of row)", side)
    if n <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    bar = figure.add_axes(((room + side + 0.15) / width, room / height, 0.15 / width, min(side, 3) / height))
    figure.colorbar(picture, cax=bar)
    return save_figure(figure, path)


def draw_calibration(metrics: Metrics, path: Path, dataset: str = "") -> Path:
    """Draw a reliability diagram as a PNG: accuracy and number of images of each confidence bin.

    Args:
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    figure = Figure(figsize=(5.2, 6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [place for place in metrics.calibration if place.images]
    middles = [place.above + 0.5 / BINS for place in filled]
    accuracy = [place.accuracy or 0.0 for place in filled]
    confidence = [place.confidence or 0.0 for place in filled]
    above.bar(middles, accuracy, width=0.94 / BINS, color=_BLUE, label="accuracy")
    above.plot(confidence, accuracy, "o", color="black", markersize=3, label="mean confidence of the bin")
    above.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="perfect calibration")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    accuracy_is_of = "video accuracy" if metrics.clips else "accuracy"
    said = f"Calibration error (ECE) {metrics.calibration_error:.1%}, {accuracy_is_of} {metrics.top1:.1%}"
    _titled(above, dataset, said, 5.0)
    below.bar(middles, [place.images for place in filled], width=0.94 / BINS, color=_GREY)
    below.set(xlabel="confidence (probability of the predicted class)", ylabel=metrics.rows)
    figure.legend(fontsize=8, loc="lower center", ncols=3, frameon=False)  # outside: bars may stand anywhere
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return save_figure(figure, path)


def draw_cmc(metrics: SearchMetrics, path: Path, dataset: str = "") -> Path:
    """Draw the cumulative matching characteristic as a PNG, with its values at a few ranks.

    Args:
        metrics: Metrics of the search.
        path: File to write.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    axes = figure.subplots()
    ranks = range(1, len(metrics.cmc) + 1)
    axes.plot(ranks, [100 * share for share in metrics.cmc], color=_BLUE)
    for name, title in SEARCH_MEASURES.items():
        if name == "map":
            continue
        rank, share, interval = int(title.partition("@")[2]), getattr(metrics, name), metrics.intervals[name]
        axes.plot([rank, rank], [100 * interval.low, 100 * interval.high], color=_BLUE, linewidth=1)
        axes.plot(rank, 100 * share, "o", color=_BLUE)
        axes.annotate(f"{100 * share:.1f}", (rank, 100 * share), (4, -12), textcoords="offset points", fontsize=8)
    axes.set(xlabel="rank", ylabel="queries with a match, %", xlim=(0, len(metrics.cmc) + 1), ylim=(0, 103))
    axes.grid(alpha=0.25)
    said = f"mAP {metrics.map:.1%}, {metrics.queries:,} queries in {metrics.gallery_images:,} images"
    _titled(axes, dataset, said, 5.0)
    return save_figure(figure, path)


def _titled(axes: Axes, dataset: str, said: str, inches: float) -> None:
    """Set a title of two lines: the name of the data set, if any, and ``said``."""
    name, family = line(dataset, 11, max(inches, 3.0))
    axes.set_title(f"{name}\n{said}" if name else said, fontsize=11, family=family, parse_math=False)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG of `DPI` dots per inch; ``path`` is replaced only once the file is complete."""
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15)
    return path

"""Plots of an evaluation: confusion matrix, reliability diagram, and CMC of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...data.drawing import readable_on
from ...data.palette import FAINT, RIGHT_SHARES, RULE, SERIES, TEXT, WRONG_SHARES
from ..runs.plot_texts import class_labels, inches_of, line
from ..runs.plots import save_plot_to_publish, styled
from .evaluation_report import between, confusions
from .metrics import Metrics
from .searches import SEARCH_MEASURES, SearchMetrics
from .statistics import wilson_interval

_NUMBERED = 25  # most classes for which counts are written into the cells
_FEW = 5  # most classes whose confusions are not listed beside the matrix: they are all in sight
_GUIDE = 5  # classes between two guide lines of a matrix without counts
_LISTED = 30  # most confusions that are listed
_COLUMN, _ROW = 4.3, 0.2  # inches, width of the column beside the matrix and height of a row of its list
_NAME = 1.55  # inches, longest name in that list
_RIGHT = LinearSegmentedColormap.from_list("right", RIGHT_SHARES)
_WRONG = LinearSegmentedColormap.from_list("wrong", WRONG_SHARES)
_LARGEST_DOT = 280.0  # points², area of the dot of the bin with most images


@styled
def draw_confusion(metrics: Metrics, path: Path, dataset: str = "") -> Path:
    """Draw the confusion matrix as a PNG and an SVG with a legible name for every class.

    Colours show shares of a row: of right answers in blue, of each error in orange, on the scales of
    `confusion_colours`. The most frequent confusions are listed beside it.

    Args:
        metrics: Metrics of an evaluation.
        path: PNG to write; the SVG is beside it.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    counts = np.array(metrics.confusion)
    n = len(counts)
    cell = 0.42 if n <= _NUMBERED else 0.17 if n <= 120 else 0.12  # inches
    points = 9 if n <= _NUMBERED else 8 if n <= 120 else 6
    names, family = class_labels(list(metrics.class_images), points)
    room = 0.8 + max(inches_of(name, family, points) for name in names)
    side = max(n * cell, 2.5)
    figure = Figure(figsize=(room + side + 0.35 + _COLUMN, room + side + 0.6))
    width, height = figure.get_size_inches()
    axes = figure.add_axes((room / width, room / height, side / width, side / height))
    colours = confusion_colours(counts)
    axes.imshow(colours, interpolation="none")  # an SVG then holds a pixel for each cell
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(n), names, fontsize=points, family=family, rotation=rotation, parse_math=False)
    axes.tick_params(length=0, labelcolor=TEXT)
    axes.set(xlabel="predicted class", ylabel="true class")
    for edge in np.arange(-0.5, n, 1 if n <= _NUMBERED else _GUIDE):
        for draw in (axes.axhline, axes.axvline):
            draw(edge, color=RULE, linewidth=0.6, zorder=0)
    axes.spines[:].set_visible(False)
    _titled(axes, dataset, f"Confusion on {metrics.counted}: {metrics.top1:.1%} right", side)
    if n <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = readable_on(to_hex(colours[row, column]))
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    left, top = (room + side + 0.35) / width, (room + side) / height
    beside = figure.add_axes((left, top - side / height, _COLUMN / width, side / height))
    beside.set(xlim=(0, _COLUMN), ylim=(side, 0))  # inches from the upper left corner
    beside.axis("off")
    _draw_scales(beside)
    if n > _FEW:
        _list_confusions(beside, metrics, side)
    return save_plot_to_publish(figure, path)


def confusion_colours(counts: np.ndarray) -> np.ndarray:
    """Colours of the cells of a confusion matrix ``(K, K)``, as RGBA in [0, 1] ``(K, K, 4)``.

    The colour of a right cell is linear in its share of the row, that of a wrong one in the share's square root: one
    image of a hundred is easily seen. Cells without images are transparent.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    right = np.eye(len(counts), dtype=bool)[..., None]
    colours = np.where(right, _RIGHT(shares), _WRONG(shares**0.5))
    colours[counts == 0] = 0
    return np.asarray(colours)


def _draw_scales(axes: Axes) -> None:
    """Draw the scales of `confusion_colours` in the first inch of the column, whose unit is the inch."""
    for top, scale, said, power, ticks in (
        (0.22, _RIGHT, "right: share of the true class", 1.0, (0.0, 0.5, 1.0)),
        (0.82, _WRONG, "taken for another class: share of the true class", 0.5, (0.01, 0.1, 0.5, 1.0)),
    ):
        axes.text(0, top - 0.07, said, color=FAINT, fontsize=8.5)
        ramp = scale(np.linspace(0, 1, 64))[None]
        axes.imshow(ramp, extent=(0, 2.4, top + 0.14, top), aspect="auto", interpolation="bilinear")
        for share in ticks:
            axes.text(2.4 * share**power, top + 0.28, f"{share:.0%}", color=FAINT, fontsize=8, ha="center")


def _list_confusions(axes: Axes, metrics: Metrics, side: float) -> None:
    """List the most frequent confusions below the scales, as many as there is room for in ``side`` inches."""
    found = confusions(metrics)
    shown = found[: min(_LISTED, int((side - 1.9) / _ROW))]
    if not shown:
        return
    names, family = class_labels(list(metrics.class_images), 8, _NAME)
    drawn = dict(zip(metrics.class_images, names, strict=True))
    title = "most frequent confusions" + (f", {len(shown)} of {len(found):,}" if len(found) > len(shown) else "")
    axes.text(0, 1.65, title, color=FAINT, fontsize=8.5)
    for number, (true, taken, said) in enumerate(shown):
        y = 1.9 + _ROW * number
        for x, text in ((0.0, drawn[true]), (_NAME + 0.05, "→"), (_NAME + 0.25, drawn[taken])):
            axes.text(x, y, text, fontsize=8, family=family, parse_math=False)
        axes.text(_COLUMN, y, said, fontsize=8, ha="right")


@styled
def draw_calibration(metrics: Metrics, path: Path, dataset: str = "") -> Path:
    """Draw a reliability diagram as a PNG and an SVG: a dot for each bin of confidence that has images.

    A dot is at the bin's mean confidence and accuracy, with Wilson's interval of the accuracy; its area is in proportion
    to the number of images.

    Args:
        metrics: Metrics of an evaluation.
        path: PNG to write; the SVG is beside it.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    figure = Figure(figsize=(5.2, 5.6))
    axes = figure.subplots()
    filled = [place for place in metrics.calibration if place.images]
    most = max(place.images for place in filled)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for place in filled:
        accuracy, confidence = place.accuracy or 0.0, place.confidence or 0.0
        interval = wilson_interval(accuracy, place.images)
        axes.plot(
            [confidence] * 2, [interval.low, interval.high], color=SERIES[0], linewidth=1.2, solid_capstyle="butt"
        )
        area = _LARGEST_DOT * place.images / most
        axes.scatter([confidence], [accuracy], s=area, color=SERIES[0], edgecolors="white", linewidths=0.5, zorder=3)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="confidence: probability of the predicted class", ylabel=f"accuracy: share of {metrics.rows} right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.grid()
    axes.text(0.02, 0.99, "under-confident:\nright more often than it says", color=FAINT, va="top")
    axes.text(0.99, 0.02, "over-confident:\nright less often than it says", color=FAINT, ha="right")
    named = "calibration_error"
    error = f"Calibration error (ECE) {metrics.calibration_error:.1%} ({between(named, metrics.interval(named))})"
    _titled(axes, dataset, f"{error}\n{_confidence_text(metrics)}", 5.0)
    _key_of_dots(axes, most, metrics.rows)
    return save_plot_to_publish(figure, path)


def _confidence_text(metrics: Metrics) -> str:
    """Whether the network is too sure, or not sure enough, on average over all images."""
    confidence = sum(place.images * (place.confidence or 0.0) for place in metrics.calibration) / metrics.images
    top1, interval = metrics.top1, wilson_interval(metrics.top1, metrics.images)
    said = f"mean confidence {confidence:.1%}, accuracy {top1:.1%}"
    if interval.low <= confidence <= interval.high:
        return f"{said}: on average neither over- nor under-confident"
    return f"{said}: {'over' if confidence > top1 else 'under'}-confident"


def _key_of_dots(axes: Axes, most: int, rows: str) -> None:
    """Add a key of the areas of dots below the axes, for round numbers of images."""
    counts = sorted({most, *(10**power for power in range(len(str(most)))[-2:])})
    handles = [
        axes.scatter([], [], s=_LARGEST_DOT * count / most, color=SERIES[0], label=f"{count:,}") for count in counts
    ]
    axes.legend(
        handles=handles,
        title=f"{rows} of a dot; its line is the 95% interval (Wilson)",
        title_fontsize=8,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=len(counts),
        frameon=False,
        borderaxespad=0,
        labelspacing=1.2,
    )


@styled
def draw_cmc(metrics: SearchMetrics, path: Path, dataset: str = "") -> Path:
    """Draw the cumulative matching characteristic as a PNG and an SVG, with its values at a few ranks.

    Args:
        metrics: Metrics of the search.
        path: PNG to write; the SVG is beside it.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    axes = figure.subplots()
    ranks = range(1, len(metrics.cmc) + 1)
    axes.plot(ranks, metrics.cmc, color=SERIES[0])
    for name, title in SEARCH_MEASURES.items():
        if name == "map":
            continue
        rank, share, interval = int(title.partition("@")[2]), getattr(metrics, name), metrics.intervals[name]
        axes.plot([rank, rank], [interval.low, interval.high], color=SERIES[0], linewidth=1)
        axes.plot(rank, share, "o", color=SERIES[0])
        axes.annotate(f"{share:.1%}", (rank, share), (4, -12), textcoords="offset points", fontsize=8)
    axes.set(xlabel="rank", ylabel="queries with a match", xlim=(0, len(metrics.cmc) + 1), ylim=(0, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid()
    said = f"mAP {metrics.map:.1%}, {metrics.queries:,} queries in {metrics.gallery_images:,} images"
    _titled(axes, dataset, said, 5.0)
    return save_plot_to_publish(figure, path)


def _titled(axes: Axes, dataset: str, said: str, inches: float) -> None:
    """Set a title: a line with the name of the data set, if any, and ``said``."""
    name, family = line(dataset, 10.5, max(inches, 3.0))
    axes.set_title(f"{name}\n{said}" if name else said, family=family, parse_math=False)

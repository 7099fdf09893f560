"""Plots of an evaluation: confusion matrix, reliability diagram, and CMC of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...data.drawing import readable_on
from ...data.palette import FAINT, PAPER, RIGHT_SHARES, RULE, SERIES, TEXT, WRONG_SHARES
from ..runs.plot_texts import DPI, class_labels, inches_of, line
from ..runs.plots import plot, save_plot_to_publish
from .evaluation_report import confusions
from .metrics import Bin, Metrics
from .searches import SEARCH_MEASURES, SearchMetrics

_NUMBERED = 25  # most classes for which counts are written into the cells
_FEW = 5  # most classes whose confusions are not listed beside the matrix: all of them are in sight
_GUIDE = 5  # classes between two guide lines of a matrix without counts
_LISTED = 30  # most confusions that are listed
_GAP, _COLUMN, _ROW = 0.35, 4.2, 0.2  # inches, space and column beside the matrix, height of a row of its list
_NAME, _SCALE = 1.55, 2.4  # inches, longest name in that list and width of a scale of colours
_RIGHT = LinearSegmentedColormap.from_list("right", RIGHT_SHARES)
_WRONG = LinearSegmentedColormap.from_list("wrong", WRONG_SHARES)
_LARGEST_DOT, _SMALLEST_DOT = 280.0, 6.0  # points², areas of the dot of the bin with most images, and of any


def draw_confusion(metrics: Metrics, path: Path, dataset: str = "") -> Path:
    """Draw the confusion matrix as a PNG and an SVG with a legible name for every class.

    Colours are those of `confusion_colours`. The most frequent confusions are listed beside the matrix.

    Args:
        metrics: Metrics of an evaluation.
        path: PNG to write; the SVG is beside it.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    n = len(metrics.confusion)
    cell = 51 / DPI if n <= _NUMBERED else 21 / DPI if n <= 120 else 15 / DPI  # whole pixels, as is everything below
    points = 9 if n <= _NUMBERED else 8 if n <= 120 else 6
    names, family = class_labels(list(metrics.class_images), points)
    room = round(0.55 + max(inches_of(name, family, points) for name in names), 1)
    side, column = round(max(2.5, n * cell) * DPI) / DPI, _COLUMN if n > _FEW else _SCALE + 0.7
    width, height = round(room + side + _GAP + column + 0.2, 1), round(room + side + 0.7, 1)
    with plot(width, height) as figure:
        axes = figure.add_axes((room / width, room / height, side / width, side / height))
        _draw_matrix(axes, np.array(metrics.confusion))
        for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
            axis.set_ticks(range(n), names, fontsize=points, family=family, rotation=rotation, parse_math=False)
        axes.tick_params(length=0, labelcolor=TEXT)
        axes.set(xlabel="predicted class", ylabel="true class")
        _titled(axes, dataset, f"Confusion on {metrics.counted}: {metrics.top1:.1%} right", side + _GAP + column)
        beside = room + side + _GAP, room + side
        _draw_scales(figure, beside)
        if n > _FEW:
            _list_confusions(figure, beside, metrics)
        return save_plot_to_publish(figure, path, tight=False)


def confusion_colours(counts: np.ndarray) -> np.ndarray:
    """Colours of the cells of a confusion matrix ``(K, K)``, as RGBA in [0, 1] ``(K, K, 4)``.

    Right answers are blue, linear in their share of the row; errors are orange, by the square root of theirs, so that
    one image of a hundred is easily seen. Cells without images are transparent.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    right = np.eye(len(counts), dtype=bool)[..., None]
    colours = np.where(right, _RIGHT(shares), _WRONG(shares**0.5))
    colours[counts == 0] = (1, 1, 1, 0)
    return np.asarray(colours)


def _draw_matrix(axes: Axes, counts: np.ndarray) -> None:
    """Draw the cells over guide lines, with their counts if these are legible."""
    colours, n = confusion_colours(counts), len(counts)
    axes.imshow(colours, interpolation="none")  # an SVG then holds one pixel per cell
    for edge in np.arange(0, n + 1, 1 if n <= _NUMBERED else _GUIDE) - 0.5:
        for draw in (axes.axhline, axes.axvline):
            draw(edge, color=RULE, linewidth=0.6, zorder=0)
    axes.spines[:].set(visible=True, color=RULE)
    if n > _NUMBERED:
        return
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = readable_on(to_hex(colours[row, column]))
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)


def _draw_scales(figure: Figure, corner: tuple[float, float]) -> None:
    """Draw the scales of `confusion_colours` below ``corner``, in inches from the lower left one of the figure."""
    left, top = corner
    width, height = figure.get_size_inches()
    for below, scale, said, power, ticks in (
        (0.34, _RIGHT, "right: share of the true class", 1.0, (0.0, 0.5, 1.0)),
        (0.92, _WRONG, "taken for another class: share of the true class", 0.5, (0.01, 0.1, 0.5, 1.0)),
    ):
        _write(figure, (left, top - below + 0.21), said, 8.5, FAINT)
        axes = figure.add_axes((left / width, (top - below) / height, _SCALE / width, 0.14 / height))
        axes.imshow(scale(np.linspace(0, 1, 64))[None], aspect="auto", interpolation="bilinear")
        axes.axis("off")
        for share in ticks:
            _write(figure, (left + _SCALE * share**power, top - below - 0.14), f"{share:.0%}", 8, FAINT, ha="center")


def _list_confusions(figure: Figure, corner: tuple[float, float], metrics: Metrics) -> None:
    """List the most frequent confusions below the scales, as many as there is room for."""
    left, top = corner[0], corner[1] - 1.5
    found = confusions(metrics)
    shown = found[: min(_LISTED, int(top / _ROW))]
    names, family = class_labels(list(metrics.class_images), 8, _NAME)
    drawn = dict(zip(metrics.class_images, names, strict=True))
    title = "most frequent confusions" + (f", {len(shown)} of {len(found):,}" if len(found) > len(shown) else "")
    _write(figure, (left, top), title if shown else "no confusions", 8.5, FAINT)
    for number, (true, taken, said) in enumerate(shown):
        y = top - 0.25 - _ROW * number
        for x, text in ((0.0, drawn[true]), (_NAME + 0.05, "→"), (_NAME + 0.25, drawn[taken])):
            _write(figure, (left + x, y), text, 8, TEXT, family=family)
        _write(figure, (left + _COLUMN, y), said, 8, TEXT, ha="right")


def _write(figure: Figure, inches_xy: tuple[float, float], text: str, points: float, colour: str, **how: Any) -> None:
    """Write text at a place in inches from the lower left corner of the figure."""
    x, y = np.divide(inches_xy, figure.get_size_inches())
    figure.text(x, y, text, fontsize=points, color=colour, parse_math=False, **how)


def draw_calibration(metrics: Metrics, path: Path, dataset: str = "") -> Path:
    """Draw a reliability diagram as a PNG and an SVG: a dot for each bin of confidence that has images.

    A dot is at the bin's mean confidence and accuracy, with Wilson's interval of the accuracy. Its area is in
    proportion to the number of images, unless it would be too small to see.

    Args:
        metrics: Metrics of an evaluation.
        path: PNG to write; the SVG is beside it.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    with plot(5.2, 5.6) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        filled = [place for place in metrics.calibration if place.images]
        most = max(place.images for place in filled)
        for place in filled:
            _draw_bin(axes, place, most)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel="confidence: probability of the predicted class", ylabel=f"share of {metrics.rows} right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        axes.grid()
        axes.text(0.01, 0.99, "under-confident", color=FAINT, va="top")
        axes.text(1.0, 0.01, "over-confident", color=FAINT, ha="right")
        interval = metrics.interval("calibration_error")
        error = f"{metrics.calibration_error:.1%} (95% {100 * interval.low:.1f} to {interval.high:.1%})"
        _titled(axes, dataset, f"Calibration error (ECE) {error}\non average {metrics.miscalibration.text}", 5.0)
        _key_of_dots(axes, most, metrics.rows)
        return save_plot_to_publish(figure, path)


def _draw_bin(axes: Axes, found: Bin, most: int) -> None:
    assert found.confidence is not None and found.accuracy is not None and found.interval is not None  # not empty
    ends = [found.interval.low, found.interval.high]
    axes.plot([found.confidence] * 2, ends, color=SERIES[0], linewidth=1.2)
    area = _area(found.images, most)
    # Not clipped: the area says how many, also of a dot at 100%.
    at = [found.confidence], [found.accuracy]
    axes.scatter(*at, s=area, color=SERIES[0], edgecolors=PAPER, lw=0.5, zorder=3, clip_on=False)


def _key_of_dots(axes: Axes, most: int, rows: str) -> None:
    """Add a key of the areas of dots below the axes: for the most images, and for powers of ten below."""
    counts = [*[10**power for power in range(len(str(most - 1)))][-2:], most]
    axes.legend(
        handles=[axes.scatter([], [], s=_area(count, most), color=SERIES[0]) for count in counts],
        labels=[f"{count:,}" for count in counts],
        title=f"{rows} of a dot; its line is the 95% interval (Wilson)",
        title_fontsize=8,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=len(counts),
        frameon=False,
        borderaxespad=0,
    )


def _area(images: int, most: int) -> float:
    return max(_LARGEST_DOT * images / most, _SMALLEST_DOT)


def draw_cmc(metrics: SearchMetrics, path: Path, dataset: str = "") -> Path:
    """Draw the cumulative matching characteristic as a PNG and an SVG, with its values at a few ranks.

    Args:
        metrics: Metrics of the search.
        path: PNG to write; the SVG is beside it.
        dataset: Name of the data set, for the title.

    Returns: ``path``.
    """
    with plot(6.2, 4.4) as figure:
        axes = figure.subplots()
        axes.plot(range(1, len(metrics.cmc) + 1), metrics.cmc, color=SERIES[0])
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

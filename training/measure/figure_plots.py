"""Plots of the figures of papers, at most 7.2 inches wide (two columns of text), with letters of 7 and 7.5 points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...data.palette import RULE, SERIES, TEXT
from ..runs.picture_plots import PRINTED
from ..runs.plot_texts import class_labels, inches_of, line
from ..runs.plots import plot, save_plot
from .figures import ACCURACY, ClassFigure, ClassSeries, ClassValue, RegionsFigure, RegionsPoint

_WIDTH, _ONE_PANEL = 7.2, 5.2  # inches
_MARKS = "osD^v"  # one for each of SERIES, which are told apart in grey print, too
_SMALL, _POINTS = 7.0, 7.5
_DASHES = (0, (4, 3))
_KIND_LABELS = {"primary": "primary only", "secondary": "secondary only", "both": "primary and secondary"}


# --- by class


def draw_classes(found: ClassFigure, path: Path) -> Path:
    """Draw a measure by class as points with intervals, a row for each class, the best first. Returns ``path``.

    Many classes continue in a second and a third panel with the same axis.
    """
    order = found.ordered()
    panels = 1 if len(order) <= 30 else 2 if len(order) <= 70 else 3  # columns
    rows = -(-len(order) // panels)
    labels, family = class_labels([one.name for one in found.series[0].classes], _POINTS, (1.9, 1.5, 1.15)[panels - 1])
    parts = [order[first : first + rows] for first in range(0, len(order), rows)]
    rooms = [max(inches_of(labels[k], family, _POINTS) for k in part) + 0.12 for part in parts]
    height, gap = rows * (0.125 + 0.055 * len(found.series)), 0.18
    total_width, total = (_ONE_PANEL if panels == 1 else _WIDTH), height + 0.9
    width = (total_width - sum(rooms) - gap * panels) / panels
    lowest = min(one.interval.low for series in found.series for one in series.classes)
    left = 0.0
    with plot(total_width, total) as figure:
        for shown, room in zip(parts, rooms, strict=True):
            left, panel = left + room, height * len(shown) / rows
            box = left / total_width, (0.45 + height - panel) / total, width / total_width, panel / total
            axes = figure.add_axes(box)
            left += width + gap
            _draw_rows(axes, found, shown)
            axes.set_yticks(range(len(shown)), [labels[k] for k in shown], fontsize=_POINTS, family=family, color=TEXT)
            for text in axes.get_yticklabels():
                text.set_parse_math(False)
            axes.set_xlim(max(0.0, np.floor(10 * lowest) * 10) - 2, 102)
            axes.xaxis.set_major_locator(MaxNLocator(4 if panels > 1 else 6, steps=[1, 2, 2.5, 5, 10]))
            axes.set_xlabel(f"{found.measure}, %", fontsize=_POINTS)
        _draw_key(figure, found, (rooms[0] / total_width, (0.5 + height) / total))
        return save_plot(figure, path, dpi=PRINTED)


def _draw_rows(axes: Axes, found: ClassFigure, shown: Sequence[int]) -> None:
    step = 0.62 / len(found.series)
    for number, series in enumerate(found.series):
        colour, mark = SERIES[number % len(SERIES)], _MARKS[number % len(_MARKS)]
        axes.axvline(100 * series.mean, color=colour, linewidth=0.8, linestyle=_DASHES, zorder=1)
        for row, place in enumerate(shown):
            y = row + step * (number - (len(found.series) - 1) / 2)
            _draw_value(axes, series.classes[place], y, colour, mark)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=_SMALL)
    axes.spines["left"].set_visible(False)
    for row in range(len(shown)):
        axes.axhline(row, color=RULE, linewidth=0.5, zorder=0)


def _draw_value(axes: Axes, one: ClassValue, y: float, colour: str, mark: str) -> None:
    style: dict[str, Any] = {"color": colour, "solid_capstyle": "butt", "zorder": 2}
    axes.plot([100 * one.interval.low, 100 * one.interval.high], [y, y], linewidth=0.8, **style)
    if one.sd is not None:
        ends = [max(one.value - one.sd, 0), min(one.value + one.sd, 1)]
        axes.plot([100 * end for end in ends], [y, y], linewidth=2.6, alpha=0.45, **style)
    axes.plot(100 * one.value, y, mark, color=colour, markersize=3.6, markeredgecolor="white", markeredgewidth=0.4)


def _draw_key(figure: Figure, found: ClassFigure, place: tuple[float, float]) -> None:
    """Name the networks above the panels, with the mean over classes that their dashed lines show."""
    title = "mean" if found.measure == ACCURACY else "mAP"
    handles, texts, families = [], [], list[str]()
    for number, series in enumerate(found.series):
        text, family = line(_key_text(series, title), _POINTS, _WIDTH - 1.5)
        style: dict[str, Any] = {
            "marker": _MARKS[number % len(_MARKS)],
            "markersize": 4,
            "linewidth": 0.8,
            "linestyle": _DASHES,
        }
        handles.append(Line2D([], [], color=SERIES[number % len(SERIES)], **style))
        texts.append(text)
        families += family
    legend = figure.legend(
        handles, texts, loc="lower left", bbox_to_anchor=place, frameon=False, borderaxespad=0, borderpad=0.2
    )
    for one in legend.get_texts():
        one.set(fontsize=_POINTS, family=list(dict.fromkeys(families)), parse_math=False)


def _key_text(series: ClassSeries, title: str) -> str:
    seeds = f", {series.seeds} seeds" if series.seeds > 1 else ""
    return f"{series.name}{seeds}: {title} {series.overall}"


# --- by number of regions


def draw_regions_plot(found: RegionsFigure, path: Path) -> Path:
    """Draw a measure against the number of regions, and networks without regions as horizontal lines.

    Returns: ``path``.
    """
    with_regions = [one for one in found.points if one.regions]
    with plot(max(3.5, min(1.2 + 0.6 * len(with_regions), _WIDTH)), 3.1) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for number, kind in enumerate(dict.fromkeys(one.layout.kinds for one in with_regions)):
            own = {place: one for place, one in enumerate(with_regions) if one.layout.kinds == kind}
            colour, values = SERIES[number], [100 * one.measured.value for one in own.values()]
            axes.plot([*own], values, color=colour, linewidth=1, marker=_MARKS[number], ms=5, label=_KIND_LABELS[kind])
            for place, one in own.items():
                _draw_point(axes, place, one, colour)
        _draw_without_regions(axes, [one for one in found.points if not one.regions])
        axes.set_xticks(range(len(with_regions)), [f"{one.formula}\n= {one.regions}" for one in with_regions])
        axes.set_xlabel("regions: primary + secondary", fontsize=_POINTS)
        axes.set_ylabel(f"{found.measure}, %", fontsize=_POINTS)
        axes.tick_params(labelsize=_SMALL)
        axes.grid(axis="y")
        axes.margins(x=0.09, y=0.08)
        legend = figure.legend(loc="outside upper left", ncols=2, frameon=False)
        family = list(dict.fromkeys(name for one in found.points for name in line(one.name, _SMALL, 2.0)[1]))
        for text in legend.get_texts():
            text.set(fontsize=_SMALL, family=family, parse_math=False)
        return save_plot(figure, path, dpi=PRINTED)


def _draw_without_regions(axes: Axes, points: Sequence[RegionsPoint]) -> None:
    """Draw networks without regions as horizontal lines with bands."""
    for number, one in enumerate(points):
        colour, label = SERIES[-1 - number % 2], f"{line(one.name, _SMALL, 2.0)[0]}: no regions"
        ends = 100 * one.measured.interval.low, 100 * one.measured.interval.high
        axes.axhspan(*ends, color=colour, alpha=0.1, linewidth=0)
        axes.axhline(100 * one.measured.value, color=colour, linewidth=1, linestyle=_DASHES, label=label)


def _draw_point(axes: Axes, place: int, one: RegionsPoint, colour: str) -> None:
    ends = [100 * one.measured.interval.low, 100 * one.measured.interval.high]
    axes.plot([place, place], ends, color=colour, linewidth=0.9)
    if one.seeds > 1:
        seeds = [100 * value for value in one.measured.by_seed]
        axes.plot([place] * len(seeds), seeds, "o", color=colour, markersize=2.5, alpha=0.5, linestyle="")

"""Charts as inline SVG, coloured by the classes of the page's style sheet, so that they follow light and dark.

Every mark that can be pointed at can be reached by the keyboard, too, and says what it shows in ``data-tip``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 500, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 26, 44
_LETTER = 6.6  # pixels, average width at this size


@dataclass(frozen=True)
class Mark:
    """A dot of a chart with a vertical interval; ``radius`` in pixels."""

    x: float
    y: float
    tip: str  #: what it shows, in words
    low: float | None = None
    high: float | None = None
    radius: float = 4.0


@dataclass(frozen=True)
class Series:
    """Points that are joined by a line, and marks, in one colour."""

    name: str  #: written at the line's end; empty for none
    line: Sequence[Point] = ()
    marks: Sequence[Mark] = ()
    colour: int = 0  #: place in ``palette.SERIES``
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, with a title and the text of its ticks."""

    title: str
    low: float
    high: float
    text: Callable[[float], str] = "{:g}".format
    whole: bool = False  #: ticks at whole numbers only


def interval(value: float, low: float, high: float, ends: tuple[float, float], zero: float | None = None) -> Markup:
    """A dot on its interval in a cell of a table, which has the numbers; ``zero`` is marked by a line."""
    width, height = 168, 18

    def x(number: float) -> str:
        share = (min(max(number, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0] or 1)
        return f"{5 + share * (width - 10):.1f}"

    middle = height / 2
    parts = [f'<line class="track" x1="5" x2="{width - 5}" y1="{middle}" y2="{middle}"/>']
    if zero is not None:
        parts.append(f'<line class="zero" x1="{x(zero)}" x2="{x(zero)}" y1="1" y2="{height - 1}"/>')
    parts.append(f'<line class="whisker c0" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle class="dot c0" cx="{x(value)}" cy="{middle}" r="4"/>')
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return Markup(f'<svg class="row" {size} aria-hidden="true">{"".join(parts)}</svg>')


def plot(label: str, across: Axis, up: Axis, series: Sequence[Series], diagonal: bool = False) -> Markup:
    """A chart of lines and marks with axes.

    Args:
        label: What it shows, for those who do not see it; the page has its numbers in a table.
        diagonal: Whether to draw the line on which both axes are equal.
    """

    right = _WIDTH - _RIGHT - math.ceil(max((len(one.name) for one in series), default=0) * _LETTER)

    def x(number: float) -> float:
        return _LEFT + _share(number, across) * (right - _LEFT)

    def y(number: float) -> float:
        return _TOP + (1 - _share(number, up)) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [*_grid(across, up, x, y, right)]
    if diagonal:
        ends = max(across.low, up.low), min(across.high, up.high)
        parts.append(_line([(x(end), y(end)) for end in ends], "diagonal"))
    for one in series:
        parts += _drawn(one, x, y)
    parts += _names(series, y, right)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return Markup(
        f'<svg class="chart" {size} role="group" aria-label="{escape(label)}" data-roving>{"".join(parts)}</svg>'
    )


def nice_ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most about ``most``: steps of 1, 2 or 5 times a power of ten."""
    rough = max(high - low, 1e-9) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _share(number: float, axis: Axis) -> float:
    return (min(max(number, axis.low), axis.high) - axis.low) / (axis.high - axis.low or 1)


def _grid(across: Axis, up: Axis, x: Callable[[float], float], y: Callable[[float], float], right: float) -> list[str]:
    bottom, parts = _HEIGHT - _BOTTOM, []
    for tick in nice_ticks(up.low, up.high, whole=up.whole):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(_text(_LEFT - 8, y(tick) + 4, up.text(tick), "end"))
    for tick in nice_ticks(across.low, across.high, 6, across.whole):
        parts.append(_text(x(tick), bottom + 17, across.text(tick), "middle"))
    parts.append(_text(0, 12, up.title, "start", "title"))
    parts.append(_text(right, _HEIGHT - 6, across.title, "end", "title"))
    return parts


def _drawn(one: Series, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    parts = []
    if len(one.line) > 1:
        dashed = " dashed" if one.dashed else ""
        parts.append(_line([(x(across), y(up)) for across, up in one.line], f"line c{one.colour}{dashed}"))
    for mark in one.marks:
        at, inner = x(mark.x), ""
        if mark.low is not None and mark.high is not None:
            ends = f'y1="{y(mark.low):.1f}" y2="{y(mark.high):.1f}"'
            inner = f'<line class="whisker c{one.colour}" x1="{at:.1f}" x2="{at:.1f}" {ends}/>'
        inner += f'<circle class="dot c{one.colour}" cx="{at:.1f}" cy="{y(mark.y):.1f}" r="{mark.radius:.1f}"/>'
        tip = escape(mark.tip)
        parts.append(f'<g class="mark" tabindex="0" role="img" aria-label="{tip}" data-tip="{tip}">{inner}</g>')
    return parts


def _names(series: Sequence[Series], y: Callable[[float], float], right: float) -> list[str]:
    """The names of lines at their ends, moved apart where the ends are close."""
    parts, lowest = [], math.inf
    for one in sorted((one for one in series if one.name and one.line), key=lambda one: one.line[-1][1]):
        at = min(y(one.line[-1][1]) + 4, lowest - 15)
        lowest = at
        parts.append(_text(right + 8, at, one.name, "start", f"name c{one.colour}"))
    return parts


def _line(points: Sequence[Point], names: str) -> str:
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
    return f'<polyline class="{names}" points="{path}"/>'


def _text(x: float, y: float, text: str, anchor: str, names: str = "tick") -> str:
    return f'<text class="{names}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

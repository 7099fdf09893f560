"""Reports of a comparison as text, Markdown, CSV, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.files import write_text
from ...data.palette import FAINT, PAPER, SERIES, TEXT
from ...data.text import markdown, markdown_table, printable, table
from .compare import Challenge, ClassChange, Comparison, Contestant, p_text
from .evaluation_report import between, number, rows_csv, with_sd
from .statistics import Interval
from .videos import counted_as

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

PLOTS = (".png", ".svg")
_SHOWN = 5  # most classes listed, of those that gained and of those that lost
_DRAWN = 12  # the same for the plot
_IN_NATS = "negative_log_likelihood"
_LESS_IS_BETTER = ("calibration_error", _IN_NATS)
_SIDES, _ROW = (11.5, 2.0), 0.3  # inches, width and height of a plot without rows, and height of a row


def comparison_text(comparison: Comparison) -> str:
    """Format a comparison as text: verdicts first, then the figures that they are based on."""
    blocks = [f"{printable(comparison.dataset)}, {comparison.split}: {_counted(comparison)}, the same for all"]
    blocks.append("\n".join(printable(challenge.verdict) for challenge in comparison.challenges))
    blocks.append("\n".join(table(_measures(comparison))))
    for challenge in comparison.challenges:
        tables = (_differences(comparison, challenge), _tests(comparison, challenge), _classes(comparison, challenge))
        blocks += ["\n".join(table(rows)) for rows in tables if len(rows) > 1]
    blocks.append(_basis(comparison))
    for title, lines in (
        ("differences between the networks", comparison.model_differences),
        ("Warning: other differences and limitations", comparison.cautions),
    ):
        if lines:
            blocks.append("\n".join([title, *(f"  {printable(line)}" for line in lines)]))
    return "\n\n".join(blocks)


def comparison_markdown(comparison: Comparison) -> str:
    """Format a comparison as Markdown tables."""
    blocks = [f"**{markdown(comparison.dataset)}, {comparison.split}**: {_counted(comparison)}, the same for all"]
    blocks += [markdown(challenge.verdict) for challenge in comparison.challenges]
    tables = [_measures(comparison)]
    for challenge in comparison.challenges:
        tables += [_differences(comparison, challenge), _tests(comparison, challenge), _classes(comparison, challenge)]
    blocks += [markdown_table(rows) for rows in tables if len(rows) > 1]
    blocks.append(_basis(comparison))
    for title, lines in (
        ("Differences between the networks", comparison.model_differences),
        ("Other differences and limitations", comparison.cautions),
    ):
        if lines:
            blocks.append("\n".join([f"{title}:\n", *(f"- {markdown(line)}" for line in lines)]))
    return "\n\n".join(blocks) + "\n"


def comparison_record(comparison: Comparison) -> dict[str, object]:
    """Everything that `comparison_text` says, as JSON values."""
    return {"format": "agnet comparison", "format_version": 1, **comparison.to_dict(), "basis": _basis(comparison)}


def comparison_json(comparison: Comparison) -> str:
    """Format `comparison_record` as JSON."""
    return json.dumps(comparison_record(comparison), indent=1) + "\n"


def comparison_csv(comparison: Comparison) -> str:
    """Format the accuracies by class as CSV: one row per class, one column per network in the order given.

    For retrieval, which has no classes: one row per measure.
    """
    names = [found.name for found in comparison.contestants]
    if _is_search(comparison):
        values = [
            [title, *(found.measures[name].value for found in comparison.contestants)]
            for name, title in comparison.measures.items()
        ]
        return rows_csv(["measure", *names], values)
    first = [(change.name, change.images, change.first) for change in comparison.challenges[0].classes]
    others = zip(*(challenge.classes for challenge in comparison.challenges), strict=True)
    rows = [[*row, *(change.second for change in changes)] for row, changes in zip(first, others, strict=True)]
    columns = ["class", _rows(comparison), *(f"accuracy of {name}" for name in names)]
    return rows_csv(columns, rows, comparison.dataset if comparison.aggregate else "")


def save_comparison(comparison: Comparison, path: Path) -> Path:
    """Write a comparison in the format given by the suffix of ``path``, one of `FORMATS`. Returns ``path``.

    Any other path is a folder, which gets a file ``comparison`` in each format. An existing file is replaced only once
    the new one is complete.
    """
    if path.suffix.lower() not in FORMATS:
        path.mkdir(exist_ok=True)
        for suffix in FORMATS:
            save_comparison(comparison, path / f"comparison{suffix}")
        return path
    if path.suffix.lower() in PLOTS:
        return draw_comparison(comparison, path)
    write_text(path, _TEXTS[path.suffix.lower()](comparison))
    return path


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Plot the differences of each network from the first, with intervals, and any classes that changed most.

    Each part has its verdict as a title. Colours say which network is better, if an interval does not hold 0.

    Args:
        comparison: Comparison to plot.
        path: File to write, .png or .svg.

    Returns: ``path``.
    """
    from ..runs.plots import plot, save_plot

    width = _SIDES[0] / (2 if _is_search(comparison) else 1)
    heights = [
        _SIDES[1] + _ROW * max(len(comparison.measures), len(_changed(found, _DRAWN)))
        for found in comparison.challenges
    ]
    with plot(width, sum(heights)) as figure:
        figure.set_layout_engine("constrained")
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
        for part, challenge in zip(parts[:, 0], comparison.challenges, strict=True):
            _draw_challenge(part, comparison, challenge, width)
        return save_plot(figure, path)


def _draw_challenge(part: SubFigure, comparison: Comparison, challenge: Challenge, width: float) -> None:
    from ..runs.plot_texts import paragraph

    points = [name for name in comparison.measures if name != _IN_NATS]
    nats = [_IN_NATS] if _IN_NATS in comparison.measures else []
    columns = 1 if _is_search(comparison) else 2
    grid = part.add_gridspec(1 + len(nats), columns, height_ratios=[len(points), *(1.0 for _ in nats)])
    unit = "difference in {}, with 95% interval"
    _draw_differences(part.add_subplot(grid[0, 0]), comparison, challenge, points, unit.format("points"))
    if nats:
        _draw_differences(part.add_subplot(grid[1, 0]), comparison, challenge, nats, unit.format("nats"))
    if columns > 1:
        _draw_classes(part.add_subplot(grid[:, 1]), comparison, challenge)
    about = (
        f"{comparison.dataset}, {comparison.split}: {_counted(comparison)}; {challenge.second} minus {challenge.first}"
    )
    (verdict, family), (said, others) = (
        paragraph(challenge.verdict, 10.5, width - 0.3, 3),
        paragraph(about, 10.5, width - 0.3, 2),
    )
    title = f"{verdict[:1].upper()}{verdict[1:]}\n{said}"
    part.suptitle(
        title, x=0.01, ha="left", fontsize=10.5, family=[*dict.fromkeys([*family, *others])], parse_math=False
    )
    _draw_key(part, challenge)


def _draw_key(part: SubFigure, challenge: Challenge) -> None:
    """Say below the plots what the colours mean."""
    from matplotlib.lines import Line2D

    from ..runs.plot_texts import line

    (first, family), (second, others) = line(challenge.first, 8.5, 3), line(challenge.second, 8.5, 3)
    said = (f"{second} is better", f"{first} is better", "the interval holds 0")
    dots = [Line2D([], [], linestyle="", **_dot(colour)) for colour in (SERIES[1], SERIES[0], FAINT)]
    family = [*dict.fromkeys([*family, *others])]
    key = part.legend(
        dots, said, loc="outside lower left", ncols=3, frameon=False, prop={"family": family, "size": 8.5}
    )
    for text in key.get_texts():
        text.set_parse_math(False)


def _draw_differences(
    axes: Axes, comparison: Comparison, challenge: Challenge, names: Sequence[str], unit: str
) -> None:
    """Draw a row for each of the measures in ``names``."""
    scale = 1 if _IN_NATS in names else 100
    for place, name in enumerate(names):
        found = challenge.differences[name]
        _draw_dot(axes, place, found.value, found.interval, scale, less_is_better=name in _LESS_IS_BETTER)
    titles = [f"{comparison.measures[name]}{', less is better' * (name in _LESS_IS_BETTER)}" for name in names]
    _finish_rows(axes, titles, unit)


def _draw_classes(axes: Axes, comparison: Comparison, challenge: Challenge) -> None:
    from ..runs.plot_texts import class_labels

    changed = _changed(challenge, _DRAWN)
    labels, family = class_labels([change.name for change in challenge.classes], 8.5)
    drawn = {change.name: label for change, label in zip(challenge.classes, labels, strict=True)}
    for place, change in enumerate(changed):
        if change.difference_interval is not None:
            _draw_dot(axes, place, _gain(change), change.difference_interval, 100)
    names = [f"{drawn[change.name]} ({change.images})" for change in changed]
    _finish_rows(axes, names, "difference in accuracy in points, 95% interval of the class alone", family)
    several = (
        f"{len(changed)} of {len(challenge.classes)} classes" if len(changed) < len(challenge.classes) else "classes"
    )
    axes.set_title(f"{several} by change (number of {_rows(comparison)})", fontsize=9.5)


def _draw_dot(
    axes: Axes, place: int, value: float, interval: Interval, scale: float, less_is_better: bool = False
) -> None:
    """Draw a difference and its interval in row ``place``, in the colour of the better network if 0 is outside."""
    ends, colour = [scale * interval.low, scale * interval.high], FAINT
    if interval.low > 0 or interval.high < 0:
        colour = SERIES[int((interval.low > 0) != less_is_better)]
    axes.plot(ends, [place, place], color=colour, linewidth=1.6)
    axes.plot(scale * value, place, **_dot(colour))


def _dot(colour: str) -> dict[str, Any]:
    """Properties of a dot, which is hollow if its interval holds 0."""
    return {"marker": "o", "markersize": 6, "color": colour, "markerfacecolor": PAPER if colour == FAINT else colour}


def _finish_rows(axes: Axes, names: Sequence[str], unit: str, family: Sequence[str] | None = None) -> None:
    axes.axvline(0, color=TEXT, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(names)), names, fontsize=8.5, family=family, parse_math=False)
    axes.tick_params(axis="y", length=0, labelcolor=TEXT)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel(unit)


_TEXTS: dict[str, Callable[[Comparison], str]] = {
    ".md": comparison_markdown,
    ".csv": comparison_csv,
    ".json": comparison_json,
}
FORMATS = (*PLOTS, *_TEXTS)


def _measures(comparison: Comparison) -> list[list[str]]:
    rows = [["", *(_named(found) for found in comparison.contestants)]]
    for name, title in comparison.measures.items():
        cells = []
        for found in comparison.contestants:
            measured = found.measures[name]
            value = number(name, measured.value) if measured.sd is None else with_sd(name, measured.value, measured.sd)
            cells.append(f"{value} ({between(name, measured.interval)})")
        rows.append([title, *cells])
    return rows


def _named(found: Contestant) -> str:
    return found.name if len(found.seeds) == 1 else f"{found.name} ({len(found.seeds)} seeds)"


def _differences(comparison: Comparison, challenge: Challenge) -> list[list[str]]:
    rows = [[f"{challenge.second} minus {challenge.first}", "difference", "95% interval"]]
    for name, title in comparison.measures.items():
        found = challenge.differences[name]
        ends = f"{_signed(name, found.interval.low)} to {_signed(name, found.interval.high)}"
        rows.append([title, _signed(name, found.value), ends])
    return rows


def _signed(measure: str, value: float) -> str:
    return f"{value:+.3f}" if measure == "negative_log_likelihood" else f"{100 * value:+.2f}"


def _tests(comparison: Comparison, challenge: Challenge) -> list[list[str]]:
    one = "query" if _is_search(comparison) else _rows(comparison).removesuffix("s")
    rows = [[f"{one} by {one}", "both right", "only first right", "only second right", "both wrong", "McNemar p"]]
    for test in challenge.tests:
        counts = (test.both_right, test.only_first, test.only_second, test.both_wrong)
        seeds = f"seeds {test.first_seed} and {test.second_seed}"
        rows.append([seeds, *(f"{count:,}" for count in counts), p_text(test.p)])
    return rows


def _classes(comparison: Comparison, challenge: Challenge) -> list[list[str]]:
    rows = [["classes that changed most", _rows(comparison), "first", "second", "difference"]]
    for change in _changed(challenge, _SHOWN):
        shares = [f"{share:.1%}" for share in (change.first, change.second) if share is not None]
        rows.append([change.name, f"{change.images}", *shares, f"{100 * _gain(change):+.1f}"])
    return rows


def _changed(challenge: Challenge, most: int) -> list[ClassChange]:
    """The classes that gained most, then those that lost most; at most ``most`` of each."""
    ordered = sorted(challenge.classes, key=_gain, reverse=True)
    gained = [change for change in ordered if _gain(change) > 0][:most]
    return gained + [change for change in ordered if _gain(change) < 0][-most:]


def _gain(change: ClassChange) -> float:
    if change.first is None or change.second is None:
        return 0.0
    return round(change.second - change.first, 9)  # equal means over seeds may differ in the last digit


def _is_search(comparison: Comparison) -> bool:
    return "map" in comparison.measures


def _rows(comparison: Comparison) -> str:
    return counted_as(bool(comparison.aggregate))


def _counted(comparison: Comparison) -> str:
    if comparison.aggregate:
        return f"{comparison.images:,} {_rows(comparison)} by {comparison.aggregate}"
    return f"{comparison.images:,} {'queries with a match' if _is_search(comparison) else _rows(comparison)}"


def _basis(comparison: Comparison) -> str:
    over, how = _rows(comparison), "; other measures: bootstrap with 1,000 resamples"
    if _is_search(comparison):  # has no other measures than shares, and averages of values in [0, 1]
        over, how = "queries", ""
    if all(len(found.seeds) == 1 for found in comparison.contestants):
        return (
            f"95% intervals are over {over}, paired for differences (shares: Wilson, differences of shares: Bonett and "
            f"Price{how}). The results hold for these trained networks only; other seeds may give different results "
            "(agnet train --seeds)."
        )
    return (
        f"95% intervals are over {over}, paired for differences with the seeds fixed, and over seeds: the variance of "
        "each network's mean over its seeds is added (Student's t; shares: Wilson). Each McNemar test is for one "
        "pair of seeds."
    )

"""Reports of a comparison as text, Markdown, CSV and a plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.files import write_text
from ...data.text import markdown, markdown_table, printable, table
from .compare import Challenge, ClassChange, Comparison, Contestant, p_text
from .evaluation_report import between, number, rows_csv, with_sd
from .videos import counted_as

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 5  # most classes listed, of those that gained and of those that lost
_DRAWN = 12  # the same for the plot
_UNPLOTTED = ("calibration_error", "negative_log_likelihood")  # of which less is better


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

    An existing file is replaced only once the new one is complete.
    """
    if path.suffix.lower() == ".png":
        return draw_comparison(comparison, path)
    write_text(path, _TEXTS[path.suffix.lower()](comparison))
    return path


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Plot the differences of each network from the first, with intervals, and any classes that changed most."""
    from matplotlib.figure import Figure

    from .evaluation_plots import save_figure

    rows, columns = len(comparison.challenges), 1 if _is_search(comparison) else 2
    figure = Figure(figsize=(5.5 * columns, 4.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, challenge in zip(panels, comparison.challenges, strict=True):
        _draw_differences(row[0], comparison, challenge)
        if columns > 1:
            _draw_classes(row[1], comparison, challenge)
    return save_figure(figure, path)


def _draw_differences(axes: Axes, comparison: Comparison, challenge: Challenge) -> None:
    from ..runs.plot_texts import line

    names = [name for name in comparison.measures if name not in _UNPLOTTED]
    for place, difference in enumerate(challenge.differences[name] for name in names):
        ends = [100 * difference.interval.low, 100 * difference.interval.high]
        axes.plot(ends, [place, place], color="#4363d8", linewidth=2)
        axes.plot(100 * difference.value, place, "o", color="#4363d8")
    axes.axvline(0, color="#6b6b6b", linewidth=1)
    axes.set_yticks(range(len(names)), [comparison.measures[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("difference in points, with 95% interval")
    (second, family), (first, others) = line(challenge.second, 10, 5), line(f"minus {challenge.first}", 10, 4)
    dataset, its = line(comparison.dataset if comparison.aggregate else "", 10, 5)
    title = "\n".join([*([dataset] if dataset else []), second, f"{first}, {_counted(comparison)}"])
    axes.set_title(title, fontsize=10, family=[*dict.fromkeys([*family, *others, *its])], parse_math=False)


def _draw_classes(axes: Axes, comparison: Comparison, challenge: Challenge) -> None:
    from ..runs.plot_texts import class_labels

    changed = _changed(challenge, _DRAWN)
    labels, family = class_labels([change.name for change in challenge.classes], 8)
    drawn = {change.name: label for change, label in zip(challenge.classes, labels, strict=True)}
    names = [f"{drawn[change.name]} ({change.images})" for change in changed]
    gains = [100 * _gain(change) for change in changed]
    axes.barh(range(len(gains)), gains, color=["#2e8b57" if gain > 0 else "#c0392b" for gain in gains])
    axes.set_yticks(range(len(gains)), names, fontsize=8, family=family, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="#6b6b6b", linewidth=1)
    axes.set_xlabel("difference in accuracy, in points")
    axes.set_title(f"classes that changed most (number of {_rows(comparison)})", fontsize=10)


_TEXTS: dict[str, Callable[[Comparison], str]] = {".md": comparison_markdown, ".csv": comparison_csv}
FORMATS = (".png", *_TEXTS)


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

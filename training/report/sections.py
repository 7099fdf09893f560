"""The charts and cells of each section of the page, made from its facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ...data.text import percent, printable
from ..measure.evaluation_report import number
from ..measure.statistics import wilson_interval
from .charts import Axis, Mark, Series, interval, plot
from .facts import ClassFacts, Classified, Facts
from .words import has_cross_entropy, signed

MOST_CLASSES = 40  #: most classes whose matrix is shown at once
MOST_CELLS = 150  #: most classes whose matrix is on the page at all
MOST_PAIRS = 30
MOST_MARKS = 60  #: most epochs that are marked one by one
UNBOUNDED = ("negative_log_likelihood",)  #: measures that are no shares
LOWER_IS_BETTER = ("calibration_error", "negative_log_likelihood")
_SHARE = "{:.0%}".format


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix."""

    count: int
    step: int  #: of the colour scale, 0 to 5
    tip: str


def matrix(facts: Facts) -> list[list[Cell]]:
    """The confusion matrix; right and wrong answers have a colour scale each, so that few errors are visible."""
    assert facts.classified is not None
    counts = facts.classified.confusion
    wrong = max((n for true, taken, n in facts.classified.pairs), default=1)
    lines = []
    for true, line in enumerate(counts.tolist()):
        total = sum(line)
        cells = []
        for taken, n in enumerate(line):
            step = round(5 * (n / max(total, 1) if true == taken else n / wrong))
            cells.append(Cell(n, min(step, 5), pair_text(facts, true, taken) if n else ""))
        lines.append(cells)
    return lines


def pair_text(facts: Facts, true: int, taken: int) -> str:
    """Count and interval of a cell of the matrix, in words."""
    assert facts.classified is not None
    n, total, names = (
        int(facts.classified.confusion[true, taken]),
        facts.classified.confusion[true].sum(),
        facts.class_names,
    )
    held = wilson_interval(n / total, total)
    did = "right" if true == taken else f"taken for {names[taken]}"
    ends = f"95% {percent(held.low)} to {percent(held.high)}"
    return printable(f"{n:,} of {total:,} {facts.called} of {names[true]} {did}: {percent(n / total)} ({ends})")


def of_class(one: ClassFacts) -> Markup:
    return interval(one.right / one.images, one.interval.low, one.interval.high, (0.0, 1.0))


def calibration(found: Classified, called: str) -> Markup:
    """Accuracy against probability: a dot a bin, its area by its rows."""
    bins = [(one, one.interval) for one in found.metrics.calibration if one.interval is not None]
    most = max((one.images for one, _ in bins), default=1)
    marks = [
        Mark(
            x=one.confidence or 0.0,
            y=one.accuracy or 0.0,
            low=held.low,
            high=held.high,
            radius=3 + 8 * (one.images / most) ** 0.5,
            tip=f"mean probability {percent(one.confidence or 0.0)}: {round((one.accuracy or 0.0) * one.images)} of "
            f"{one.images} {called} right (95% {percent(held.low)} to {percent(held.high)})",
        )
        for one, held in bins
    ]
    axes = Axis("mean probability of the answer", 0, 1, _SHARE), Axis("accuracy", 0, 1, _SHARE)
    return plot("Accuracy against the probability of the answer", *axes, [Series("", marks=marks)], diagonal=True)


def coverage(found: Classified, called: str) -> Markup:
    """Accuracy of the surest answers against their share, with a mark for each threshold of the table."""
    marks = [
        Mark(
            x=one.coverage,
            y=one.accuracy,
            low=one.interval.low,
            high=one.interval.high,
            tip=f"probability from {percent(one.threshold, 0)}: {round(one.accuracy * one.images)} of {one.images} "
            f"{called} right ({percent(one.accuracy)}), {percent(one.coverage)} answered",
        )
        for one in found.sure
    ]
    line = [(one.coverage, one.accuracy) for one in found.metrics.coverage]
    low = min([*(up for _, up in line), *(mark.low or 0.0 for mark in marks)])
    axes = Axis(f"share of {called} answered, the surest first", 0, 1, _SHARE), Axis("accuracy", _below(low), 1, _SHARE)
    return plot("Accuracy against the share answered", *axes, [Series("", line, marks)])


def _below(share: float) -> float:
    """A round share at or below this one."""
    return max(0.0, int(share * 10) / 10)


def cmc(curve: Sequence[float]) -> Markup:
    """CMC: share of queries with a match among the first k."""
    marks = [
        Mark(k, curve[k - 1], f"a match among the first {k}: {percent(curve[k - 1])} of queries")
        for k in (1, 5, 10, 20, 50)
        if k <= len(curve)
    ]
    line = [(float(k), share) for k, share in enumerate(curve, 1)]
    axes = Axis("rank", 1, max(len(curve), 2), whole=True), Axis("queries with a match", _below(min(curve)), 1, _SHARE)
    return plot("Share of queries with a match among the first k images", *axes, [Series("", line, marks)])


def training(facts: Facts) -> Iterator[tuple[str, Markup]]:
    """Charts of loss and accuracy over the epochs, by heading; a line a seed."""
    for title, key, form in (("Loss", "loss", "{:g}".format), ("Accuracy", "top1", _SHARE)):
        of_training = "train_cross_entropy" if key == "loss" and has_cross_entropy(facts) else f"train_{key}"
        series = [one for k, name in enumerate((of_training, f"val_{key}")) for one in _curves(facts, name, k)]
        if key == "top1" and not any(one.colour for one in series):
            series += list(_curves(facts, "val_map", 1))
        if not series:
            continue
        values = [up for one in series for _, up in one.line]
        epochs = max(across for one in series for across, _ in one.line)
        up = (
            Axis(title.lower(), _below(min(values)), 1, form)
            if key == "top1"
            else Axis(title.lower(), 0, max(values), form)
        )
        yield title, plot(f"{title} over the epochs", Axis("epoch", 1, max(epochs, 2), whole=True), up, series)


def _curves(facts: Facts, key: str, colour: int) -> Iterator[Series]:
    """A line a seed of a value of the log, the first one with the name; with marks where there is one seed."""
    name = {"val_map": "validation mAP"}.get(key, "training" if key.startswith("train") else "validation")
    form = percent if key.endswith(("top1", "map")) else "{:.3f}".format
    for log in facts.logs:
        points = [(float(line["epoch"]), float(line[key])) for line in log if type(line.get(key)) in (int, float)]
        marked = points if len(facts.logs) == 1 and len(points) <= MOST_MARKS else []
        marks = [Mark(x, y, f"{name}, epoch {x:g}: {form(y)}", radius=3.0) for x, y in marked]
        if points:
            yield Series(name, points, marks, colour, dashed=colour == 0)
        name = "" if points else name


_ORDERS = {"random": "random orders", "centre": "nearest to the centre first", "boxes": "its regions, all alike"}
_SAID = {True: "better", False: "worse", None: "no better here"}


def proof(fills: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Markup, str]]:
    """Rows of the proof: direction, fill, the other order, the chart of the difference, and the difference in words."""
    ends = _ends(fills)
    for fill, found in fills.items():
        for kind in ("deletion", "insertion"):
            for order, one in (found.get(f"{kind}_minus") or {}).items():
                mean, low, high = (float(one[name]) for name in ("mean", "low", "high"))
                text = signed(f"{mean:+.3f} ({low:+.3f} to {high:+.3f}), {_SAID.get(one.get('better'), '')}")
                yield kind, fill, _ORDERS.get(order, order), interval(mean, low, high, ends, 0.0), text


def _ends(fills: Mapping[str, Any]) -> tuple[float, float]:
    numbers = [
        abs(float(one[name]))
        for found in fills.values()
        for kind in ("deletion_minus", "insertion_minus")
        for one in (found.get(kind) or {}).values()
        for name in ("low", "high")
    ]
    most = max([0.01, *numbers])
    return -most, most


def difference(value: float, held: Mapping[str, float], most: float) -> Markup:
    """A difference of two runs on its interval."""
    return interval(value, held["low"], held["high"], (-most, most), 0.0)


@dataclass(frozen=True)
class Change:
    """A row of the comparison: a measure or a class of both runs, and the difference of the second from the first."""

    name: str
    first: str
    second: str
    chart: Markup
    difference: str


def differences(facts: Facts) -> Iterator[Change]:
    """The measures of two runs, and their differences with intervals; shares in points on one scale."""
    assert facts.comparison is not None
    found, (one, two) = facts.comparison["challenges"][0]["differences"], facts.comparison["contestants"]
    shares = [name for name in found if name not in UNBOUNDED]
    widest = max(abs(found[name]["interval"][end]) for name in shares for end in ("low", "high"))
    for name, change in found.items():
        held = change["interval"]
        scale, form = (1.0, "{:+.3f}") if name in UNBOUNDED else (100.0, "{:+.1f}")
        most = widest if name not in UNBOUNDED else max(abs(held["low"]), abs(held["high"]))
        low, high = (form.format(scale * held[end]) for end in ("low", "high"))
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        yield Change(
            facts.comparison["measures"][name] + better,
            number(name, one["measures"][name]["value"]),
            number(name, two["measures"][name]["value"]),
            difference(change["value"], held, most or 1.0),
            signed(f"{form.format(scale * change['value'])} ({low} to {high})"),
        )


def changed_classes(facts: Facts, most: int = 12) -> list[Change]:
    """The classes whose accuracy differs most between two runs, each with the interval of its difference."""
    assert facts.comparison is not None
    known = [one for one in facts.comparison["challenges"][0]["classes"] if one["second"] != one["first"]]
    known.sort(key=lambda one: -abs(one["second"] - one["first"]))
    return [_changed_class(one) for one in known[:most]]


def _changed_class(one: Mapping[str, Any]) -> Change:
    change, held = one["second"] - one["first"], one["difference_interval"]
    said = signed(f"{100 * change:+.1f} ({100 * held['low']:+.0f} to {100 * held['high']:+.0f})")
    name = f"{one['name']} ({one['images']:,})"
    return Change(name, percent(one["first"]), percent(one["second"]), difference(change, held, 1.0), said)


def columns(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a log says of its epochs, in its order: numbers only."""
    names = dict.fromkeys(name for line in log for name, value in line.items() if type(value) in (int, float))
    return [name for name in names if name != "epoch"]


def logged(name: str, value: object) -> str:
    """A number of the log as text: accuracies in per cent."""
    if type(value) not in (int, float):
        return ""
    return percent(float(str(value))) if name.endswith(("top1", "map", "cmc1")) else f"{value:.4g}"

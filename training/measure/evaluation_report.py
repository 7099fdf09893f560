"""Reports of an evaluation as text and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from ...data.text import csv_text, percent, table
from ..titles import CLIP_MEASURES as CLIP_TITLES
from ..titles import between as between
from ..titles import number as number
from .claims import Claim
from .metrics import MEASURES, Metrics
from .statistics import Interval, Spread
from .videos import VIDEO_ACCURACY

_ALL_CLASSES = 40  # most classes that the text lists in full
_WORST = 10
_SUREST = (0.5, 0.8)  # shares of the images, the most confident ones, whose accuracy the text tells

_CLASS_COLUMNS = (
    *("class", "images", "accuracy", "average_precision", "most_taken_for", "images_taken_for_it"),
    *("accuracy_low", "accuracy_high"),
)
_VIDEO_COLUMNS = (
    *("class", "videos", "video_accuracy", "average_precision", "most_taken_for", "videos_taken_for_it"),
    *("video_accuracy_low", "video_accuracy_high"),
)
_SEEDS_COLUMNS = (
    *("class", "images", "accuracy_mean", "accuracy_sd", "average_precision_mean", "average_precision_sd"),
)
_SEEDS_VIDEO_COLUMNS = (
    *("class", "videos", "video_accuracy_mean", "video_accuracy_sd"),
    *("average_precision_mean", "average_precision_sd"),
)


def metrics_text(metrics: Metrics, claim: Claim | None) -> str:
    """Format an evaluation as text: measures with their intervals and the paper's claims, the most frequent confusions,
    and a table of classes.

    The table lists all classes, or the least accurate ones if there are more than 40.
    """
    rows = [["", "value", f"95% interval over {metrics.rows}", *_claim_title(claim)]]
    for name, title in titles(metrics).items():
        ours = number(name, metrics.value(name)), between(name, metrics.interval(name))
        rows.append([title, *ours, *_claimed(name, claim)])
    lines = [*table(rows), *_claim_note(claim), *_clips_note(metrics), *_confidence_notes(metrics), ""]
    confused = confusions(metrics)[:_WORST]
    if confused:
        rows = [[f"  {true}", f"predicted as {taken}", said] for true, taken, said in confused]
        lines += ["most frequent confusions", *table(rows), ""]
    present = [name for name, accuracy in metrics.class_accuracy.items() if accuracy is not None]
    shown, title = present, "class"
    if len(present) > _ALL_CLASSES:
        shown = sorted(present, key=lambda name: metrics.class_accuracy[name] or 0)[:_WORST]
        title = f"class (the {_WORST} worst of {len(present)})"
    rows = [[title, metrics.rows, "accuracy", "95% interval", "AP"]]
    for name in shown:
        accuracy, precision = metrics.class_accuracy[name], metrics.average_precision[name]
        interval = _short_interval(metrics.class_intervals[name])
        rows.append([name, str(metrics.class_images[name]), _percent(accuracy), interval, _percent(precision)])
    return "\n".join([*lines, *table(rows)])


def seeds_text(seeds: Mapping[str, Metrics], spreads: Mapping[str, Spread], claim: Claim | None) -> str:
    """Format mean ± sd of the measures over single runs, and the values of each run, as text. Keys are run names."""
    first = next(iter(seeds.values()))
    rows = [["", "mean ± sd", "95% interval", *seeds, *_claim_title(claim)]]
    for name, title in titles(first).items():
        values = [number(name, metrics.value(name)) for metrics in seeds.values()]
        rows.append([title, *spread_texts(name, spreads[name]), *values, *_claimed(name, claim)])
    note = f"95% interval: confidence interval of the mean, over {first.rows} and seeds"
    return "\n".join([*table(rows), note, *_claim_note(claim), *_clips_note(first)])


def titles(metrics: Metrics) -> dict[str, str]:
    """Measures of an evaluation, and their names in reports: those of videos first say what they are of."""
    if metrics.clips is None:
        return MEASURES
    of_clips = {name: CLIP_TITLES[name] for name in metrics.clips.values}
    return {"top1": VIDEO_ACCURACY, **of_clips, **{name: title for name, title in MEASURES.items() if name != "top1"}}


def _clips_note(metrics: Metrics) -> list[str]:
    return metrics.clips.notes if metrics.clips else []


def _confidence_notes(metrics: Metrics) -> list[str]:
    """The sign of the miscalibration, and how right the network is where it is surest, as lines."""
    surest = []
    for share in _SUREST:
        point = next(found for found in metrics.coverage if found.coverage >= share)
        surest.append(f"{percent(point.accuracy)} of the surest {point.coverage:.0%} (from {point.threshold:.2f})")
    return [
        f"confidence: {metrics.miscalibration.text}",
        f"right by confidence: {', '.join(surest)}, {percent(metrics.top1)} of all {metrics.rows}",
    ]


def _short_interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{percent(interval.low).removesuffix('%')} to {percent(interval.high)}"


def confusions(metrics: Metrics) -> list[tuple[str, str, str]]:
    """List all confusions as (true class, predicted class, "k of n"), the most frequent first."""
    names, matrix = list(metrics.class_images), np.array(metrics.confusion)
    wrong = matrix * (1 - np.eye(len(names), dtype=matrix.dtype))
    pairs = sorted(zip(*np.nonzero(wrong), strict=True), key=lambda pair: -wrong[pair])
    totals = matrix.sum(axis=1)
    return [(names[true], names[taken], f"{wrong[true, taken]} of {totals[true]}") for true, taken in pairs]


def metrics_csv(metrics: Metrics, title: str = "") -> str:
    """Format the results by class as CSV, one row per class in order; values that a class lacks are empty.

    ``title``: title of the data set, which is a column of results on videos, since it says whether test clips leak.
    """
    names, rows = list(metrics.class_images), []
    for name, line in zip(names, metrics.confusion, strict=True):
        others = [0 if other == name else count for other, count in zip(names, line, strict=True)]
        most = max(others, default=0)
        taken = [names[others.index(most)], most] if most else ["", ""]
        interval = metrics.class_intervals[name]
        ends = [interval.low, interval.high] if interval else [None, None]
        rows.append([name, sum(line), metrics.class_accuracy[name], metrics.average_precision[name], *taken, *ends])
    return rows_csv(_VIDEO_COLUMNS, rows, title) if metrics.clips else rows_csv(_CLASS_COLUMNS, rows)


def seeds_csv(seeds: Sequence[Metrics], title: str = "") -> str:
    """Format the results by class over several seeds as CSV: mean and sd (n - 1; empty for a single seed).

    ``title``: as for `metrics_csv`.
    """
    rows = []
    for name, images in seeds[0].class_images.items():
        row: list[object] = [name, images]
        for values in ([m.class_accuracy[name] for m in seeds], [m.average_precision[name] for m in seeds]):
            known = [value for value in values if value is not None]
            row += [mean(known) if known else None, stdev(known) if len(known) > 1 else None]
        rows.append(row)
    return rows_csv(_SEEDS_VIDEO_COLUMNS, rows, title) if seeds[0].clips else rows_csv(_SEEDS_COLUMNS, rows)


def rows_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """Format rows as CSV with a header line; floats have six significant digits. A ``title`` is the last column."""
    short = ([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    name, value = (["data_set"], [title]) if title else ([], [])
    return csv_text([[*columns, *name], *([*row, *value] for row in short)])


def with_sd(measure: str, mean: float, sd: float) -> str:
    """Format ``mean ± sd``."""
    return f"{number(measure, mean).removesuffix('%')} ± {number(measure, sd)}"


def spread_texts(measure: str, found: Spread) -> tuple[str, str]:
    """Format ``mean ± sd``, or the only value, and the interval, which is empty if unknown."""
    value = number(measure, found.mean) if found.sd is None else with_sd(measure, found.mean, found.sd)
    if found.low is None or found.high is None:
        return value, ""
    return value, between(measure, Interval(found.low, found.high))


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


def _claim_title(claim: Claim | None) -> list[str]:
    return [] if claim is None else ["the paper's claim"]


def _claimed(measure: str, claim: Claim | None) -> list[str]:
    if claim is None:
        return []
    value = {"top1": claim.top1, "mean_average_precision": claim.mean_average_precision}.get(measure)
    return ["" if value is None else number(measure, value)]


def _claim_note(claim: Claim | None) -> list[str]:
    return [] if claim is None else [f"the paper's claim: {claim.of}; no independent reproduction is known"]

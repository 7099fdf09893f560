"""Reports of a retrieval evaluation as text and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from ...data.text import table
from .evaluation_report import between, number, rows_csv, spread_texts
from .searches import SEARCH_MEASURES, SearchMetrics
from .statistics import Spread


def search_text(metrics: SearchMetrics) -> str:
    """Format an evaluation as text: measures with their intervals, what was searched, and the protocol."""
    rows = [["", "value", "95% interval over queries"]]
    for name, title in SEARCH_MEASURES.items():
        rows.append([title, number(name, getattr(metrics, name)), between(name, metrics.intervals[name])])
    return "\n".join([*table(rows), *_about(metrics)])


def search_seeds_text(seeds: Mapping[str, SearchMetrics], spreads: Mapping[str, Spread]) -> str:
    """Format mean ± sd of the measures over single runs, and the values of each run, as text. Keys are run names."""
    rows = [["", "mean ± sd", "95% interval", *seeds]]
    for name, title in SEARCH_MEASURES.items():
        values = [number(name, getattr(metrics, name)) for metrics in seeds.values()]
        rows.append([title, *spread_texts(name, spreads[name]), *values])
    note = "95% interval: confidence interval of the mean, over queries and seeds"
    return "\n".join([*table(rows), note, *_about(next(iter(seeds.values())))])


def search_heading(title: str, split: str, metrics: SearchMetrics) -> str:
    """Describe in a line what was searched; ``title`` is the data set's, and names its protocol if it has several."""
    left_out = f" ({metrics.queries_left_out:,} more have no match)" if metrics.queries_left_out else ""
    return f"{title}, {split}: {metrics.queries:,} queries{left_out} in {metrics.gallery_images:,} images"


def search_csv(seeds: Sequence[SearchMetrics]) -> str:
    """Format mAP and the CMC of ranks 1 to 50 as CSV, a row for each: its value, or over several seeds mean and sd."""
    rows = {SEARCH_MEASURES["map"]: [metrics.map for metrics in seeds]}
    for k in range(len(seeds[0].cmc)):
        rows[f"CMC@{k + 1}"] = [metrics.cmc[k] for metrics in seeds]
    if len(seeds) == 1:
        return rows_csv(["measure", "value"], [[title, *values] for title, values in rows.items()])
    return rows_csv(["measure", "mean", "sd"], [[title, mean(found), stdev(found)] for title, found in rows.items()])


def _about(metrics: SearchMetrics) -> list[str]:
    cameras = f"{metrics.cameras} cameras" if metrics.cameras else "unknown cameras"
    return [
        f"{metrics.persons:,} persons, {cameras}; {metrics.distractors:,} images of persons in no query",
        f"protocol: {metrics.protocol}",
    ]

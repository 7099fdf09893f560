"""Summaries over the seeds of a run: validation results of training, and metrics on a split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data.errors import MismatchError
from ...data.files import write_text
from ...data.text import percent
from ..runs.folder import chosen_line, read_config
from ..tasks import SHARE, TASKS
from ..titles import CLIP_MEASURES as CLIP_TITLES
from .evaluation import Evaluation
from .evaluation_report import seeds_csv
from .intervals import measure_intervals
from .metrics import MEASURES, Metrics
from .predictions import QueryResults, SplitPredictions
from .search_report import search_csv
from .searches import SEARCH_MEASURES, SearchMetrics
from .statistics import Interval, Spread, bootstrap, share_interval_of_means, spread

TRAINING = "seeds.json"  #: file in the folder that holds the single runs

# Shares, such as accuracy, come first.
_MEASURES = {
    f"val_{measure.name}": measure
    for task in TASKS
    for measure in sorted(task.measures, key=lambda one: one.unit != SHARE)
}


@dataclass(frozen=True)
class SeedsEvaluation:
    """Metrics of the seeds of a run, and the file that their summary was written to."""

    evaluations: dict[str, Evaluation]  #: by folder name of the single run
    spreads: dict[str, Spread]  #: by name of the measure; intervals over images (or queries) and seeds
    file: Path


def summarise_training(run: Path, folders: Sequence[Path]) -> list[str]:
    """Write `TRAINING`: validation results of the chosen epochs, and their spread over seeds. Returns text lines.

    Intervals of accuracy are over images and seeds, those of the loss over seeds only, because the log does not record
    how the loss varies over images.
    """
    chosen = {folder.name: chosen_line(folder) for folder in folders}
    counts: Any = read_config(folders[0])["boxes"].get("images", {})
    images = int(counts.get("val", 0))
    # A run lacks values without a validation split, or before its first epoch is finished.
    names = [name for name in _MEASURES if all(name in line for line in chosen.values())]
    values = {name: [float(line[name]) for line in chosen.values()] for name in names}
    intervals = {name: share_interval_of_means(values[name], images) for name in names if _is_share(name)}
    figures = _spreads(values, intervals)
    for name, found in figures.items():
        if not _is_share(name) and found.low is not None:
            figures[name] = replace(found, low=max(found.low, 0.0))
    content = {"runs": chosen, "figures": {name: asdict(found) for name, found in figures.items()}}
    write_text(run / TRAINING, json.dumps(content, indent=1) + "\n")
    return [
        f"{name} of {found.n} seed{'s' if found.n > 1 else ''}: {_text(name, found, images)}"
        for name, found in figures.items()
    ]


def summarise_evaluations(run: Path, evaluations: dict[str, Evaluation]) -> SeedsEvaluation:
    """Summarise evaluations of single runs that differ in their seed: mean and sd over seeds, and intervals.

    The summary is written as JSON and CSV into ``run``, the folder that holds the single runs.

    Raises: `MismatchError` when their classes differ.
    """
    each = [found.metrics for found in evaluations.values()]
    measured_on = {
        tuple(metrics.class_images) if isinstance(metrics, Metrics) else (metrics.queries, metrics.gallery_images)
        for metrics in each
    }
    if len(measured_on) > 1:
        what = "classes" if isinstance(each[0], Metrics) else "queries or galleries"
        raise MismatchError(f"the runs in {run} have different {what}: they are not seeds of one network")
    values = _values(each)
    intervals = _joint_intervals([found.predictions for found in evaluations.values() if found.predictions])
    # Student's t of a few seeds would leave out the videos, over which clip and frame accuracy have no joint interval.
    spreads = _spreads(values, intervals)
    for name in CLIP_TITLES.keys() & spreads.keys():
        spreads[name] = replace(spreads[name], low=None, high=None)
    first = next(iter(evaluations.values()))
    target = run / first.file.name
    content = {
        "runs": list(evaluations),
        "images": first.metrics.images,
        **_of_videos(first),
        "papers_claim": first.claim and asdict(first.claim),
        **{name: {**asdict(spreads[name]), "values": values[name]} for name in values},
    }
    write_text(target.with_suffix(".csv"), _csv(each, _of_videos(first).get("title", "")))
    write_text(target, json.dumps(content, indent=1) + "\n")
    return SeedsEvaluation(evaluations, spreads, target)


def _values(each: Sequence[Metrics | SearchMetrics]) -> dict[str, list[float]]:
    """Values of every measure by its name, and of clip and frame accuracy if all runs have them."""
    values = {}
    for name in SEARCH_MEASURES if isinstance(each[0], SearchMetrics) else MEASURES:
        values[name] = [float(getattr(metrics, name)) for metrics in each]
    clips = [metrics.clips.values for metrics in each if isinstance(metrics, Metrics) and metrics.clips]
    for name in CLIP_TITLES:
        if clips and all(name in found for found in clips):
            values[name] = [found[name] for found in clips]
    return values


def _of_videos(first: Evaluation) -> dict[str, str]:
    """Entries of a summary that only videos have: title of the data set, and the rule that makes their scores."""
    found = first.predictions
    return {"title": found.title, "aggregate": found.aggregate} if found and found.aggregate else {}


def _csv(each: Sequence[Metrics | SearchMetrics], title: str) -> str:
    searches = [metrics for metrics in each if isinstance(metrics, SearchMetrics)]
    return search_csv(searches) if searches else seeds_csv([one for one in each if isinstance(one, Metrics)], title)


def _is_share(name: str) -> bool:
    return _MEASURES[name].unit == SHARE


def _spreads(values: Mapping[str, Sequence[float]], intervals: Mapping[str, Interval]) -> dict[str, Spread]:
    """Spread of each quantity over seeds, with its interval from ``intervals`` if it has one there."""
    found = {name: spread(of_seeds) for name, of_seeds in values.items()}
    return found | {name: replace(found[name], low=its.low, high=its.high) for name, its in intervals.items()}


def _text(name: str, found: Spread, images: int) -> str:
    """Mean, sd and interval as text; shares in per cent."""
    form = percent if _is_share(name) else "{:.4f}".format
    value = form(found.mean) + ("" if found.sd is None else f" ± {form(found.sd)}")
    if found.low is None or found.high is None:
        return value
    over = f"over {images:,} images and the seeds" if _is_share(name) else "over the seeds, on these images"
    return f"{value}, 95% interval of the mean {form(found.low)} to {form(found.high)} ({over})"


def _joint_intervals(predictions: Sequence[SplitPredictions | QueryResults]) -> dict[str, Interval]:
    """`measure_intervals` of single runs, with their images in the same order; empty if their images differ."""
    if not predictions or len({frozenset(found.names) for found in predictions}) > 1:
        return {}
    ordered = [np.argsort(np.array(found.names), kind="stable") for found in predictions]
    scores = [found.ordered(order).scores() for found, order in zip(predictions, ordered, strict=True)]
    once = np.ones((len(scores[0]), 1))
    statistics = [list(found.statistics().values()) for found in scores]
    values = np.array([[statistic(once)[0] for statistic in of_one] for of_one in statistics])
    return measure_intervals(scores, values, np.stack([bootstrap(of_one, len(once)) for of_one in statistics]))

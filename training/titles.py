"""Measures of an evaluation: their names in metrics files, in reports, and their values as text."""

from __future__ import annotations

from ..data.text import percent
from .bootstrap import Interval

#: Measures of a classifier: name in `measure.metrics.Metrics` and its file, and name in reports.
MEASURES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_average_precision": "mAP",
    "mean_class_accuracy": "mean class accuracy",
    "calibration_error": "calibration error (ECE)",
    "negative_log_likelihood": "negative log-likelihood",
}
RANKS = (1, 5, 10, 20)
SEARCH_MEASURES = {"map": "mAP", **{f"cmc{k}": f"CMC@{k}" for k in RANKS}}  #: of a search
VIDEO_ACCURACY = "video accuracy (top-1)"  #: title of top-1 where each video counts once
CLIP, FRAME = "clip_accuracy", "frame_accuracy"
CLIP_MEASURES = {CLIP: "clip accuracy", FRAME: "frame accuracy"}  #: of the clips and frames of videos


def number(measure: str, value: float) -> str:
    """Format the value of a measure: per cent with two decimals, or nats with three."""
    return f"{value:.3f}" if measure == "negative_log_likelihood" else percent(value, 2)


def between(measure: str, interval: Interval) -> str:
    """Format the ends of an interval, as in "81.2 to 93.4%"."""
    return f"{number(measure, interval.low).removesuffix('%')} to {number(measure, interval.high)}"

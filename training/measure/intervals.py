"""Confidence intervals of a network's measures over images and seeds, also for few images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .statistics import (
    NORMAL,
    Interval,
    basic_interval,
    hull,
    joined_test,
    percentile_interval,
    share_difference,
    share_interval,
    wilson_interval,
)

if TYPE_CHECKING:
    from .metrics import Scores
    from .searches import Searches

    Measured: TypeAlias = Scores | Searches

_RAISED_BY_NOISE = {"mean_average_precision", "calibration_error"}
_WRONG = float(np.log(2))  # nats, the least that a misclassified image contributes


def measure_intervals(scores: Sequence[Measured], values: np.ndarray, drawn: np.ndarray) -> dict[str, Interval]:
    """95 % confidence intervals of the measures of a network, averaged over S runs that differ in their seed.

    The intervals are over images, and for several runs over seeds as well. Shares (top-1, top-5, mean class accuracy)
    use `share_interval`. The other measures use the bootstrap, or `joined_test` for several seeds, widened to allow for
    few images: mAP to Wilson's interval of a share of as many images; the calibration error and the negative
    log-likelihood to the smallest values they can have if top-1 is at an end of its own interval.

    Args:
        scores: Scores of the S runs for the same images.
        values: Values of the measures, ``(S, measures)``.
        drawn: Bootstrap draws ``(S, measures, draws)``, with the same resamples for all.

    Returns: intervals by name of the measure, in the order of ``statistics``.
    """
    images, means = len(scores[0]), values.mean(axis=0)
    shares, found = _shares(scores), {}
    for k, name in enumerate(scores[0].statistics()):
        if scores[0].is_certain(name):
            found[name] = Interval(float(means[k]), float(means[k]))
        elif name in shares:
            found[name] = share_interval(*shares[name])
        elif len(scores) == 1:
            found[name] = bootstrap_interval(name, float(means[k]), drawn[0, k])
        else:
            variance = float(drawn[:, k].mean(axis=0).var())
            found[name] = joined_test(float(means[k]), variance, images, [values[:, k].tolist()])[0]
    if "calibration_error" in found and scores[0].classes > 1:
        top1, k = found["top1"], list(found).index("mean_average_precision")
        confidence = float(np.mean([one.confidence.mean() for one in scores]))  # type: ignore[union-attr]
        ends = Interval(np.inf, max(abs(confidence - end) for end in (top1.low, top1.high)))
        for name, least in (
            ("mean_average_precision", wilson_interval(min(float(means[k]), 1.0), images)),
            ("calibration_error", ends),
            ("negative_log_likelihood", Interval(np.inf, (1 - top1.low) * _WRONG)),
        ):
            found[name] = hull(found[name], least)
    return {name: possible(name, interval) for name, interval in found.items()}


def difference_interval(
    measure: str,
    first: Sequence[Measured],
    second: Sequence[Measured],
    values: tuple[np.ndarray, np.ndarray],
    drawn: tuple[np.ndarray, np.ndarray],
) -> tuple[Interval, float]:
    """95 % confidence interval of the difference in a measure (second network minus first), and its two-sided p.

    Images are paired. With several seeds the interval is over seeds as well; for two single runs p is 1.0, and
    McNemar's test should be used instead. Two images are added, one that only the first network gets right and one that
    only the second does, so that the interval has a positive width when two networks agree on a few images.

    Args:
        values: Values of both networks, each ``(S,)`` by seed.
        drawn: Bootstrap draws of both networks, each ``(S, draws)``, with the same resamples.
    """
    images, single = len(first[0]), len(first) == len(second) == 1
    value, draws = float(values[1].mean() - values[0].mean()), drawn[1].mean(axis=0) - drawn[0].mean(axis=0)
    same = single and first[0].same_as(second[0])  # a network compared with itself
    if same or first[0].is_certain(measure):
        return Interval(value, value), 1.0
    unit = (_WRONG if measure == "negative_log_likelihood" else 1.0) / (images + 2)
    ours, theirs = _shares(first), _shares(second)
    if measure in ours:
        middle, variance = share_difference(ours[measure][0], theirs[measure][0], ours[measure][1])
        least = Interval(middle - NORMAL * variance**0.5, middle + NORMAL * variance**0.5)
    else:
        variance = float(draws.var()) + 2 * unit**2
        half = NORMAL * 2**0.5 * unit
        least = hull(bootstrap_interval(measure, value, draws), Interval(value - half, value + half))
    found, p = (least, 1.0) if single else joined_test(value, variance, images, [each.tolist() for each in values])
    return possible(measure, found, difference=True), p


def share_difference_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """95 % interval of the difference of two shares on the same n images (second minus first), images in pairs.

    With several seeds it is over seeds as well.

    Args:
        first, second: Arrays ``(S, n)`` and ``(T, n)``, 1.0 where an image is right.
    """
    middle, variance = share_difference(first, second)
    half = NORMAL * variance**0.5
    found = Interval(middle - half, middle + half)
    if len(first) > 1 or len(second) > 1:
        value = float(second.mean() - first.mean())
        seeds = [rows.mean(axis=1).tolist() for rows in (first, second)]
        found = joined_test(value, variance, first.shape[1], seeds)[0]
    return possible("top1", found, difference=True)


def gap_interval(drawn: np.ndarray, confidence: float, top1: Interval) -> Interval:
    """95 % interval of mean confidence minus accuracy, from its bootstrap draws ``(draws,)``.

    It is widened to the ends that the interval of top-1 allows at this mean confidence, so that a few images that are
    all right are not certainty.
    """
    return hull(percentile_interval(drawn), Interval(confidence - top1.high, confidence - top1.low))


def bootstrap_interval(measure: str, value: float, drawn: np.ndarray) -> Interval:
    """95 % interval of a measure's ``value``, or of a difference of two, from its bootstrap draws ``(draws,)``."""
    return basic_interval(value, drawn) if measure in _RAISED_BY_NOISE else percentile_interval(drawn)


def possible(measure: str, interval: Interval, difference: bool = False) -> Interval:
    """Clip an interval to the range of a measure, or of a difference of two; basic and t intervals may exceed it."""
    highest = np.inf if measure == "negative_log_likelihood" else 1.0
    low, high = np.clip([interval.low, interval.high], -highest if difference else 0.0, highest).tolist()
    return Interval(low, high)


def _shares(scores: Sequence[Measured]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Measures that are shares: values in [0, 1] ``(S, n)``, and the classes ``(n,)`` if averaged by class."""
    each = [one.shares() for one in scores]
    return {name: (np.stack([found[name][0] for found in each]), strata) for name, (_, strata) in each[0].items()}

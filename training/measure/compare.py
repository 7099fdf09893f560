"""Compare two or more networks on the same images: differences, confidence intervals and significance tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...data.errors import ConfigurationError
from ..aggregates import Aggregate
from ..models.contract import Views
from .compared_runs import Runs, cautions, data_of, load_runs, model_differences
from .intervals import difference_interval, measure_intervals, share_difference_interval
from .metrics import Scores
from .searches import Searches
from .statistics import Interval, bootstrap, holm, mcnemar, share_interval, spread
from .videos import VIDEO_ACCURACY

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Measured:
    """Value of a measure for one network."""

    value: float  #: mean over seeds
    interval: Interval  #: 95 %, over images; for several runs over images and seeds
    sd: float | None  #: over seeds, with n - 1; None for a single run
    by_seed: list[float]


@dataclass(frozen=True)
class Contestant:
    """One of the networks compared: a single run, or several runs that differ in their seed."""

    name: str
    seeds: list[int]
    measures: dict[str, Measured]


@dataclass(frozen=True)
class PairTest:
    """Two single runs compared image by image: counts of right and wrong predictions, and McNemar's exact p."""

    first_seed: int
    second_seed: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    p: float


@dataclass(frozen=True)
class ClassChange:
    """Accuracy of both networks on one class, mean over seeds; None if the class has no images.

    Intervals are 95 %, over images and seeds, each for this class alone: of twenty classes without a difference, one is
    expected to have an interval that leaves out 0.
    """

    name: str
    images: int
    first: float | None
    second: float | None
    first_interval: Interval | None = None
    second_interval: Interval | None = None
    difference_interval: Interval | None = None  #: of second minus first, images in pairs


@dataclass(frozen=True)
class Difference:
    """Difference in a measure: second network minus first."""

    value: float
    interval: Interval  #: 95 %, over images in pairs, and over seeds if there are several


@dataclass(frozen=True)
class Challenge:
    """Comparison of one network with the first; every difference is second - first."""

    first: str
    second: str
    differences: dict[str, Difference]
    tests: list[PairTest]  #: one per seed that both have, or one for two single runs
    test: str  #: name of the test that ``p`` is from
    p: float  #: two-sided; null hypothesis: equal values of the measure that is tested
    p_holm: float  #: ``p`` corrected by Holm's method for the number of networks compared with the first
    verdict: str
    classes: list[ClassChange]  #: empty for retrieval


@dataclass(frozen=True)
class Comparison:
    """All networks, the comparison of each with the first, and what makes it unfair."""

    dataset: str  #: name of the first network's data set, or of those of videos, which say whether a protocol leaks
    split: str
    images: int  #: for retrieval, queries with a match; for clips, videos
    measures: dict[str, str]  #: titles of the measures by name
    tested: str  #: measure that the p-values are about
    aggregate: str  #: rule that makes the scores of a video from those of its frames; empty for images
    contestants: list[Contestant]
    challenges: list[Challenge]
    model_differences: list[str]  #: differences in settings of the networks: the object of the comparison
    cautions: list[str]  #: all other differences and limitations

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class _Scored:
    """Measures of S single runs with their bootstrap draws; all share the same resamples of images."""

    scores: Sequence[Scores | Searches]
    values: np.ndarray  #: ``(S, measures)``
    drawn: np.ndarray  #: ``(S, measures, draws)``


def compare_runs(
    runs: Sequence[Path],
    split: str,
    aggregate: Aggregate | None = None,
    seeds: Collection[int] | None = None,
    views: Sequence[Views | None] = (),
) -> Comparison:
    """Compare two or more runs, or folders of several seeds, by their predictions for ``split``.

    Those of videos are by the default rule unless another one is given as ``aggregate``. With ``seeds``, only those of
    each folder are compared; with ``views``, for each run, predictions in these views.

    For two single runs, images are counted or resampled in pairs (`intervals.difference_interval`), and McNemar's exact
    test compares their top-1; the result holds for these two trained networks, not for other seeds. With several seeds,
    the paired variance over images (seeds fixed) and the variance of each network's mean over its seeds are added
    (`statistics.joined_test`).

    Raises: `CheckpointError` when predictions are missing, older than the network or damaged, `MismatchError` when
    images, labels or classes differ, `ConfigurationError` for fewer than two runs.
    """
    if len(runs) < 2:
        raise ConfigurationError("a comparison needs two or more runs")
    contestants = load_runs(runs, split, aggregate, seeds, views)
    scored = [_score(contestant) for contestant in contestants]
    measured = scored[0].scores[0]
    every = [found for contestant in contestants for found in contestant.predictions]
    challenges = [
        _challenge(contestants[0], scored[0], other, its_scored)
        for other, its_scored in zip(contestants[1:], scored[1:], strict=True)
    ]
    title = "; ".join(dict.fromkeys(found.title for found in every if found.title))
    rules = ", ".join(dict.fromkeys(found.aggregate for found in every if found.aggregate))
    measures = {**measured.titles, **({"top1": VIDEO_ACCURACY} if rules else {})}
    corrected = holm([challenge.p for challenge in challenges])
    challenges = [replace(found, p_holm=p) for found, p in zip(challenges, corrected, strict=True)]
    return Comparison(
        dataset=title or data_of(contestants[0]),
        split=split,
        images=len(measured),
        measures=measures,
        tested=measured.tested,
        aggregate=rules,
        contestants=[_contestant(found, its) for found, its in zip(contestants, scored, strict=True)],
        challenges=[
            replace(found, verdict=_verdict(found, measured.tested, measures, corrected=len(challenges) > 1))
            for found in challenges
        ],
        model_differences=list(model_differences(contestants)),
        cautions=list(cautions(contestants, split)),
    )


def measure_runs(runs: Runs) -> Contestant:
    """Measure one network as `compare_runs` does each."""
    return _contestant(runs, _score(runs))


def _score(runs: Runs) -> _Scored:
    scores = [found.scores() for found in runs.predictions]
    once = np.ones((len(scores[0]), 1))
    statistics = [list(found.statistics().values()) for found in scores]
    values = np.array([[statistic(once)[0] for statistic in of_one] for of_one in statistics])
    return _Scored(scores, values, np.stack([bootstrap(of_one, len(once)) for of_one in statistics]))


def _contestant(runs: Runs, scored: _Scored) -> Contestant:
    intervals, measures = measure_intervals(scored.scores, scored.values, scored.drawn), {}
    for k, name in enumerate(scored.scores[0].titles):
        values = scored.values[:, k].tolist()
        found = spread(values)
        measures[name] = Measured(found.mean, intervals[name], found.sd, values)
    return Contestant(runs.name, runs.seeds, measures)


def _challenge(first: Runs, ours: _Scored, second: Runs, theirs: _Scored) -> Challenge:
    """Compare the second network with the first; `compare_runs` fills in ``p_holm`` and ``verdict``."""
    single = len(first.seeds) == len(second.seeds) == 1
    pairs = [(first.seeds.index(seed), k) for k, seed in enumerate(second.seeds) if seed in first.seeds]
    differences, p_values = {}, {}
    for k, name in enumerate(ours.scores[0].titles):
        values, drawn = (ours.values[:, k], theirs.values[:, k]), (ours.drawn[:, k], theirs.drawn[:, k])
        interval, p_values[name] = difference_interval(name, ours.scores, theirs.scores, values, drawn)
        differences[name] = Difference(float(values[1].mean() - values[0].mean()), interval)
    tests = [_pair_test(first, ours, own, second, theirs, its) for own, its in ([(0, 0)] if single else pairs)]
    return Challenge(
        first=first.name,
        second=second.name,
        differences=differences,
        tests=tests,
        test="McNemar" if single else "t-test",
        p=tests[0].p if single else p_values[ours.scores[0].tested],
        p_holm=1.0,
        verdict="",
        classes=_class_changes(first.predictions[0].classes, ours, theirs),
    )


def _pair_test(first: Runs, ours: _Scored, own: int, second: Runs, theirs: _Scored, its: int) -> PairTest:
    one, other = ours.scores[own].right > 0, theirs.scores[its].right > 0
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    return PairTest(
        first_seed=first.seeds[own],
        second_seed=second.seeds[its],
        both_right=int((one & other).sum()),
        only_first=only_first,
        only_second=only_second,
        both_wrong=int((~one & ~other).sum()),
        p=mcnemar(only_first, only_second),
    )


def _class_changes(classes: Sequence[str], ours: _Scored, theirs: _Scored) -> list[ClassChange]:
    first = ours.scores[0]
    if not isinstance(first, Scores):
        return []
    one, other = (np.stack([found.right for found in scored.scores]) for scored in (ours, theirs))  # (seeds, n)
    by_class = [first.labels == label for label in range(len(classes))]
    return [_class_change(name, one[:, its], other[:, its]) for name, its in zip(classes, by_class, strict=True)]


def _class_change(name: str, one: np.ndarray, other: np.ndarray) -> ClassChange:
    """Args: one, other: arrays ``(S, n)`` and ``(T, n)`` of a class, 1.0 where an image is right."""
    if not one.shape[1]:
        return ClassChange(name, 0, None, None)
    return ClassChange(
        name=name,
        images=one.shape[1],
        first=float(one.mean()),
        second=float(other.mean()),
        first_interval=share_interval(one),
        second_interval=share_interval(other),
        difference_interval=share_difference_interval(one, other),
    )


def _verdict(found: Challenge, tested: str, titles: Mapping[str, str], *, corrected: bool) -> str:
    difference, title = found.differences[tested], titles[tested]
    p = f"{found.test} p = {p_text(found.p)}" + (f", Holm-corrected {p_text(found.p_holm)}" if corrected else "")
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    points = 100 * difference.value
    if found.p_holm >= SIGNIFICANT:
        said = f"{points:+.1f} points in {title} (95% {low:+.1f} to {high:+.1f}; {p})"
        return f"no significant difference between {found.second} and {found.first}: {said}"
    if points < 0:
        low, high, points = -high, -low, -points
    better = "better" if difference.value > 0 else "worse"
    said = f"{points:.1f} points in {title} (95% {low:.1f} to {high:.1f}; {p})"
    return f"{found.second} is {better} than {found.first} by {said}"


def p_text(p: float) -> str:
    """Format a p-value with two significant digits; values below 0.0001 are not shown as 0."""
    return f"{p:.2g}" if p >= 0.0001 else "0.0001 or less"

"""Numbers of the figures of papers: accuracy and average precision by class, and accuracy by number of regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data.errors import CheckpointError, ConfigurationError
from ...data.names import NONE
from ...data.regions import NO_REGIONS, Layout
from ...data.text import percent
from ..aggregates import Aggregate
from ..runs.checkpoint_header import read_header
from ..runs.folder import BEST, runs_of, title_of
from .compare import Comparison, Contestant, Measured, compare_runs, measure_runs
from .compared_runs import Runs, cautions, data_of, load_runs
from .evaluation_report import rows_csv
from .intervals import bootstrap_interval, possible
from .metrics import MEASURES, Scores
from .predictions import SplitPredictions
from .statistics import Interval, hull, joined_test, resamples, share_interval, spread, wilson_interval

ACCURACY, PRECISION = "accuracy", "average precision"
_OVERALL = {ACCURACY: "mean_class_accuracy", PRECISION: "mean_average_precision"}


@dataclass(frozen=True)
class ClassValue:
    """Accuracy or average precision of one class, mean over seeds."""

    name: str
    images: int
    value: float
    sd: float | None  #: over seeds, with n - 1; None for a single run
    interval: Interval  #: 95 %, over images; for several seeds over images and seeds


@dataclass(frozen=True)
class Evaluated:
    """Runs that were evaluated on the same images, in the order of the figure."""

    runs: Sequence[Runs]  #: with names for display
    measured: Sequence[Contestant]
    comparison: Comparison | None  #: None for a single network
    split: str

    @property
    def about(self) -> str:
        """Data set, split and number of images, in words."""
        found = self.runs[0].predictions[0]
        images = f"{len(found.scores()):,} {found.rows if isinstance(found, SplitPredictions) else 'queries'}"
        rule = f" by {found.aggregate}" if found.aggregate else ""
        return f"{data_of(self.runs[0])}, {self.split}: {images}{rule}"

    @property
    def scores(self) -> list[list[Scores]]:
        """Scores of every run by network and seed. Raises: `ConfigurationError` for runs measured by search."""
        each = [[found.scores() for found in runs.predictions] for runs in self.runs]
        if not all(isinstance(scores, Scores) for of_one in each for scores in of_one):
            raise ConfigurationError(f"{self.runs[0].paths[0]} finds persons again: it has no results by class")
        return each  # type: ignore[return-value]

    @property
    def cautions(self) -> list[str]:
        """What makes a comparison of these runs unfair or unreliable, as sentences."""
        return list(cautions(self.runs, self.split)) if len(self.runs) > 1 else []

    def differences(self, measure: str) -> Iterator[str]:
        """The difference of each network from the first in a measure, with its interval, in words."""
        for other, challenge in zip(self.runs[1:], self.comparison.challenges if self.comparison else [], strict=True):
            found = challenge.differences[measure]
            points, low, high = (100 * value for value in (found.value, found.interval.low, found.interval.high))
            yield (
                f"{other.name} minus {self.runs[0].name} {points:+.1f} points in {MEASURES[measure]} "
                f"(95% {low:+.1f} to {high:+.1f})"
            )


def load_evaluated(
    runs: Sequence[Path], names: Sequence[str], split: str, aggregate: Aggregate | None = None
) -> Evaluated:
    """Load what `agnet evaluate` wrote for runs, or folders of several seeds.

    Args:
        runs: Folders; where there are two or more, each is compared with the first.
        names: Names for display, one for each run; if empty, `names_of` them.
        split: Split that all runs were evaluated on.
        aggregate: Rule from frames to videos, as in `compare_runs`.

    Raises: `CheckpointError` and `MismatchError` as `compare_runs`, `ConfigurationError` for another number of names.
    """
    if names and len(names) != len(runs):
        raise ConfigurationError(f"{len(names)} names for {len(runs)} runs: give one for each, in their order")
    loaded = load_runs(runs, split, aggregate)
    comparison = compare_runs(runs, split, aggregate) if len(runs) > 1 else None
    measured = comparison.contestants if comparison else [measure_runs(loaded[0])]
    shown = names or names_of(runs)
    return Evaluated(
        [replace(one, name=name) for one, name in zip(loaded, shown, strict=True)], measured, comparison, split
    )


def value_text(found: Measured) -> str:
    """Value of a measure with its spread over seeds and its interval, as in "59.1 ± 1.3% (95% 55.4 to 62.6%)"."""
    value = percent(found.value) if found.sd is None else f"{percent(found.value)[:-1]} ± {percent(found.sd)}"
    return f"{value} (95% {percent(found.interval.low)[:-1]} to {percent(found.interval.high)})"


def names_of(runs: Sequence[Path]) -> list[str]:
    """Names of runs for display: their titles if all have one, else those of their folders, else their paths."""
    titles = [title_of(runs_of(run)[0]) for run in runs]
    for names in (titles, [run.resolve().name for run in runs]):
        if all(names) and len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


# --- by class


@dataclass(frozen=True)
class ClassSeries:
    """One network's values by class, in the order of the classes; classes without images are left out."""

    name: str
    seeds: int
    overall: str  #: the mean over classes with its spread and interval, in words
    mean: float
    classes: list[ClassValue]


@dataclass(frozen=True)
class ClassFigure:
    """A measure by class, of one or more networks on the same images."""

    measure: str  #: `ACCURACY` or `PRECISION`
    rows: str  #: what is counted: images or videos
    series: list[ClassSeries]
    caption: str  #: one line

    @property
    def texts(self) -> list[str]:
        """Names of networks and classes."""
        return [*(one.name for one in self.series), *(one.name for one in self.series[0].classes)]

    def ordered(self) -> list[int]:
        """Places of the classes, those with the highest value of the last network first."""
        values = [one.value for one in self.series[-1].classes]
        return sorted(range(len(values)), key=lambda place: -round(values[place], 9))

    def csv(self) -> str:
        """One row per class and network, in the order of the figure."""
        rows: list[list[Any]] = []
        for place in self.ordered():
            for series in self.series:
                one = series.classes[place]
                interval = one.interval.low, one.interval.high
                rows.append([one.name, one.images, series.name, series.seeds, one.value, one.sd, *interval])
        measure = self.measure.replace(" ", "_")
        return rows_csv(["class", self.rows, "run", "seeds", measure, f"{measure}_sd", "low", "high"], rows)


def class_figure(evaluated: Evaluated, measure: str) -> ClassFigure:
    """Compute a measure by class for every network.

    Raises: `ConfigurationError` for runs measured by search.
    """
    values_of = accuracies if measure == ACCURACY else _precisions
    name, series = _OVERALL[measure], []
    for runs, contestant, scores in zip(evaluated.runs, evaluated.measured, evaluated.scores, strict=True):
        found = contestant.measures[name]
        classes = list(values_of(runs.predictions[0].classes, scores))
        series.append(ClassSeries(runs.name, len(scores), value_text(found), found.value, classes))
    figure = ClassFigure(measure, evaluated.runs[0].predictions[0].rows, series, "")
    return replace(figure, caption=_class_caption(evaluated, figure))


def accuracies(classes: Sequence[str], seeds: Sequence[Scores]) -> Iterator[ClassValue]:
    """Accuracy of each class that has images, from scores ``(n, K)`` by seed."""
    right, labels = np.stack([scores.right for scores in seeds]), seeds[0].labels
    for k, name in enumerate(classes):
        own = right[:, labels == k]  # (S, images of the class)
        if own.shape[1]:
            found = spread(own.mean(axis=1).tolist())
            yield ClassValue(name, own.shape[1], found.mean, found.sd, share_interval(own))


def _precisions(classes: Sequence[str], seeds: Sequence[Scores]) -> Iterator[ClassValue]:
    n, images = len(seeds[0]), np.bincount(seeds[0].labels, minlength=len(classes)).tolist()
    values = np.stack([scores.average_precisions(np.ones((n, 1)))[:, 0] for scores in seeds])
    drawn = np.mean(
        [np.concatenate([scores.average_precisions(counts) for counts in resamples(n)], axis=1) for scores in seeds],
        axis=0,
    )
    for k, name in enumerate(classes):
        if images[k]:
            own = spread(values[:, k].tolist())
            yield ClassValue(name, images[k], own.mean, own.sd, _precision_interval(values[:, k], drawn[k], images[k]))


def _precision_interval(values: np.ndarray, drawn: np.ndarray, images: int) -> Interval:
    """95 % interval of a class's average precision, as `measure_intervals` gives that of the mean over classes.

    Args:
        values: Values ``(S,)`` by seed.
        drawn: Bootstrap draws ``(D,)`` of their mean; NaN where a draw has no image of the class.
        images: Number of images of the class.
    """
    mean, there = float(values.mean()), drawn[~np.isnan(drawn)]
    if len(values) == 1:
        found = bootstrap_interval("mean_average_precision", mean, there)
    else:
        found = joined_test(mean, float(there.var()), images, [values.tolist()])[0]
    return possible("mean_average_precision", hull(found, wilson_interval(min(mean, 1.0), images)))


def _class_caption(evaluated: Evaluated, found: ClassFigure) -> str:
    images = sorted({one.images for one in found.series[0].classes})
    a_class = f"{images[0]:,} to {images[-1]:,}" if len(images) > 1 else f"{images[0]:,}"
    overall = _OVERALL[found.measure]
    networks = ", ".join(f"{one.name}{_seeds(one.seeds)} {MEASURES[overall]} {one.overall}" for one in found.series)
    told = "".join(f"; {difference}" for difference in evaluated.differences(overall))
    how = {ACCURACY: "Wilson", PRECISION: "bootstrap, at least Wilson's"}[found.measure]
    return (
        f"{found.measure.capitalize()} by class on {evaluated.about} of {len(found.series[0].classes):,} classes "
        f"({a_class} a class); {networks}; {_marks(found.series, how)}{told}."
    )


def _marks(series: Sequence[ClassSeries], how: str) -> str:
    several = max(one.seeds for one in series) > 1
    over = f"thin lines are 95% intervals over {'images and seeds' if several else 'images'} ({how})"
    return f"points are means over seeds, thick lines ± sd over seeds, {over}" if several else over


def _seeds(seeds: int) -> str:
    return f" ({seeds} seeds)" if seeds > 1 else " (1 seed)"


# --- by number of regions

_KINDS = (NONE, "primary", "secondary", "both")
_TWO_RUNS = (
    "the figure needs two or more runs with different regions: --run RUN --run RUN; agnet propose "
    "--primary N makes boxes files to train them on"
)


@dataclass(frozen=True)
class RegionsPoint:
    """A network's result, and the regions that it looks at."""

    name: str
    seeds: int
    layout: Layout  #: `NO_REGIONS` for a network without regions
    measured: Measured

    @property
    def regions(self) -> int:
        return self.layout.count

    @property
    def formula(self) -> str:
        """Primary and secondary regions, as in "8 + 28"."""
        return f"{self.regions - len(self.layout.pairs)} + {len(self.layout.pairs)}"


@dataclass(frozen=True)
class RegionsFigure:
    """A measure of networks that differ in their regions, fewest regions of each kind first."""

    measure: str  #: title of the measure
    points: list[RegionsPoint]
    caption: str

    def csv(self) -> str:
        """One row per network."""
        rows = [
            [
                *(one.name, one.seeds, one.layout.kinds, one.regions - len(one.layout.pairs), len(one.layout.pairs)),
                *(one.regions, one.measured.value, one.measured.sd),
                *(one.measured.interval.low, one.measured.interval.high),
                " ".join(f"{value:.6g}" for value in one.measured.by_seed),
            ]
            for one in self.points
        ]
        columns = ["run", "seeds", "kinds", "primary", "secondary", "regions", self.measure, "sd", "low", "high"]
        return rows_csv([*columns, "by_seed"], rows)


def regions_figure(evaluated: Evaluated) -> RegionsFigure:
    """Collect the measure that networks are compared by, and the number of regions of each.

    Raises: `CheckpointError` for a run without its checkpoint, `ConfigurationError` unless two or more runs differ in
    their regions.
    """
    comparison, points = evaluated.comparison, []
    if comparison is None:
        raise ConfigurationError(_TWO_RUNS)
    for runs, contestant in zip(evaluated.runs, evaluated.measured, strict=True):
        found = contestant.measures[comparison.tested]
        points.append(RegionsPoint(runs.name, len(runs.paths), _layout_of(runs.paths[0] / BEST), found))
    points.sort(key=lambda one: (_KINDS.index(one.layout.kinds), one.regions, one.layout.primary))
    _check_regions(points)
    title = comparison.measures[comparison.tested]
    return RegionsFigure(title, points, _regions_caption(evaluated, title, points))


def _layout_of(checkpoint: Path) -> Layout:
    header = read_header(checkpoint)
    if not header.regions:
        return NO_REGIONS
    primary, kinds = header.proposals.get("primary"), header.proposals.get("kinds", "both")
    layout = Layout(primary, str(kinds)) if isinstance(primary, int) else NO_REGIONS
    if layout.count != header.regions:
        raise CheckpointError(f"{checkpoint} does not tell which {header.regions} regions its network looks at")
    return layout


def _check_regions(points: Sequence[RegionsPoint]) -> None:
    seen: dict[str, str] = {}
    for one in points:
        if one.regions and one.formula in seen:
            raise ConfigurationError(
                f"{seen[one.formula]} and {one.name} both have {one.formula} regions: name one of them, or several "
                "seeds of one network by the folder that holds them"
            )
        seen[one.formula] = one.name
    if len(seen.keys() - {"0 + 0"}) < 2:
        raise ConfigurationError(_TWO_RUNS)


def _regions_caption(evaluated: Evaluated, title: str, points: Sequence[RegionsPoint]) -> str:
    told = ", ".join(
        f"{one.formula if one.regions else f'none ({one.name})'}: {value_text(one.measured)}{_seeds(one.seeds)}"
        for one in points
    )
    several = max(one.seeds for one in points) > 1
    over = "images and seeds; small points are single seeds" if several else "images, for one seed each"
    return (
        f"{title[:1].upper()}{title[1:]} against the number of regions (primary + secondary) on {evaluated.about}; "
        f"{told}; bars are 95% intervals over {over}."
    )

"""Two networks or more on the same images: how much better one is, and how sure that is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..data.errors import CheckpointError, ConfigurationError, MismatchError
from .evaluation import network_hash, predictions_path
from .metrics import MEASURES, Scores, interval_of, possible
from .models.settings import ModelSettings
from .predictions_file import SplitPredictions, load_predictions
from .recipes import Recipe
from .run_folder import BEST, LOG, read_config, runs_of
from .seen_images import UNKNOWN
from .statistics import Interval, bootstrap, holm, joined_test, mcnemar, spread

SIGNIFICANT = 0.05
TESTED = "top1"  # the measure that the p-values are about

# What may differ between runs that are trained alike: where files are, what makes no other network, and what is
# compared (the regions) or spoken of elsewhere (the split).
_UNIMPORTANT = {
    *("run.seed", "run.workers", "boxes.file_relative_to_run", "boxes.root_relative_to_run", "boxes.fingerprint"),
}
_RECORDED_LATER = ("run", "versions", "code")  # older runs tell less of these, which is no difference

_Config = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Measured:
    """One of `MEASURES` of one network."""

    value: float  #: the mean over seeds
    interval: Interval  #: 95 %: of one run over images, of several over images and seeds
    sd: float | None  #: over seeds, with n - 1
    by_seed: list[float]


@dataclass(frozen=True)
class Contestant:
    """A network as it was given to be compared: one run, or several that differ by their seed."""

    name: str
    seeds: list[int]
    measures: dict[str, Measured]


@dataclass(frozen=True)
class PairTest:
    """Two single runs, image by image: how many each alone is right about, and McNemar's exact p."""

    first_seed: int
    second_seed: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    p: float


@dataclass(frozen=True)
class ClassChange:
    """Accuracy in one class, the mean over seeds; None without images of it."""

    name: str
    images: int
    first: float | None
    second: float | None


@dataclass(frozen=True)
class Difference:
    """What one of `MEASURES` is greater by with the second network."""

    value: float
    interval: Interval  #: 95 %, over the same images, and seeds where there are several


@dataclass(frozen=True)
class Challenge:
    """A network against the first one: every difference is second - first."""

    first: str
    second: str
    differences: dict[str, Difference]
    tests: list[PairTest]  #: of each seed that both have, or of the two single runs
    test: str  #: what ``p`` comes from
    p: float  #: two-sided, of equal top-1
    p_holm: float  #: the same, corrected for the number of networks compared with the first
    verdict: str
    classes: list[ClassChange]


@dataclass(frozen=True)
class Comparison:
    """All networks, the others against the first, and what makes it unfair."""

    split: str
    images: int
    contestants: list[Contestant]
    challenges: list[Challenge]
    model_differences: list[str]  #: of the networks' settings: what is compared
    cautions: list[str]  #: of anything else

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class _Runs:
    """A contestant's single runs, their images in one order for all."""

    name: str
    paths: list[Path]
    seeds: list[int]
    predictions: list[SplitPredictions]
    configs: list[_Config]


@dataclass(frozen=True)
class _Scored:
    """S single runs' measures and their bootstrap: the same resamples of images for all."""

    scores: list[Scores]
    values: np.ndarray  #: ``(S, measures)``
    drawn: np.ndarray  #: ``(S, measures, draws)``


def compare_runs(runs: Sequence[Path], split: str) -> Comparison:
    """Compare two runs or more, or folders of several seeds, by their predictions for ``split``.

    Two single runs: images are resampled in pairs (1,000 times, percentile intervals as `metrics.interval_of`) and
    McNemar's exact test is about their top-1; it speaks of these two trained networks, not of other seeds. With several
    seeds: images are resampled in pairs with the seeds fixed, and what seeds do is added as variance of each network's
    mean (`statistics.joined_test`).

    Raises: `CheckpointError` when predictions are missing, older than the network or damaged, `MismatchError` when
    images, labels or classes differ, `ConfigurationError` for fewer than two runs.
    """
    if len(runs) < 2:
        raise ConfigurationError("a comparison takes two runs or more")
    contestants = _aligned([_load(run, split) for run in runs])
    scored = [_score(contestant) for contestant in contestants]
    images = len(contestants[0].predictions[0].labels)
    challenges = [
        _challenge(contestants[0], scored[0], other, its_scored)
        for other, its_scored in zip(contestants[1:], scored[1:], strict=True)
    ]
    corrected = holm([challenge.p for challenge in challenges])
    challenges = [replace(found, p_holm=p) for found, p in zip(challenges, corrected, strict=True)]
    return Comparison(
        split=split,
        images=images,
        contestants=[_contestant(found, its, images) for found, its in zip(contestants, scored, strict=True)],
        challenges=[replace(found, verdict=_verdict(found, len(challenges) > 1)) for found in challenges],
        model_differences=[*_differences(contestants, ("model",)), *_other_regions(contestants)],
        cautions=list(_cautions(contestants, split)),
    )


def _load(run: Path, split: str) -> _Runs:
    paths = runs_of(run)
    configs = [_with_defaults(read_config(path)) for path in paths]
    predictions = []
    for path in paths:
        file = predictions_path(path, split)
        if not file.is_file():
            remedy = f"agnet evaluate --run {run}" + ("" if split == "test" else f" --split {split}")
            raise CheckpointError(f"{path} has no predictions for {split}; make them with: {remedy}")
        found = load_predictions(file)
        if (path / BEST).is_file() and network_hash(path) != found.network:
            raise CheckpointError(f"{file} is older than {path / BEST}; run agnet evaluate --run {run} again")
        predictions.append(found)
    seeds = [seed if type(seed := config["run"].get("seed")) is int else 0 for config in configs]
    return _Runs(str(run), paths, seeds, predictions, configs)


def _with_defaults(config: _Config) -> _Config:
    """A run older than a setting is one with the setting's default."""
    kinds = {"model": ModelSettings, "recipe": Recipe}
    defaults = {
        section: {setting.name: setting.default for setting in fields(kind) if setting.default is not MISSING}
        for section, kind in kinds.items()
    }
    return {section: defaults.get(section, {}) | values for section, values in config.items()}


def _aligned(contestants: list[_Runs]) -> list[_Runs]:
    """All in the order of the first run's images, which are found by content, or by path where contents are not known.

    Raises: `MismatchError` when they are not the same images, labels or classes.
    """
    first = contestants[0].predictions[0]
    by_content = all(UNKNOWN not in found.contents for runs in contestants for found in runs.predictions)
    wanted = {key: k for k, key in enumerate(_keys(first, by_content))}
    aligned = []
    for runs in contestants:
        ordered = []
        for path, found in zip(runs.paths, runs.predictions, strict=True):
            whose = f"{path} and {contestants[0].paths[0]}"
            if found.classes != first.classes:
                other = sorted(set(found.classes) ^ set(first.classes))
                said = f"{len(other)} are not in both, such as {other[0]!r}" if other else "the same in another order"
                raise MismatchError(f"{whose} have other classes ({said}): they cannot be compared")
            place = {key: k for k, key in enumerate(_keys(found, by_content))}
            strange = [first.names[k] for key, k in wanted.items() if key not in place]
            strange += [found.names[k] for key, k in place.items() if key not in wanted]
            if strange:
                raise MismatchError(
                    f"{whose} were measured on other images: {len(strange):,} are not in both, such as {strange[0]}; "
                    "evaluate both on the same boxes file, or on files of the same split"
                )
            order = np.array([place[key] for key in wanted])
            unlike = np.flatnonzero(found.labels[order] != first.labels)
            if len(unlike):
                k = unlike[0]
                labels = first.classes[found.labels[order[k]]], first.classes[first.labels[k]]
                raise MismatchError(
                    f"{whose} have other labels for {len(unlike):,} of the same images, such as {first.names[k]}: "
                    f"{labels[0]!r} and {labels[1]!r}"
                )
            ordered.append(replace(found, logits=found.logits[order], labels=first.labels))
        aligned.append(replace(runs, predictions=ordered))
    return aligned


def _keys(predictions: SplitPredictions, by_content: bool) -> list[tuple[str, str | int]]:
    """What tells an image from the others: its path; or its content, copies told apart by the order of their labels."""
    if not by_content:
        return [("path", name) for name in predictions.names]
    copies: defaultdict[str, int] = defaultdict(int)
    keys: dict[int, tuple[str, str | int]] = {}
    names, labels = predictions.names, predictions.labels
    for k in sorted(range(len(names)), key=lambda k: (labels[k], names[k])):
        content = predictions.contents[k]
        keys[k] = (content, copies[content])
        copies[content] += 1
    return [keys[k] for k in range(len(names))]


def _score(runs: _Runs) -> _Scored:
    scores = [Scores(found.logits, found.labels) for found in runs.predictions]
    once = np.ones((len(scores[0]), 1))
    statistics = [list(found.statistics().values()) for found in scores]
    values = np.array([[statistic(once)[0] for statistic in of_one] for of_one in statistics])
    return _Scored(scores, values, np.stack([bootstrap(of_one, len(once)) for of_one in statistics]))


def _contestant(runs: _Runs, scored: _Scored, images: int) -> Contestant:
    measures = {}
    for k, name in enumerate(MEASURES):
        values = scored.values[:, k].tolist()
        found = spread(values)
        interval, _ = _estimate(name, found.mean, scored.drawn[:, k].mean(axis=0), images, [values])
        measures[name] = Measured(found.mean, possible(name, interval), found.sd, values)
    return Contestant(runs.name, runs.seeds, measures)


def _challenge(first: _Runs, ours: _Scored, second: _Runs, theirs: _Scored) -> Challenge:
    """The second network against the first; its ``p_holm`` and ``verdict`` follow once all are known."""
    single = len(first.seeds) == len(second.seeds) == 1
    pairs = [(first.seeds.index(seed), k) for k, seed in enumerate(second.seeds) if seed in first.seeds]
    images = len(ours.scores[0])
    differences, p_values = {}, {}
    for k, name in enumerate(MEASURES):
        value = float(theirs.values[:, k].mean() - ours.values[:, k].mean())
        drawn = theirs.drawn[:, k].mean(axis=0) - ours.drawn[:, k].mean(axis=0)
        seeds = [ours.values[:, k].tolist(), theirs.values[:, k].tolist()]
        interval, p_values[name] = _estimate(name, value, drawn, images, seeds)
        differences[name] = Difference(value, interval)
    tests = [_pair_test(first, ours, own, second, theirs, its) for own, its in ([(0, 0)] if single else pairs)]
    return Challenge(
        first=first.name,
        second=second.name,
        differences=differences,
        tests=tests,
        test="McNemar" if single else "t-test",
        p=tests[0].p if single else p_values[TESTED],
        p_holm=1.0,
        verdict="",
        classes=_class_changes(first.predictions[0].classes, ours, theirs),
    )


def _estimate(
    measure: str, value: float, drawn: np.ndarray, images: int, seeds: list[list[float]]
) -> tuple[Interval, float]:
    """Over images alone where each sample of seeds is a single one, else over both; and then the p of 0."""
    if all(len(values) == 1 for values in seeds):
        return interval_of(measure, value, drawn), 1.0
    return joined_test(value, drawn, images, seeds)


def _pair_test(first: _Runs, ours: _Scored, own: int, second: _Runs, theirs: _Scored, its: int) -> PairTest:
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
    images = np.bincount(ours.scores[0].labels, minlength=len(classes)).tolist()
    once = np.ones((len(ours.scores[0]), 1))
    one, other = (
        np.mean([found.class_accuracies(once)[:, 0] for found in scored.scores], axis=0).tolist()
        for scored in (ours, theirs)
    )
    return [
        ClassChange(name, n, first if n else None, second if n else None)
        for name, n, first, second in zip(classes, images, one, other, strict=True)
    ]


def _verdict(found: Challenge, corrected: bool) -> str:
    difference = found.differences[TESTED]
    p = f"{found.test} p = {p_text(found.p)}" + (f", {p_text(found.p_holm)} by Holm" if corrected else "")
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    points = 100 * difference.value
    if found.p_holm >= SIGNIFICANT:
        said = f"{points:+.1f} points of top-1 (95 % {low:+.1f} to {high:+.1f}; {p})"
        return f"no difference was shown between {found.second} and {found.first}: {said}"
    if points < 0:
        low, high, points = -high, -low, -points
    better = "better" if difference.value > 0 else "worse"
    said = f"{points:.1f} points of top-1 (95 % {low:.1f} to {high:.1f}; {p})"
    return f"{found.second} is {better} than {found.first} by {said}"


def p_text(p: float) -> str:
    """A p-value with two digits; none is told as 0."""
    return f"{p:.2g}" if p >= 0.0001 else "0.0001 or less"


def _differences(contestants: list[_Runs], sections: tuple[str, ...]) -> Iterator[str]:
    """What the others' configurations have other than the first one's, as sentences."""
    first, *others = contestants
    for other in others:
        yield from _unlike(first.name, first.configs[0], other.name, other.configs[0], sections)


def _other_regions(contestants: list[_Runs]) -> Iterator[str]:
    first, *others = contestants
    for other in others:
        if first.configs[0]["boxes"].get("fingerprint") != other.configs[0]["boxes"].get("fingerprint"):
            yield f"{first.name} and {other.name} were trained on different boxes files: other regions, or other images"


def _unlike(one: str, its: _Config, two: str, others: _Config, sections: tuple[str, ...]) -> Iterator[str]:
    for section in sections:
        ours, theirs = its.get(section, {}), others.get(section, {})
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            unrecorded = section in _RECORDED_LATER and (ours.get(name) is None or theirs.get(name) is None)
            if f"{section}.{name}" not in _UNIMPORTANT and ours.get(name) != theirs.get(name) and not unrecorded:
                what = name.replace("_", " ") if section == "model" else f"{section}: {name.replace('_', ' ')}"
                yield f"{what} is {_said(ours.get(name))} in {one}, {_said(theirs.get(name))} in {two}"


def _said(value: object) -> str:
    return "unknown" if value is None else f"{value}"


def _cautions(contestants: list[_Runs], split: str) -> Iterator[str]:
    everything = ("model", "recipe", "run", "boxes", "versions", "code")
    yield from _differences(contestants, everything[1:])
    sizes = {runs.name: runs.predictions[0].image_size for runs in contestants}
    if len(set(sizes.values())) > 1:
        yield "image size: " + ", ".join(f"{size} in {name}" for name, size in sizes.items())
    if split != "test":
        yield f"{split} is not the test part: training or the choice of the epoch has looked at it"
    several = max(len(runs.paths) for runs in contestants) > 1
    for runs in contestants:
        if several and len(runs.paths) == 1:
            yield f"{runs.name} is a single run: its score is taken to vary with the seed as the other network's does"
        for path, config, found in zip(runs.paths, runs.configs, runs.predictions, strict=True):
            yield from _unlike(str(runs.paths[0]), runs.configs[0], str(path), config, everything)
            if found.images_seen_in_training is None:
                yield f"nobody can tell whether {path} was trained on these images"
            elif found.images_seen_in_training:
                yield f"{path} was trained on, or chosen by, {found.images_seen_in_training:,} of these images"
            finished, wanted = _finished_epochs(path), config["recipe"].get("epochs")
            stops_early = bool(config["recipe"].get("patience"))
            if finished is not None and type(wanted) is int and finished < wanted and not stops_early:
                yield f"{path} was trained for {finished} of its {wanted} epochs"


def _finished_epochs(run: Path) -> int | None:
    try:
        return len((run / LOG).read_text(encoding="utf-8").splitlines())
    except OSError:
        return None

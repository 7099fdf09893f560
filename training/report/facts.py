"""What the page about a run says, read from the files of its folder. No network is loaded and no image opened."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.boxes.reader import Boxes
from ...data.errors import CheckpointError, ConfigurationError
from ...data.fields import Size
from ...data.index import leaves_root
from ...data.places import own_name
from ..measure.compare import Measured, compare_runs, measure_runs
from ..measure.compared_runs import Runs, load_runs
from ..measure.metrics import Coverage, Metrics, Scores, measure
from ..measure.predictions import QueryResults, SplitPredictions
from ..measure.statistics import Interval, wilson_interval
from ..measure.videos import VIDEO_ACCURACY
from ..runs.folder import LOG, folder_of, read_config, read_log, runs_of
from ..runs.provenance import same_boxes
from ..runs.words import folder_name, name_of

SURE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  #: thresholds of the probability in the table of coverage
_BEST = 5
_EXPLANATIONS = "agnet explanations"

Config = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What the boxes file says about an image, as text; empty where it is not recorded."""

    size: str = ""  #: width and height in pixels
    keypoints: str = ""
    status: str = ""
    copies: str = ""  #: training image with the same content


@dataclass(frozen=True)
class Row:
    """A row of the predictions: an image, a video, or a query that was searched for."""

    name: str  #: POSIX path relative to the root of the data set
    content: str  #: hash of its content
    truth: str
    answer: str  #: predicted class, or the person in the nearest image
    probability: float | None = None  #: of the answer; None for a query
    of_truth: float | None = None  #: probability of the true class
    best: tuple[tuple[str, float], ...] = ()  #: the most probable classes with their probabilities
    nearest: str = ""  #: path of a query's nearest image
    precision: float | None = None  #: average precision of a query
    about: About = About()

    @property
    def right(self) -> bool:
        return self.truth == self.answer


@dataclass(frozen=True)
class ClassFacts:
    """Results of one class that has images."""

    name: str
    images: int
    right: int
    interval: Interval  #: Wilson's, of the accuracy
    precision: float | None  #: average precision
    taken_for: tuple[str, int] | None  #: the most frequent wrong answer


@dataclass(frozen=True)
class Classified:
    """What is known of a classifier on a split, for the first seed of several."""

    metrics: Metrics
    confusion: np.ndarray  #: int64 ``(K, K)``, rows: true classes
    classes: tuple[ClassFacts, ...]  #: least accurate first
    pairs: tuple[tuple[int, int, int], ...]  #: (true class, answer, rows), the most frequent confusion first
    sure: tuple[Coverage, ...]  #: for each of `SURE` that some answer reaches


@dataclass(frozen=True)
class Facts:
    """Everything the page says, apart from the photographs."""

    name: str  #: title that was given to the run, or name of its folder
    folder: str  #: name of its folder
    seeds: tuple[int, ...]
    folders: tuple[str, ...]  #: names of the single runs
    split: str
    called: str  #: what rows are called: images, videos or queries
    image_size: Size  #: of the network's input, in pixels
    rows: tuple[Row, ...]
    class_names: tuple[str, ...]
    measures: Mapping[str, Measured]
    titles: Mapping[str, str]  #: of the measures
    classified: Classified | None  #: None for a search
    metrics: Config  #: the metrics file of the first seed; empty if there is none
    seen: int | None  #: rows that were used in training; None if unknown
    has_details: bool  #: whether the predictions say size, keypoints and copies
    config: Config  #: configuration of the first seed
    logs: tuple[tuple[Config, ...], ...]  #: epochs of each seed; empty where the log is missing
    explanations: Config | None
    explanations_are_old: bool
    comparison: Config | None
    boxes: Boxes | None  #: of the run, if it was found


def read_facts(run: Path, split: str, boxes: Boxes | None = None, against: Path | None = None) -> Facts:
    """Read the facts about a run, or about runs of several seeds, that was evaluated on ``split``.

    Args:
        boxes: Boxes file of the run; another one is ignored.
        against: Run to compare with.

    Raises: `CheckpointError` when a file is missing or damaged, or older than the network, `MismatchError` when the
        runs cannot be compared.
    """
    run = folder_of(run).resolve()
    against = None if against is None else folder_of(against).resolve()
    (runs,) = load_runs([run], split)
    found, folder = runs.predictions[0], runs.paths[0]
    classified, config = classify(found) if isinstance(found, SplitPredictions) else None, read_config(folder)
    details = _details(folder / f"predictions-{split}.csv", len(found.labels))
    explanations = _explanations(folder, split)
    names = {run: name_of(run, config)}
    if against is not None:
        names = _distinct(names | {against: name_of(against, _first_config(against))})
    return Facts(
        name=names[run],
        folder=folder_name(run),
        seeds=tuple(runs.seeds),
        folders=tuple(path.name for path in runs.paths),
        split=split,
        called="queries" if isinstance(found, QueryResults) else found.rows,
        image_size=found.image_size,
        rows=tuple(_rows(found, details)),
        class_names=found.classes,
        measures=_measures(runs, classified),
        titles=found.scores().titles | ({"top1": VIDEO_ACCURACY} if found.aggregate else {}),
        classified=classified,
        metrics=_json(folder / f"metrics-{split}.json"),
        seen=_seen(runs),
        has_details=any("keypoints" in one for one in details),
        config=config,
        logs=tuple(_log(path) for path in runs.paths),
        explanations=explanations,
        explanations_are_old=explanations is not None and explanations.get("network") != found.network,
        comparison=None if against is None else _comparison(run, against, split, names),
        boxes=boxes if boxes and is_of(boxes, config) else None,
    )


def classify(found: SplitPredictions) -> Classified:
    """Confusions, classes, calibration and coverage of one classifier."""
    metrics = measure(found.logits, found.labels, found.classes)
    confusion = np.array(metrics.confusion)
    return Classified(
        metrics=metrics,
        confusion=confusion,
        classes=tuple(_classes(metrics, confusion)),
        pairs=tuple(_pairs(confusion)),
        sure=tuple(_sure(found.scores())),
    )


def _measures(runs: Runs, classified: Classified | None) -> dict[str, Measured]:
    """The measures over all seeds; those of a single classifier are measured already."""
    if classified is None or len(runs.paths) > 1:
        return measure_runs(runs).measures
    found = classified.metrics
    return {
        name: Measured(found.value(name), found.interval(name), None, [found.value(name)]) for name in found.intervals
    }


def _classes(metrics: Metrics, confusion: np.ndarray) -> list[ClassFacts]:
    found, names = [], list(metrics.class_images)
    for k, (name, interval) in enumerate(metrics.class_intervals.items()):
        if interval is None:
            continue
        wrong = np.where(np.arange(len(names)) == k, 0, confusion[k])
        taken = int(wrong.argmax())
        found.append(
            ClassFacts(
                name=name,
                images=metrics.class_images[name],
                right=int(confusion[k, k]),
                interval=interval,
                precision=metrics.average_precision[name],
                taken_for=(names[taken], int(wrong[taken])) if wrong[taken] else None,
            )
        )
    return sorted(found, key=lambda one: one.right / one.images)


def _pairs(confusion: np.ndarray) -> list[tuple[int, int, int]]:
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    places = zip(*(axis.tolist() for axis in np.nonzero(wrong)), strict=True)
    return sorted(((true, taken, int(wrong[true, taken])) for true, taken in places), key=lambda pair: -pair[2])


def _sure(scores: Scores) -> Iterator[Coverage]:
    """Results of the answers whose probability is at least each of `SURE`."""
    for threshold in SURE:
        answered = scores.confidence >= threshold
        images, right = int(answered.sum()), int(scores.right[answered].sum())
        if images:
            share = right / images
            yield Coverage(threshold, images, images / len(scores), share, wilson_interval(share, images))


def _rows(found: SplitPredictions | QueryResults, details: Sequence[Mapping[str, str]]) -> list[Row]:
    return _searches(found, details) if isinstance(found, QueryResults) else _answers(found, details)


def _answers(found: SplitPredictions, details: Sequence[Mapping[str, str]]) -> list[Row]:
    scores = found.scores()
    best = np.argsort(-scores.probabilities, axis=1, kind="stable")[:, :_BEST]
    own = np.exp(-scores.surprise).tolist()
    return [
        Row(
            name=found.names[k],
            content=found.contents[k],
            truth=found.classes[scores.labels[k]],
            answer=found.classes[scores.predicted[k]],
            probability=float(scores.confidence[k]),
            of_truth=own[k],
            best=tuple((found.classes[place], float(scores.probabilities[k, place])) for place in best[k].tolist()),
            about=_about(details[k]),
        )
        for k in range(len(scores))
    ]


def _searches(found: QueryResults, details: Sequence[Mapping[str, str]]) -> list[Row]:
    return [
        Row(
            name=found.names[k],
            content=found.contents[k],
            truth=found.classes[found.labels[k]],
            answer=found.nearest_persons[k],
            nearest=found.nearest[k],
            precision=float(found.average_precisions[k]) if found.counted[k] else None,
            about=_about(details[k]),
        )
        for k in range(len(found.labels))
    ]


def _about(found: Mapping[str, str]) -> About:
    sides = [found.get(name) or "" for name in ("width", "height")]
    return About(
        size=" × ".join(sides) if all(sides) else "",
        keypoints=found.get("keypoints") or "",
        status=found.get("status") or "",
        copies=found.get("copies_training_image") or "",
    )


def _details(path: Path, rows: int) -> list[dict[str, str]]:
    """The CSV beside the predictions; empty rows if it is missing or has another number of rows."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        found = []
    return found if len(found) == rows else [{}] * rows


def _seen(runs: Runs) -> int | None:
    counts = [found.images_seen_in_training for found in runs.predictions]
    return None if None in counts else max(count for count in counts if count is not None)


def _json(path: Path) -> Config:
    """A JSON object; empty if there is no such file. Raises: `CheckpointError` for a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object")
    return found


def _log(folder: Path) -> tuple[Config, ...]:
    return tuple(read_log(folder)) if (folder / LOG).is_file() else ()


def _first_config(run: Path) -> Config:
    return read_config(runs_of(run)[0])


def _explanations(folder: Path, split: str) -> Config | None:
    """What ``agnet explain --split`` wrote; None if it did not run. Raises: `CheckpointError` for a damaged file."""
    path = folder / f"explanations-{split}.json"
    found = _json(path)
    if not found:
        return None
    pictures, fills = found.get("pictures"), found.get("fills")
    sound = found.get("format") == _EXPLANATIONS and isinstance(fills, dict) and isinstance(pictures, list)
    if not sound or not all(map(_is_picture, pictures or ())):
        raise CheckpointError(f"{path} is damaged or of another version; make it again with agnet explain")
    return found


def _is_picture(found: object) -> bool:
    """Whether an entry names a picture inside the run's folder and says what it shows."""
    texts = ("image", "why", "file", "class", "truth")
    sound = isinstance(found, dict) and all(isinstance(found.get(name), str) for name in texts)
    return sound and not leaves_root(found["file"])  # type: ignore[index]


def is_of(boxes: Boxes, config: Config) -> bool:
    """Whether a boxes file is the one that the run was trained on."""
    return same_boxes(config["boxes"], {"fingerprint": boxes.fingerprint}, regions=True)


def _distinct(names: Mapping[Path, str]) -> dict[Path, str]:
    """Names of runs, with the name of the folder around each if they are alike."""
    if len(set(names.values())) == len(names):
        return dict(names)
    return {run: f"{own_name(run.parent)}/{name}" for run, name in names.items()}


def _comparison(run: Path, against: Path, split: str, names: Mapping[Path, str]) -> Config:
    """`compare_runs` as JSON values, with the names of the runs instead of their paths, which are private."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: named(one) for name, one in value.items()}
        if isinstance(value, list):
            return [named(one) for one in value]
        if isinstance(value, str):
            for path, name in sorted(names.items(), key=lambda one: -len(str(one[0]))):
                value = value.replace(str(path), name)
        return value

    if run == against:
        raise ConfigurationError(
            f"a run cannot be compared with itself: name another one than {names[run]} with --against"
        )
    return {**named(compare_runs([against, run], split).to_dict()), "first": names[against], "second": names[run]}

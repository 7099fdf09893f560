"""Load the runs of a comparison, align their images, and list the differences between their configurations."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ...data.errors import CheckpointError, MismatchError
from ...data.fields import size_text
from ..aggregates import Aggregate
from ..models.contract import Views
from ..models.registry import comparable, needs_of, settings_of
from ..recipes import Recipe
from ..runs.folder import BEST, LOG, checkpoint_hash, predictions_of, read_config
from ..runs.provenance import same_boxes
from ..runs.seen import UNKNOWN
from .predictions import QueryResults, SplitPredictions, load_predictions

# Entries that are not listed as differences: locations of files, settings that do not affect the network, and the
# hashes of boxes files, which `model_differences` compares.
_UNIMPORTANT = {
    *("run.seed", "run.workers", "boxes.file_relative_to_run", "boxes.root_relative_to_run"),
    *("boxes.fingerprint", "boxes.images_blake2b", "boxes.proposals", "boxes.title"),
}
_RECORDED_LATER = ("run", "versions", "code")  # entries missing from older runs are not differences

_Config = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Runs:
    """The single runs of one network compared, with images in the same order for all networks."""

    name: str
    paths: list[Path]
    seeds: list[int]
    predictions: Sequence[SplitPredictions | QueryResults]
    configs: list[_Config]


def load_runs(
    runs: Sequence[Path],
    split: str,
    aggregate: Aggregate | None = None,
    seeds: Collection[int] | None = None,
    views: Sequence[Views | None] = (),
) -> list[Runs]:
    """Load runs, or folders of several seeds, with their predictions for ``split``, images in the same order for all.
    Those of videos are by the default rule unless another one is given; ``seeds`` selects folders of seeds, ``views``
    for each run predictions in views other than those that it was trained with.

    Images are matched by content, or by path if the content of any is unknown.

    Raises: `CheckpointError` when predictions are missing, older than the network or damaged, `MismatchError` when
    images, labels or classes differ.
    """
    return _aligned([_load(run, split, aggregate, seeds, *its) for run, *its in zip_longest(runs, views)])


def data_of(runs: Runs) -> str:
    """Name of the data set for display: of videos that of their predictions, else the run's, else how it was opened."""
    found = runs.predictions[0]
    return found.title or str(runs.configs[0]["boxes"].get("title") or found.dataset)


def model_differences(contestants: Sequence[Runs]) -> Iterator[str]:
    """Differences in networks and regions between the first run and the others, as sentences."""
    yield from _differences(contestants, ("model",))
    first, *others = contestants
    for other in others:
        one, its = first.configs[0], other.configs[0]
        if not same_boxes(one["boxes"], its["boxes"], regions=_looks_at_regions(one) and _looks_at_regions(its)):
            yield f"{first.name} and {other.name} were trained on different boxes files: regions or images differ"


def cautions(contestants: Sequence[Runs], split: str) -> Iterator[str]:
    """Limitations of a comparison: what makes it unfair or unreliable, as sentences."""
    everything = ("model", "recipe", "run", "boxes", "versions", "code")
    yield from _differences(contestants, everything[1:])
    sizes = {runs.name: runs.predictions[0].image_size for runs in contestants}
    if len(set(sizes.values())) > 1:
        yield "image size: " + ", ".join(f"{size_text(size)} in {name}" for name, size in sizes.items())
    views = {runs.name: runs.predictions[0].views or "the photograph" for runs in contestants}
    if len(set(views.values())) > 1:
        yield "views: " + ", ".join(f"{seen} in {name}" for name, seen in views.items())
    rules = {runs.name: runs.predictions[0].aggregate or "none" for runs in contestants}
    if len(set(rules.values())) > 1:
        yield "rule from frames to videos: " + ", ".join(f"{rule} in {name}" for name, rule in rules.items())
    if split not in ("test", "query"):
        yield f"{split} is not the test split: it was used for training or for the choice of the epoch"
    several = max(len(runs.paths) for runs in contestants) > 1
    for runs in contestants:
        if several and len(runs.paths) == 1:
            yield (
                f"{runs.name} is a single run: its score is assumed to vary with the seed as the other network's does, "
                "which finds differences too easily when the other has two or three seeds; train it with as many seeds"
            )
        for path, config, found in zip(runs.paths, runs.configs, runs.predictions, strict=True):
            yield from _unlike(str(runs.paths[0]), runs.configs[0], str(path), config, everything)
            if found.images_seen_in_training is None:
                yield f"it is unknown whether {path} was trained on these {found.rows}"
            elif found.images_seen_in_training:
                seen = f"{found.images_seen_in_training:,} of these {found.rows}"
                yield f"{path} was trained on, or selected by, {seen}"
            finished, wanted = _finished_epochs(path), config["recipe"].get("epochs")
            stops_early = bool(config["recipe"].get("patience"))
            if finished is not None and type(wanted) is int and finished < wanted and not stops_early:
                yield f"{path} was trained for {finished} of its {wanted} epochs"


def _load(
    run: Path, split: str, aggregate: Aggregate | None, seeds: Collection[int] | None, views: Views | None
) -> Runs:
    files = predictions_of(run, split, aggregate, seeds, views)
    paths = list(files)
    configs = [_with_defaults(read_config(path)) for path in paths]
    predictions = []
    for path, file in files.items():
        found = load_predictions(file)
        if (path / BEST).is_file() and checkpoint_hash(path / BEST) != found.network:
            raise CheckpointError(
                f"{file} is older than {path / BEST}; run agnet evaluate --run {shlex.quote(str(run))} again"
            )
        predictions.append(found)
    seeds = [seed if type(seed := config["run"].get("seed")) is int else 0 for config in configs]
    return Runs(f"{run} ({views})" if views else str(run), paths, seeds, predictions, configs)


def _with_defaults(config: _Config) -> _Config:
    """Add defaults to the configuration of a run that was trained before some settings existed."""
    recipe = {one.name: one.default for one in fields(Recipe) if one.default is not MISSING}
    return {
        section: comparable(values) if section == "model" else recipe | values if section == "recipe" else values
        for section, values in config.items()
    }


def _aligned(contestants: Sequence[Runs]) -> list[Runs]:
    """Sort the predictions of all runs in the order of the first run's images."""
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
                raise MismatchError(f"{whose} have different classes ({said}): they cannot be compared")
            place = {key: k for k, key in enumerate(_keys(found, by_content))}
            strange = [first.names[k] for key, k in wanted.items() if key not in place]
            strange += [found.names[k] for key, k in place.items() if key not in wanted]
            if strange:
                raise MismatchError(
                    f"{whose} were evaluated on different {found.rows}: {len(strange):,} are not in both, such "
                    f"as {strange[0]}; evaluate both on the same boxes file, or on files of the same split"
                )
            order = np.array([place[key] for key in wanted])
            unlike = np.flatnonzero(found.labels[order] != first.labels)
            if len(unlike):
                k = unlike[0]
                labels = first.classes[found.labels[order[k]]], first.classes[first.labels[k]]
                raise MismatchError(
                    f"{whose} have different labels for {len(unlike):,} of the same {found.rows}, such as "
                    f"{first.names[k]}: {labels[0]!r} and {labels[1]!r}"
                )
            ordered.append(found.ordered(order))
            _check_same_gallery(whose, first, ordered[-1])
        aligned.append(replace(runs, predictions=ordered))
    return aligned


def _check_same_gallery(whose: str, first: object, other: object) -> None:
    """Raise `MismatchError` unless both networks searched for the queries in the same gallery."""
    if not (isinstance(first, QueryResults) and isinstance(other, QueryResults)):
        return
    # Cameras of queries show in which of them have a match.
    if first.gallery != other.gallery or not np.array_equal(first.counted, other.counted):
        raise MismatchError(
            f"{whose} were evaluated on different galleries (images, persons or cameras): evaluate both on the same "
            "boxes file"
        )


def _keys(predictions: SplitPredictions | QueryResults, by_content: bool) -> list[tuple[str, str | int]]:
    """Unique keys of images: their paths, or their contents, with copies numbered by label and path."""
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


def _differences(contestants: Sequence[Runs], sections: tuple[str, ...]) -> Iterator[str]:
    """Differences between the first run's configuration and those of the others, as sentences."""
    first, *others = contestants
    for other in others:
        yield from _unlike(first.name, first.configs[0], other.name, other.configs[0], sections)


def _unlike(one: str, its: _Config, two: str, others: _Config, sections: tuple[str, ...]) -> Iterator[str]:
    for section in sections:
        ours, theirs = its.get(section, {}), others.get(section, {})
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            # Models of different families have settings that the other family lacks.
            of_one = section == "model" and ours.get("model") != theirs.get("model")
            unrecorded = section in _RECORDED_LATER or of_one
            unrecorded &= ours.get(name) is None or theirs.get(name) is None
            if f"{section}.{name}" not in _UNIMPORTANT and ours.get(name) != theirs.get(name) and not unrecorded:
                what = name.replace("_", " ") if section == "model" else f"{section}: {name.replace('_', ' ')}"
                yield f"{what} is {_said(ours.get(name))} in {one}, {_said(theirs.get(name))} in {two}"


def _looks_at_regions(config: _Config) -> bool:
    try:
        return needs_of(settings_of(config["model"])).regions > 0
    except (LookupError, TypeError, ValueError):  # unknown family of models
        return True


def _said(value: object) -> str:
    return "unknown" if value is None else f"{value}"


def _finished_epochs(run: Path) -> int | None:
    try:
        return len((run / LOG).read_text(encoding="utf-8").splitlines())
    except OSError:
        return None

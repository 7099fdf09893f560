"""Scores of images by networks that were not trained on them, from the predictions in the folders of runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.errors import CheckpointError, ConfigurationError, MismatchError
from ...data.names import TRAIN_FOLD
from ..runs.folder import BEST, CONFIG, FOLD, SEED, SUFFIX, checkpoint_hash, folder_of, numbered, runs_of
from ..runs.seen import EARLIER, UNKNOWN, read_seen
from .predictions import SplitPredictions, load_predictions

_SPLITS = ("val", "test", "query")  # that an ordinary run is not trained on; the last is refused


@dataclass(frozen=True)
class OutOfSample:
    """Probabilities of n images and K classes, as means over the R runs that were not trained on the image."""

    names: tuple[str, ...]
    contents: tuple[str, ...]  #: hashes, 16 hexadecimal digits or `seen.UNKNOWN`
    splits: tuple[str, ...]  #: ``train-fold``, ``val`` or ``test``
    labels: np.ndarray  #: int64 ``(n,)``, as given
    classes: tuple[str, ...]
    #: float64 ``(n, K)``: the means of the runs' log-probabilities, normalised (the geometric mean)
    probabilities: np.ndarray
    answers: np.ndarray  #: int64 ``(R, n)``, each run's own class; -1 where it has no score of the image
    runs: tuple[str, ...]
    left_out: int  #: number of scores that are not used, since the run was trained on the image
    rows: str  #: what the rows are called, images or videos


def out_of_sample(runs: Sequence[str | Path]) -> OutOfSample:
    """Gather the scores of every image by the runs that were not trained on it.

    Of runs on folds, these are the scores of the fold that each left out; of other runs, those of validation and test.
    An image counts as trained on if `seen` has its content in train, or the run started from weights that have seen it.

    Args:
        runs: Folders of runs, of several seeds, or of several folds.

    Raises: `CheckpointError` for a folder without a run, without predictions, or with some that are older than its
        checkpoint; `MismatchError` for runs of different classes or labels, or without a record of what they have seen;
        `ConfigurationError` for data sets of persons.
    """
    trained = [one for run in runs for one in trained_in(folder_of(run))]
    parts = [[part for single in singles for part in _parts(single)] for singles in trained]
    every = [part for of_one in parts for part in of_one]
    if not every:
        raise CheckpointError(f"{runs[0]} has no predictions of images that it was not trained on; {_remedy(runs[0])}")
    return _together(parts, every, tuple(_name(singles) for singles in trained))


def _remedy(run: str | Path) -> str:
    folder = folder_of(run)
    if not (folder / CONFIG).is_file() and numbered(folder, FOLD):
        return "continue agnet train --folds with --resume: it scores them when all folds are trained"
    return f"make them with: agnet evaluate --run {shlex.quote(str(folder))}, or train it with --folds"


def trained_in(folder: Path) -> list[list[Path]]:
    """The trainings in a folder, each as its single runs: one, or one for each fold.

    Raises: `CheckpointError` when there are none.
    """
    if not (folder / CONFIG).is_file():
        if folds := numbered(folder, FOLD):
            return [folds]
        inside = sorted(path for path in folder.glob(f"{SEED}-*") if numbered(path, FOLD))
        if inside:
            return [numbered(path, FOLD) for path in inside]
    return [[single] for single in runs_of(folder)]


def _name(singles: Sequence[Path]) -> str:
    return str(singles[0].parent if len(singles) > 1 else singles[0])


@dataclass(frozen=True)
class _Part:
    """The predictions of a single run for a split, and which of them count."""

    file: Path
    predictions: SplitPredictions
    new: np.ndarray  #: bool ``(n,)``, whether the run was not trained on the image


def _parts(single: Path) -> Iterator[_Part]:
    fold = single / f"predictions-{TRAIN_FOLD}{SUFFIX}"
    files = [fold] if fold.is_file() else [single / f"predictions-{split}{SUFFIX}" for split in _SPLITS]
    for file in files:
        if file.is_file():
            yield _part(single, file)


def _part(single: Path, file: Path) -> _Part:
    found = load_predictions(file)
    if not isinstance(found, SplitPredictions):
        raise ConfigurationError(f"{file} has the results of a search, which has no labels to review")
    if (single / BEST).is_file() and checkpoint_hash(single / BEST) != found.network:
        remedy = f"agnet evaluate --run {shlex.quote(str(single))} --split {found.split}"
        raise CheckpointError(f"{file} is older than {single / BEST}; run {remedy} again")
    seen = read_seen(single, ("train", EARLIER))
    if seen is None:
        raise MismatchError(
            f"{single} has no record of the images that it was trained on, so no score can be relied on"
        )
    new = np.array([content == UNKNOWN or content not in seen for content in found.contents])
    return _Part(file, found, new)


def _together(parts: Sequence[Sequence[_Part]], every: Sequence[_Part], runs: tuple[str, ...]) -> OutOfSample:
    """Put the parts of all trainings together, by the names of their images."""
    first = every[0].predictions
    names = sorted({name for part in every for name, new in zip(part.predictions.names, part.new, strict=True) if new})
    place = {name: row for row, name in enumerate(names)}
    labels = np.full(len(names), -1, np.int64)
    contents, splits = [""] * len(names), [""] * len(names)
    sums, counts = np.zeros((len(names), len(first.classes))), np.zeros(len(names), np.int64)
    answers = np.full((len(parts), len(names)), -1, np.int64)
    for number, of_one in enumerate(parts):
        for part in of_one:
            found = part.predictions
            if found.classes != first.classes:
                raise MismatchError(f"{part.file} and {every[0].file} have different classes: they judge other labels")
            here = np.flatnonzero(part.new)
            rows = np.array([place[found.names[k]] for k in here.tolist()], dtype=np.int64)
            _check_same_labels(part, here, rows, labels, names)
            labels[rows] = found.labels[here]
            for row, k in zip(rows.tolist(), here.tolist(), strict=True):
                contents[row], splits[row] = found.contents[k], found.split
            sums[rows] += _log_probabilities(found.logits[here])
            counts[rows] += 1
            answers[number, rows] = found.logits[here].argmax(axis=1)
    return OutOfSample(
        names=tuple(names),
        contents=tuple(contents),
        splits=tuple(splits),
        labels=labels,
        classes=first.classes,
        probabilities=np.exp(_log_probabilities(sums / counts[:, None])),
        answers=answers,
        runs=runs,
        left_out=sum(int((~part.new).sum()) for part in every),
        rows=first.rows,
    )


def _check_same_labels(
    part: _Part, here: np.ndarray, rows: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """Raise `MismatchError` if an earlier part has another label for an image."""
    unlike = (labels[rows] >= 0) & (labels[rows] != part.predictions.labels[here])
    if unlike.any():
        name = names[rows[unlike][0]]
        raise MismatchError(
            f"{part.file} has another label for {name} than the runs before it: name only runs on the same labels"
        )


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Normalise logits ``(n, K)`` to log-probabilities, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

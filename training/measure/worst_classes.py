"""Figure of the worst classes: what their images are taken for, and examples of both (paper, Figure 9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.clips import open_clip
from ...data.contents import hash_of
from ...data.errors import ConfigurationError, DatasetError, ImageError, MismatchError
from ...data.images import read_image
from ...data.picture_rows import PictureRows, Row, Tile
from ...data.text import percent
from ..runs.seen import UNKNOWN
from .evaluation_report import rows_csv
from .figures import ClassValue, Evaluated, accuracies
from .predictions import MeasuredImages

MISTAKES = 4  #: examples of a class
_TAKEN_FOR = 3  # most classes that the picture lists


@dataclass(frozen=True)
class Example:
    """An image of the split, and the class that it is taken for."""

    number: int  #: place of the image in the predictions
    taken_for: str
    probability: float  #: of that class, mean over seeds


@dataclass(frozen=True)
class WorstClass:
    """A class of which many images are taken for others."""

    value: ClassValue
    taken_for: list[tuple[str, float]]  #: other classes and the share of the images, mean over seeds; largest first
    mistakes: list[Example]  #: the surest ones, by the mean of the seeds' probabilities
    other: Example | None  #: the surest image of the first of ``taken_for``, if one is recognised


@dataclass(frozen=True)
class WorstClasses:
    """The classes of lowest accuracy, lowest first."""

    rows: str  #: what is counted: images or videos
    classes: list[WorstClass]
    caption: str  #: one line

    def csv(self) -> str:
        """One row per class and class that it is taken for."""
        rows = [
            [one.value.name, one.value.images, one.value.value, one.value.interval.low, one.value.interval.high, *taken]
            for one in self.classes
            for taken in one.taken_for
        ]
        columns = ["class", self.rows, "accuracy", "low", "high", "taken_for", f"share_of_{self.rows}"]
        return rows_csv(columns, rows)


def worst_classes(evaluated: Evaluated, count: int) -> WorstClasses:
    """Find up to ``count`` classes of lowest accuracy that have mistakes; several seeds are averaged.

    Raises: `ConfigurationError` for runs measured by search, or if there are no mistakes.
    """
    (seeds,), found = evaluated.scores, evaluated.runs[0].predictions[0]
    values = sorted(accuracies(found.classes, seeds), key=lambda one: round(one.value, 9))
    wrong = [one for one in values if one.value < 1][:count]
    if not wrong:
        raise ConfigurationError(f"no image of {evaluated.about} is taken for another class: there is nothing to show")
    mean = np.mean([scores.probabilities for scores in seeds], axis=0)
    predicted = np.stack([scores.predicted for scores in seeds])
    classes = [_worst(one, found.classes, seeds[0].labels, mean, predicted) for one in wrong]
    return WorstClasses(found.rows, classes, _caption(evaluated, len(classes), len(values)))


def _worst(
    value: ClassValue, classes: Sequence[str], labels: np.ndarray, mean: np.ndarray, predicted: np.ndarray
) -> WorstClass:
    """Args: mean: Probabilities ``(n, K)``, mean over seeds; predicted: Predicted classes ``(S, n)``."""
    own = classes.index(value.name)
    counts = np.bincount(predicted[:, labels == own].ravel(), minlength=len(classes))
    counts[own] = 0
    order = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    taken_for = [(classes[k], counts[k] / (len(predicted) * value.images)) for k in order]
    mistaken = np.flatnonzero((labels == own) & (mean.argmax(axis=1) != own))
    right = np.flatnonzero((labels == order[0]) & (mean.argmax(axis=1) == order[0]))
    other = next(_surest(right, mean, classes), None)
    return WorstClass(value, taken_for, list(_surest(mistaken, mean, classes))[:MISTAKES], other)


def _surest(images: np.ndarray, mean: np.ndarray, classes: Sequence[str]) -> Iterator[Example]:
    for number in images[np.argsort(-mean[images].max(axis=1), kind="stable")].tolist():
        yield Example(number, classes[int(mean[number].argmax())], float(mean[number].max()))


def pictures_of(found: WorstClasses, images: MeasuredImages, root: Path) -> PictureRows:
    """Read the examples, and arrange them beside what their class is taken for.

    Raises: `DatasetError` for an image that is not under ``root``, `ImageError` for one that cannot be read,
    `MismatchError` for one that is not the one that was evaluated.
    """
    columns, rows = max(len(one.mistakes) for one in found.classes), []
    for one in found.classes:
        tiles: list[Tile | None] = [_tile(example, images, root, right=False) for example in one.mistakes]
        tiles += [None] * (columns - len(tiles))
        tiles.append(_tile(one.other, images, root, right=True) if one.other else None)
        rows.append(Row(tiles, (one.value.name, *_facts(one))))
    titles = {columns: "most often taken for"} | ({0: "mistakes, surest first"} if columns else {})
    return PictureRows(rows, titles)


def _facts(one: WorstClass) -> Iterator[str]:
    low, high = percent(one.value.interval.low, 0).removesuffix("%"), percent(one.value.interval.high, 0)
    yield f"{percent(one.value.value, 0)} of {one.value.images:,} right"
    yield f"(95% {low} to {high})"
    yield "taken for:"
    for name, share in one.taken_for[:_TAKEN_FOR]:
        yield f"{percent(share, 0)} {name}"


def _tile(example: Example, images: MeasuredImages, root: Path, right: bool) -> Tile:
    pixels = _read(root / images.names[example.number], images, example.number)
    return Tile(pixels, (example.taken_for, percent(example.probability, 0)), right)


def _read(path: Path, images: MeasuredImages, number: int) -> np.ndarray:
    """Read an image, or the middle frame of a video, if it is the one that was evaluated."""
    if not path.exists():
        raise DatasetError(f"{path} is not there; say with --root where the {images.rows} are")
    try:
        content = images.contents[number]
        if content not in (UNKNOWN, hash_of(path)):
            raise MismatchError(f"{path} has changed since it was evaluated; restore it, or evaluate the run again")
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    return _middle_frame(path) if images.aggregate else read_image(path)


def _middle_frame(path: Path) -> np.ndarray:
    with open_clip(path) as clip:
        frames = sum(1 for _ in clip.chosen(lambda number, seconds: True))
    with open_clip(path) as clip:
        return next(clip.chosen(lambda number, seconds: number == frames // 2)).pixels


def _caption(evaluated: Evaluated, shown: int, classes: int) -> str:
    seeds = len(evaluated.runs[0].paths)
    over = f"{seeds} seeds" if seeds > 1 else "1 seed"
    return (
        f"The {shown} of {classes:,} classes with the lowest accuracy of {evaluated.runs[0].name} ({over}) on "
        f"{evaluated.about}: accuracy with its 95% interval (Wilson), the share of its "
        f"{evaluated.runs[0].predictions[0].rows} that is taken for other classes, its surest mistakes with the class "
        f"and probability of the answer{' (mean over seeds)' if seeds > 1 else ''}, and the surest example of the "
        "class that it is taken for most often. Chosen by the answers: they show no typical images."
    )

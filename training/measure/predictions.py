"""Predictions of a run for every image of a split, saved as CSV and, for `agnet compare`, as safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ...data.errors import CheckpointError
from ...data.fields import Size, is_size, plain_size
from ...data.files import atomic_file
from ...data.index import NOT_TEXT
from ...data.text import composed_all, csv_text
from .metrics import Scores
from .searches import Searches
from .videos import COUNTS, UNKNOWN, counted_as

FORMAT, SEARCH_FORMAT = "agnet predictions", "agnet searches"
FORMAT_VERSION = 1

_TEXTS = ("split", "dataset", "network")
_TEXTS_OF_VIDEOS = ("title", "aggregate")
_TEXTS_OF_SOME = (*_TEXTS_OF_VIDEOS, "views")
_SEARCH_TEXTS = ("nearest", "nearest_persons", "cameras")
_SEARCH_COLUMNS = (
    *("path", "content", "person", "camera", "average_precision", "rank_of_first_match"),
    *("nearest", "person_of_nearest"),
)
_COLUMNS = ("path", "content", "true", "predicted", "probability", "probability_of_true", "rank_of_true")


_Measured = TypeVar("_Measured", bound="MeasuredImages")


@dataclass(frozen=True)
class MeasuredImages:
    """The n images that a network was measured on, and the network."""

    labels: np.ndarray  #: int64 ``(n,)``
    names: tuple[str, ...]  #: image paths, POSIX, relative to the root of the data set
    contents: tuple[str, ...]  #: content hashes, 16 hexadecimal digits or `seen.UNKNOWN`
    classes: tuple[str, ...]
    split: str
    dataset: str
    network: str  #: hash of the checkpoint file
    image_size: Size  #: of the network's input, in pixels; the largest of several views
    images_seen_in_training: int | None  #: None if unknown
    title: str = field(default="", kw_only=True)  #: name of the data set for display; only recorded for videos
    aggregate: str = field(default="", kw_only=True)  #: rule that made the scores of a video; empty for images
    views: str = field(default="", kw_only=True)  #: views that the scores are averaged over, in words; empty for one

    columns: ClassVar[tuple[str, ...]] = ("labels", "names", "contents")  #: fields with a value for each image

    @property
    def rows(self) -> str:
        """What the rows are called."""
        return counted_as(bool(self.aggregate))

    def ordered(self: _Measured, order: np.ndarray) -> _Measured:
        """The same with the images in another order, given as their numbers ``(n,)``."""
        values = {name: found for name in self.columns if (found := getattr(self, name)) is not None}
        numbers = order.tolist()
        moved: dict[str, Any] = {
            name: found[order] if isinstance(found, np.ndarray) else tuple(found[k] for k in numbers)
            for name, found in values.items()
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class SplitPredictions(MeasuredImages):
    """Scores of a network for n images and K classes."""

    logits: np.ndarray  #: float32 ``(n, K)``
    counts: np.ndarray | None = None  #: int64 ``(n, 4)``, clips and frames of each video, as in `Videos`

    columns: ClassVar = (*MeasuredImages.columns, "logits", "counts")

    def scores(self) -> Scores:
        return Scores(self.logits, self.labels)

    def likeliest(self, count: int) -> list[str]:
        """Names of the likeliest classes of each image, in descending order and separated by "; "."""
        order = np.argsort(-self.logits, axis=1, kind="stable")[:, :count]
        return ["; ".join(self.classes[label] for label in labels) for labels in order.tolist()]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        counts = {} if self.counts is None else {"counts": self.counts}
        return {"logits": self.logits, "labels": self.labels, **counts}

    @property
    def sound(self) -> bool:
        """Whether the tensors are those of a network."""
        logits, labels = self.logits, self.labels
        return (
            logits.dtype == np.float32
            and logits.shape == (len(labels), len(self.classes))
            and _is_finite(logits)
            and (self.counts is None or _are_counts(self.counts, len(labels)))
        )


@dataclass(frozen=True)
class QueryResults(MeasuredImages):
    """Results of n queries in a gallery; labels are persons, and ``classes`` the names of those in queries, sorted."""

    average_precisions: np.ndarray  #: float64 ``(n,)``; -1 without a match
    first_match: np.ndarray  #: int64 ``(n,)``, rank from 0; -1 without a match
    nearest: tuple[str, ...]  #: path of the nearest image; empty for a ranking without images
    nearest_persons: tuple[str, ...]  #: name of the person that it shows
    cameras: tuple[str, ...]  #: camera of each query; empty where it is unknown
    gallery: str  #: hash of the images searched, their persons and cameras

    columns: ClassVar = (*MeasuredImages.columns, "average_precisions", "first_match", *_SEARCH_TEXTS)

    @property
    def counted(self) -> np.ndarray:
        """Whether each query has a match ``(n,)``."""
        return self.first_match >= 0

    def scores(self) -> Searches:
        return Searches(self.average_precisions[self.counted], self.first_match[self.counted])

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "average_precisions": self.average_precisions,
            "first_match": self.first_match,
            "labels": self.labels,
        }

    @property
    def sound(self) -> bool:
        """Whether the tensors are those of a search."""
        shape, precisions, firsts = self.labels.shape, self.average_precisions, self.first_match
        return (
            precisions.dtype == np.float64
            and firsts.dtype == np.int64
            and precisions.shape == firsts.shape == shape
            and {len(self.nearest), len(self.nearest_persons), len(self.cameras)} == {len(self.labels)}
            and isinstance(self.gallery, str)
            and bool(self.counted.any())
            and bool(((precisions[self.counted] > 0) & (precisions[self.counted] <= 1)).all())
        )


_KINDS = {FORMAT: SplitPredictions, SEARCH_FORMAT: QueryResults}


def save_predictions(
    path: Path, predictions: SplitPredictions | QueryResults, facts: Mapping[str, Sequence[object]] | None = None
) -> Path:
    """Write predictions to ``path`` (safetensors), and one row per image, in the same order, to a .csv file beside it.

    Args:
        path: File that ends in `SUFFIX`; holds scores or results, and everything else in its header.
        facts: More columns of the .csv file: a name, and a value for each image.

    Returns: ``path``.
    """
    header = {
        "format": SEARCH_FORMAT if isinstance(predictions, QueryResults) else FORMAT,
        "format_version": FORMAT_VERSION,
        "names": predictions.names,
        "contents": predictions.contents,
        "classes": predictions.classes,
        "image_size": predictions.image_size,
        "images_seen_in_training": predictions.images_seen_in_training,
        **{name: getattr(predictions, name) for name in _TEXTS},
        **(_search_header(predictions) if isinstance(predictions, QueryResults) else {}),
        **({name: getattr(predictions, name) for name in _TEXTS_OF_VIDEOS} if predictions.aggregate else {}),
        **({"views": predictions.views} if predictions.views else {}),
    }
    with atomic_file(path.with_suffix(".csv")) as unfinished:
        unfinished.write_text(csv_text(_rows(predictions, facts or {})), encoding="utf-8", newline="")
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(save(predictions.tensors, metadata={"agnet": json.dumps(header)}))
    return path


def _search_header(results: QueryResults) -> dict[str, object]:
    return {name: getattr(results, name) for name in (*_SEARCH_TEXTS, "gallery")}


def load_predictions(path: Path) -> SplitPredictions | QueryResults:
    """Read a file written by `save_predictions`. Raises: `CheckpointError` for a missing, damaged or other file."""
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {}).get("agnet", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a file of predictions, or damaged: {error}") from None
    kind = _KINDS.get(header.get("format", "")) if isinstance(header, dict) else None
    if kind is None or header.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} is not a file of predictions of this version; evaluate the run again")
    try:
        found = _from_header(kind, header, tensors)
    except (LookupError, TypeError, ValueError, AttributeError):
        found = None
    if found is None or not (_is_sound(found) and found.sound):
        raise CheckpointError(f"{path} is damaged: its entries are inconsistent; evaluate the run again")
    return found


def _from_header(
    kind: type[SplitPredictions | QueryResults], header: dict[str, Any], tensors: dict[str, np.ndarray]
) -> SplitPredictions | QueryResults:
    given: dict[str, Any] = {
        **{name: header[name] for name in _TEXTS},
        **{name: header.get(name, "") for name in _TEXTS_OF_SOME},
        **{name: _texts(header.get(name)) for name in ("names", "contents", "classes")},
        "image_size": plain_size(header.get("image_size", 0)),
        "images_seen_in_training": header.get("images_seen_in_training"),
        **tensors,
    }
    given["classes"] = composed_all(given["classes"])
    if kind is QueryResults:
        given |= {name: _texts(header.get(name)) for name in _SEARCH_TEXTS} | {"gallery": header["gallery"]}
    return kind(**given)


def _is_sound(found: SplitPredictions | QueryResults) -> bool:
    """Whether everything but the results is that of some images."""
    labels, seen = found.labels, found.images_seen_in_training
    return (
        labels.dtype == np.int64
        and labels.ndim == 1
        and len(found.names) == len(found.contents) == len(labels) > 0
        and bool(((labels >= 0) & (labels < len(found.classes))).all())
        and all(isinstance(getattr(found, name), str) for name in (*_TEXTS, *_TEXTS_OF_SOME))
        and is_size(found.image_size)
        and (seen is None or type(seen) is int)
    )


def _are_counts(counts: np.ndarray, videos: int) -> bool:
    if counts.dtype != np.int64 or counts.shape != (videos, len(COUNTS)):
        return False
    clips, clips_right, frames, frames_right = counts.T
    bounds = (clips >= 1, clips_right >= 0, clips_right <= clips, frames >= clips, frames_right <= frames)
    return all(bool(held.all()) for held in (*bounds, frames_right >= UNKNOWN))


def _is_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())


def save_embeddings(path: Path, vectors: np.ndarray, header: Mapping[str, object]) -> Path:
    """Write embeddings ``(n, E)``, and a header as JSON, to ``path`` (safetensors: ``vectors``). Returns ``path``."""
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(save({"vectors": vectors}, metadata={"agnet": json.dumps(header)}))
    return path


def _texts(found: object) -> tuple[str, ...]:
    """Tuple of the texts in a list; empty if any entry is not plain text, such as terminal control characters."""
    sound = isinstance(found, list) and all(isinstance(text, str) and not NOT_TEXT.search(text) for text in found)
    return tuple(found) if isinstance(found, list) and sound else ()


def _rows(
    predictions: SplitPredictions | QueryResults, facts: Mapping[str, Sequence[object]]
) -> Iterator[list[object]]:
    """The rows of the .csv file, the names of its columns first."""
    known = _query_rows(predictions) if isinstance(predictions, QueryResults) else _image_rows(predictions)
    columns = [[name, *values] for name, values in facts.items()]
    for number, row in enumerate(known):
        yield [*row, *(column[number] for column in columns)]


def _image_rows(predictions: SplitPredictions) -> Iterator[list[object]]:
    yield [*_COLUMNS, *(() if predictions.counts is None else (*COUNTS, "data_set"))]
    scores = predictions.scores()
    own = np.exp(-scores.surprise)
    for k, (name, content) in enumerate(zip(predictions.names, predictions.contents, strict=True)):
        true, predicted = predictions.classes[scores.labels[k]], predictions.classes[scores.predicted[k]]
        numbers = f"{scores.confidence[k]:.6g}", f"{own[k]:.6g}", scores.rank[k] + 1
        yield [name, content, true, predicted, *numbers, *_csv_counts(predictions, k)]


def _csv_counts(predictions: SplitPredictions, number: int) -> list[object]:
    """Counts of a video, empty where they are unknown, and the title of its data set."""
    if predictions.counts is None:
        return []
    return [*("" if count == UNKNOWN else count for count in predictions.counts[number].tolist()), predictions.title]


def _query_rows(results: QueryResults) -> Iterator[list[object]]:
    yield [*_SEARCH_COLUMNS]
    for k, (name, content) in enumerate(zip(results.names, results.contents, strict=True)):
        counts = results.first_match[k] >= 0
        found = [f"{results.average_precisions[k]:.6g}", results.first_match[k] + 1] if counts else ["", ""]
        person, nearest = results.classes[results.labels[k]], (results.nearest[k], results.nearest_persons[k])
        yield [name, content, person, results.cameras[k], *found, *nearest]

"""Predictions of a run for every image of a split, saved as CSV and, for `agnet compare`, as safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ...data.errors import CheckpointError
from ...data.fields import Size, is_size, plain_size
from ...data.files import atomic_file
from ...data.index import NOT_TEXT
from ...data.text import composed_all, csv_text
from .metrics import Scores

FORMAT = "agnet predictions"
FORMAT_VERSION = 1

_TEXTS = ("split", "dataset", "network")
_COLUMNS = ("path", "content", "true", "predicted", "probability", "probability_of_true", "rank_of_true")


@dataclass(frozen=True)
class SplitPredictions:
    """Scores of a network for n images and K classes, with the identity of the images."""

    logits: np.ndarray  #: float32 ``(n, K)``
    labels: np.ndarray  #: int64 ``(n,)``
    names: tuple[str, ...]  #: image paths, POSIX, relative to the root of the data set
    contents: tuple[str, ...]  #: content hashes, 16 hexadecimal digits or `seen.UNKNOWN`
    classes: tuple[str, ...]
    split: str
    dataset: str
    network: str  #: hash of the checkpoint file
    image_size: Size  #: of the network's input, in pixels
    images_seen_in_training: int | None  #: None if unknown


def save_predictions(path: Path, predictions: SplitPredictions) -> Path:
    """Write predictions to ``path`` (safetensors), and one row per image, in the same order, to a .csv file beside it.

    Args:
        path: File that ends in `SUFFIX`; holds float32 scores, and everything else in its header.

    Returns: ``path``.
    """
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "names": predictions.names,
        "contents": predictions.contents,
        "classes": predictions.classes,
        "image_size": predictions.image_size,
        "images_seen_in_training": predictions.images_seen_in_training,
        **{name: getattr(predictions, name) for name in _TEXTS},
    }
    tensors = {"logits": predictions.logits, "labels": predictions.labels}
    with atomic_file(path.with_suffix(".csv")) as unfinished:
        unfinished.write_text(_csv(predictions), encoding="utf-8", newline="")
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(save(tensors, metadata={"agnet": json.dumps(header)}))
    return path


def load_predictions(path: Path) -> SplitPredictions:
    """Read a file written by `save_predictions`. Raises: `CheckpointError` for a missing, damaged or other file."""
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {}).get("agnet", "{}"))
            logits, labels = (file.get_tensor(name) for name in ("logits", "labels"))
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a file of predictions, or damaged: {error}") from None
    if not isinstance(header, dict) or (header.get("format"), header.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(f"{path} is not a file of predictions of this version; evaluate the run again")
    names, contents, classes = (_texts(header.get(name)) for name in ("names", "contents", "classes"))
    seen, size = header.get("images_seen_in_training"), plain_size(header.get("image_size", 0))
    sound = (
        logits.dtype == np.float32
        and labels.dtype == np.int64
        and logits.shape == (len(labels), len(classes))
        and len(names) == len(contents) == len(labels) > 0
        and bool(np.isfinite(logits).all())
        and bool(((labels >= 0) & (labels < len(classes))).all())
        and all(isinstance(header.get(name), str) for name in _TEXTS)
        and is_size(size)
        and (seen is None or type(seen) is int)
    )
    if not sound:
        raise CheckpointError(f"{path} is damaged: its entries are inconsistent; evaluate the run again")
    return SplitPredictions(
        logits=logits,
        labels=labels,
        names=names,
        contents=contents,
        classes=composed_all(classes),
        image_size=size,
        images_seen_in_training=seen,
        **{name: header[name] for name in _TEXTS},
    )


def _texts(found: object) -> tuple[str, ...]:
    """Tuple of the texts in a list; empty if any entry is not plain text, such as terminal control characters."""
    sound = isinstance(found, list) and all(isinstance(text, str) and not NOT_TEXT.search(text) for text in found)
    return tuple(found) if isinstance(found, list) and sound else ()


def _csv(predictions: SplitPredictions) -> str:
    scores, rows = Scores(predictions.logits, predictions.labels), []
    own = np.exp(-scores.surprise)
    for k, (name, content) in enumerate(zip(predictions.names, predictions.contents, strict=True)):
        true, predicted = predictions.classes[scores.labels[k]], predictions.classes[scores.predicted[k]]
        numbers = f"{scores.confidence[k]:.6g}", f"{own[k]:.6g}", scores.rank[k] + 1
        rows.append([name, content, true, predicted, *numbers])
    return csv_text([_COLUMNS, *rows])

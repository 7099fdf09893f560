"""The boxes file of a run that leaves out a fold of the training images, as `agnet train --folds` makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...data.errors import CheckpointError, ConfigurationError
from ...data.folds import ALWAYS, fold_numbers, units_of
from ...data.names import TRAIN_FOLD
from .folder import read_config
from .provenance import split_hash
from .seen import UNKNOWN, contents_of

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes


def without_fold(boxes: Boxes, fold: int, folds: int, seed: int) -> Boxes:
    """Move one fold of the training images into a split of its own, `TRAIN_FOLD`.

    Groups that no split may divide, and files that are identical byte for byte, are in one fold. Images of a class that
    could not be learnt without its fold stay in train.

    Args:
        boxes: Boxes file with all of its training images in train.
        fold: Number of the fold, from 0.
        folds: Number of folds.
        seed: Random seed of the folds.

    Raises: `ConfigurationError` if a fold would be empty.
    """
    rows = boxes.usable[boxes.rows("train")]
    splits = boxes.splits.astype(f"U{len(TRAIN_FOLD)}")
    splits[rows[_numbers(boxes, folds, seed) == fold]] = TRAIN_FOLD
    return replace(boxes, splits=splits)


def never_left_out(boxes: Boxes, folds: int, seed: int) -> int:
    """Number of training images that no fold leaves out, and that therefore get no score."""
    return int((_numbers(boxes, folds, seed) == ALWAYS).sum())


def _numbers(boxes: Boxes, folds: int, seed: int) -> np.ndarray:
    """Fold of each usable training image, int64 ``(n,)``."""
    rows = boxes.usable[boxes.rows("train")].tolist()
    names = [boxes.names[row].decode() for row in rows]
    groups = [(boxes.groups[row] if boxes.groups else "") or name for row, name in zip(rows, names, strict=True)]
    contents = contents_of(boxes, "train")
    files = [name if content == UNKNOWN else content for name, content in zip(names, contents, strict=True)]
    return fold_numbers(boxes.labels[rows], units_of(np.array(groups), np.array(files)), folds, seed)


def as_trained_on(run: Path, boxes: Boxes) -> Boxes:
    """Give the images of a boxes file the splits that a run was trained with: a run on folds left out one of them.

    Another boxes file than the run's is returned as it is.
    """
    try:
        config = read_config(run)
    except CheckpointError:  # a checkpoint can be used without its configuration
        return boxes
    if "fold" not in config:
        return boxes
    try:
        fold, folds, seed = (int(str(config[part][name])) for part, name in _PLACES)
        found = without_fold(boxes, fold, folds, seed)
    except (ConfigurationError, LookupError, TypeError, ValueError):
        return boxes
    return found if split_hash(found) == config["boxes"].get("split_blake2b") else boxes


_PLACES = (("fold", "number"), ("run", "folds"), ("run", "seed"))

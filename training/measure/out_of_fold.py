"""Scores of the folds that the runs of `agnet train --folds` left out: one for every training image, out of sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data.errors import CheckpointError
from ...data.names import TRAIN_FOLD
from ...data.text import percent
from ..loop.job import Console, Job
from ..machine.devices import choose_device
from ..runs.folder import BEST, SUFFIX, checkpoint_hash, read_config
from .evaluation import evaluate_run
from .image_facts import image_facts, names_of_seen
from .predictions import SplitPredictions, load_predictions, save_predictions
from .statistics import wilson_interval

PREDICTIONS = f"predictions-{TRAIN_FOLD}{SUFFIX}"


def score_left_out(run: Path, jobs: Sequence[Job], console: Console) -> str:
    """Evaluate each run on the fold that it left out, unless that is done; save all these predictions in ``run``.

    Args:
        run: Folder that holds the runs.
        jobs: The finished jobs of all folds.
        console: Receives progress and messages.

    Returns: a line of text with the accuracy.
    Raises: as `evaluate_run`.
    """
    parts = [_scored(job, console) for job in jobs]
    together, facts = _joined(parts), _joined_facts(parts, jobs)
    order = np.argsort(np.array(together.names), kind="stable")
    together, facts = together.ordered(order), {name: [values[k] for k in order] for name, values in facts.items()}
    save_predictions(run / PREDICTIONS, together, facts)
    right = float((together.logits.argmax(axis=1) == together.labels).mean())
    interval = wilson_interval(right, len(together.labels))
    return (
        f"out of fold: {len(together.labels):,} training {together.rows}, top-1 {percent(right)} "
        f"(95% {percent(interval.low)} to {percent(interval.high)}); written: {run / PREDICTIONS}"
    )


def _scored(job: Job, console: Console) -> SplitPredictions:
    """Predictions of a run for its fold: those in its folder if they are of its checkpoint."""
    path = job.run / PREDICTIONS
    if not (path.is_file() and _network(path) == checkpoint_hash(job.run / BEST)):
        settings, precision = job.settings, str(read_config(job.run)["run"].get("precision"))
        device = choose_device(settings.device, precision)
        place = (job.run, job.boxes, job.root, TRAIN_FOLD, job.recipe.batch_size, device, settings.workers)
        evaluate_run(*place, watch=console.watch, say=console.say)
    found = load_predictions(path)
    assert isinstance(found, SplitPredictions)
    return found


def _network(path: Path) -> str:
    """Hash of the network that made a file of predictions; empty if the file is damaged."""
    try:
        return load_predictions(path).network
    except CheckpointError:
        return ""


def _joined(parts: Sequence[SplitPredictions]) -> SplitPredictions:
    """Predictions of several networks of disjoint images."""
    values = {name: [getattr(part, name) for part in parts] for name in SplitPredictions.columns}
    joined: dict[str, Any] = {
        name: np.concatenate(found) if isinstance(found[0], np.ndarray) else sum(found[1:], found[0])
        for name, found in values.items()
        if found[0] is not None
    }
    networks = hashlib.blake2b("".join(part.network for part in parts).encode(), digest_size=8).hexdigest()
    seen = [part.images_seen_in_training for part in parts if part.images_seen_in_training is not None]
    return replace(
        parts[0],
        **joined,
        network=networks,
        images_seen_in_training=sum(seen) if len(seen) == len(parts) else None,
    )


def _joined_facts(parts: Sequence[SplitPredictions], jobs: Sequence[Job]) -> dict[str, list[object]]:
    """What the boxes file says of the images, in the order of `_joined`."""
    each = [_facts(part, job) for part, job in zip(parts, jobs, strict=True)]
    return {name: [value for facts in each for value in facts[name]] for name in each[0]}


def _facts(part: SplitPredictions, job: Job) -> Mapping[str, Sequence[object]]:
    boxes, place = job.boxes, {}
    for row in boxes.rows(TRAIN_FOLD).tolist():
        place[boxes.names[boxes.usable[row]].decode()] = row
    rows = np.array([place[name] for name in part.names])
    return image_facts(boxes, rows, names_of_seen(job.run, boxes, TRAIN_FOLD), part.likeliest(5))

"""Measuring a run on one split, if it has not seen that split's images before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...data.boxes.reader import Boxes
from ...data.boxes.verification import look_at_images
from ...data.errors import MismatchError
from ...data.files import atomic_file
from ..loop.engine import Predictions, Watch, evaluate
from ..machine.devices import Device, Pieces
from ..runs.checkpoints import Checkpoint, check_finite, load_checkpoint
from ..runs.folder import BEST, SUFFIX, checkpoint_hash
from ..runs.seen import contents_of
from ..samples.loader import Loader, RegionDataset
from .claims import Claim, papers_claim
from .evaluation_report import metrics_csv, seeds_csv
from .intervals import measure_intervals
from .measurable import check_measurable
from .metrics import MEASURES, Metrics, Scores, measure
from .predictions import SplitPredictions, save_predictions
from .statistics import Interval, Spread, bootstrap, spread


@dataclass(frozen=True)
class Evaluation:
    """A run's metrics, where they were written to, and what is to be held against them."""

    metrics: Metrics
    file: Path
    warning: str = ""
    claim: Claim | None = None  #: what the paper says of such a network on this test part
    predictions: SplitPredictions | None = None  #: of every image


@dataclass(frozen=True)
class SeedsEvaluation:
    """The metrics of a run's several seeds, and where their summary was written to."""

    evaluations: dict[str, Evaluation]  #: by the name of the single run's folder
    spreads: dict[str, Spread]  #: of each of `MEASURES`; intervals over other images and other seeds
    file: Path


def evaluate_run(
    run: Path,
    boxes: Boxes,
    root: Path,
    split: str,
    batch_size: int,
    device: Device,
    workers: int,
    *,
    force: bool = False,
    watch: Watch,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Metrics of a run's best checkpoint on ``split`` of ``boxes``: the run's own file, or another of its kind.

    Written into the run's folder: metrics as JSON and CSV, predictions for every image, the confusion matrix and the
    calibration as pictures.

    Args:
        force: measure on images that the run was trained on or selected by, too; the file then says how many.
        watch: told what is going on, for a progress bar.
        say: told in a line what else a person wants to know.

    Raises: `MismatchError` when ``boxes`` has other classes or was made by other proposal settings, when images have
        changed since, and without ``force`` for the run's own train part, for images that the run, or the one it began
        from, has seen (by content), and where nobody can tell. `DatasetError` when images are missing or there are
        none, `ConfigurationError` when the metrics cannot be written into the run's folder, `CheckpointError` for an
        unsound checkpoint, or when the network's outputs are not finite numbers.
    """
    target, seen, warning = check_measurable(run, boxes, root, split, force)
    rows = boxes.rows(split)
    look = look_at_images(boxes, root, boxes.usable[rows], watch=watch, say=say)
    if error := look.error(f"{split} images"):
        raise error
    checkpoint = load_checkpoint(run / BEST)
    loader = Loader(RegionDataset(boxes, root, checkpoint.preprocessing.size), rows, batch_size, workers)
    predictions = evaluate(
        device.take(checkpoint.model),
        loader.epoch(0),
        device=device,
        preprocessing=checkpoint.preprocessing,
        progress=watch(f"evaluate {split}", loader.images),
        pieces=Pieces(device, say),
    )
    check_finite([torch.from_numpy(predictions.logits)])
    metrics = measure(predictions.logits, predictions.labels, checkpoint.classes)
    claim = papers_claim(boxes, split, checkpoint.settings)
    content = {
        "split": split,
        "epoch": checkpoint.epoch,
        "dataset": boxes.dataset,
        "boxes_fingerprint": boxes.fingerprint,
        "images_seen_in_training": seen,
        "device": device.device.type,
        "precision": device.precision,
        "papers_claim": claim and asdict(claim),
        **metrics.to_dict(),
    }
    named = _with_images(predictions, run, boxes, split, checkpoint, seen)
    _write_all(target, content, metrics, named, title=boxes.title)
    return Evaluation(metrics, target, warning, claim, named)


def summarise_seeds(run: Path, evaluations: dict[str, Evaluation]) -> SeedsEvaluation:
    """Mean ± sd of single runs that differ by their seed, of one split; written into the folder that holds them.

    Raises: `MismatchError` when they have other classes.
    """
    if len({tuple(found.metrics.class_images) for found in evaluations.values()}) > 1:
        raise MismatchError(f"the runs in {run} have other classes: they are not seeds of one network")
    values = {name: [getattr(found.metrics, name) for found in evaluations.values()] for name in MEASURES}
    intervals = _joint_intervals([found.predictions for found in evaluations.values() if found.predictions])
    spreads = {name: spread(values[name]) for name in MEASURES}
    spreads |= {name: replace(spreads[name], low=its.low, high=its.high) for name, its in intervals.items()}
    first = next(iter(evaluations.values()))
    target = run / first.file.name
    content = {
        "runs": list(evaluations),
        "images": first.metrics.images,
        "papers_claim": first.claim and asdict(first.claim),
        **{name: {**asdict(spreads[name]), "values": values[name]} for name in MEASURES},
    }
    _write(target.with_suffix(".csv"), seeds_csv([found.metrics for found in evaluations.values()]))
    _write(target, json.dumps(content, indent=1) + "\n")
    return SeedsEvaluation(evaluations, spreads, target)


def _joint_intervals(predictions: Sequence[SplitPredictions]) -> dict[str, Interval]:
    """`measure_intervals` of single runs, whose images are put in one order; none of runs of different images."""
    if not predictions or len({frozenset(found.names) for found in predictions}) > 1:
        return {}
    ordered = [np.argsort(np.array(found.names), kind="stable") for found in predictions]
    scores = [
        Scores(found.logits[order], found.labels[order]) for found, order in zip(predictions, ordered, strict=True)
    ]
    once = np.ones((len(scores[0]), 1))
    statistics = [list(found.statistics().values()) for found in scores]
    values = np.array([[statistic(once)[0] for statistic in of_one] for of_one in statistics])
    return measure_intervals(scores, values, np.stack([bootstrap(of_one, len(once)) for of_one in statistics]))


def _with_images(
    predictions: Predictions, run: Path, boxes: Boxes, split: str, checkpoint: Checkpoint, seen: int | None
) -> SplitPredictions:
    numbers = boxes.usable[predictions.rows]
    return SplitPredictions(
        logits=predictions.logits,
        labels=predictions.labels,
        names=tuple(name.decode() for name in boxes.names[numbers].tolist()),
        contents=tuple(contents_of(boxes, split)),
        classes=checkpoint.classes,
        split=split,
        dataset=boxes.dataset,
        network=checkpoint_hash(run / BEST),
        image_size=checkpoint.preprocessing.size,
        images_seen_in_training=seen,
    )


def _write_all(
    target: Path, content: dict[str, object], metrics: Metrics, predictions: SplitPredictions, title: str
) -> None:
    """Every file of an evaluation, the one that says it is complete last."""
    from .evaluation_plots import draw_calibration, draw_confusion  # matplotlib takes a second to load

    part = target.stem.removeprefix("metrics")  # the split, and what tells another boxes file's
    save_predictions(target.with_name(f"predictions{part}{SUFFIX}"), predictions)
    draw_confusion(metrics, target.with_name(f"confusion{part}.png"), title)
    draw_calibration(metrics, target.with_name(f"calibration{part}.png"), title)
    _write(target.with_suffix(".csv"), metrics_csv(metrics))
    _write(target, json.dumps(content, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")

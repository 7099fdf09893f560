"""Evaluate a run on one split, provided that it was not trained on the images of that split."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ...data.boxes.reader import Boxes
from ...data.fields import plain_size
from ...data.files import write_text
from ..loop.engine import Predictions, Watch, evaluate
from ..machine.devices import Device, Pieces
from ..runs.checkpoints import Checkpoint, check_finite, load_checkpoint
from ..runs.folder import BEST, SUFFIX, checkpoint_hash
from ..runs.seen import contents_of
from ..samples.loader import Loader, RegionDataset
from .claims import Claim, papers_claim
from .evaluation_report import metrics_csv
from .measurable import check_images, check_measurable
from .metrics import Metrics, measure
from .predictions import SplitPredictions, save_predictions


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a run, the file they were written to, and what limits their meaning."""

    metrics: Metrics
    file: Path
    warning: str = ""
    claim: Claim | None = None  #: published figures of this network on this test split
    predictions: SplitPredictions | None = None  #: predictions for every image


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
    images_checked: bool = False,
    watch: Watch,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Evaluate the best checkpoint of a run on ``split`` of ``boxes``.

    Metrics (JSON and CSV), the prediction for every image, and plots of the confusion matrix and the calibration are
    written into the folder of the run.

    Args:
        boxes: Boxes file of the run, or another one with the same classes and proposal settings.
        force: Whether to evaluate also on images that the run was trained on or selected by; the metrics file then
            records their number.
        images_checked: Whether `check_images` has already passed, as for several runs evaluated on the same images.
        watch: Callback that returns a progress callback for a named task and a number of images.
        say: Callback for one-line messages to the user.

    Raises: `MismatchError` when ``boxes`` has other classes or other proposal settings, when images have changed since,
        and, without ``force``, for the training split of the run, for images (by content) that the run or the run that
        provided its initial weights has seen, and where that is unknown. `DatasetError` when images are missing or the
        split is empty, `ConfigurationError` when the metrics cannot be written into the folder of the run,
        `CheckpointError` for a damaged checkpoint, or when the outputs of the network are not finite.
    """
    target, seen, warning = check_measurable(run, boxes, split, force)
    if not images_checked:
        check_images(boxes, root, split, watch=watch, say=say)
    rows = boxes.rows(split)
    checkpoint = load_checkpoint(run / BEST)
    dataset = RegionDataset(boxes, root, checkpoint.size_hw, regions=checkpoint.regions > 0)
    loader = Loader(dataset, rows, batch_size, workers)
    predictions = evaluate(
        device.take(checkpoint.model),
        loader.epoch(0),
        device=device,
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
        image_size=plain_size(checkpoint.size_hw),
        images_seen_in_training=seen,
    )


def _write_all(
    target: Path, content: dict[str, object], metrics: Metrics, predictions: SplitPredictions, title: str
) -> None:
    """Write all files of an evaluation; the metrics file, which marks it as complete, comes last."""
    from .evaluation_plots import draw_calibration, draw_confusion  # matplotlib takes a second to load

    part = target.stem.removeprefix("metrics")  # the split, and the hash of a boxes file other than the run's
    save_predictions(target.with_name(f"predictions{part}{SUFFIX}"), predictions)
    draw_confusion(metrics, target.with_name(f"confusion{part}.png"), title)
    draw_calibration(metrics, target.with_name(f"calibration{part}.png"), title)
    write_text(target.with_suffix(".csv"), metrics_csv(metrics))
    write_text(target, json.dumps(content, indent=1) + "\n")

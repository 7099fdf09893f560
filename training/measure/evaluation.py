"""Measuring a run on one split, if it has not seen that split's images before."""

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
    """A run's metrics, where they were written to, and what is to be held against them."""

    metrics: Metrics
    file: Path
    warning: str = ""
    claim: Claim | None = None  #: what the paper says of such a network on this test part
    predictions: SplitPredictions | None = None  #: of every image


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
    """Metrics of a run's best checkpoint on ``split`` of ``boxes``: the run's own file, or another of its kind.

    Written into the run's folder: metrics as JSON and CSV, predictions for every image, the confusion matrix and the
    calibration as pictures.

    Args:
        force: measure on images that the run was trained on or selected by, too; the file then says how many.
        images_checked: whether `check_images` has passed, as for several runs that are measured on the same images.
        watch: told what is going on, for a progress bar.
        say: told in a line what else a person wants to know.

    Raises: `MismatchError` when ``boxes`` has other classes or was made by other proposal settings, when images have
        changed since, and without ``force`` for the run's own train part, for images that the run, or the one it began
        from, has seen (by content), and where nobody can tell. `DatasetError` when images are missing or there are
        none, `ConfigurationError` when the metrics cannot be written into the run's folder, `CheckpointError` for an
        unsound checkpoint, or when the network's outputs are not finite numbers.
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
    """Every file of an evaluation, the one that says it is complete last."""
    from .evaluation_plots import draw_calibration, draw_confusion  # matplotlib takes a second to load

    part = target.stem.removeprefix("metrics")  # the split, and what tells another boxes file's
    save_predictions(target.with_name(f"predictions{part}{SUFFIX}"), predictions)
    draw_confusion(metrics, target.with_name(f"confusion{part}.png"), title)
    draw_calibration(metrics, target.with_name(f"calibration{part}.png"), title)
    write_text(target.with_suffix(".csv"), metrics_csv(metrics))
    write_text(target, json.dumps(content, indent=1) + "\n")

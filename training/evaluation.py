"""Measuring a run on one split."""

from __future__ import annotations

import json
from pathlib import Path

from ..data.atomic import atomic_file
from ..data.boxes_reader import Boxes
from ..data.errors import DatasetError, MismatchError
from .checkpoints import load_checkpoint
from .dataset import Loader, RegionDataset, check_images_present
from .engine import Device, evaluate
from .fit import BEST, Watch
from .metrics import Metrics, measure


def evaluate_run(
    run: Path,
    boxes: Boxes,
    root: Path,
    split: str,
    batch_size: int,
    device: Device,
    workers: int,
    *,
    watch: Watch,
) -> tuple[Metrics, Path]:
    """Metrics of a run's best checkpoint on ``split``, and the JSON file in the run's folder they were written to.

    Raises: `MismatchError` when ``boxes`` is not the file the run was trained with.
    """
    checkpoint = load_checkpoint(run / BEST)
    if checkpoint.fingerprint != boxes.fingerprint:
        raise MismatchError(
            f"{run} was trained with other boxes than {boxes.path} holds (fingerprint {checkpoint.fingerprint} "
            f"against {boxes.fingerprint}); name the right file with --boxes"
        )
    rows = boxes.rows(split)
    if not len(rows):
        raise DatasetError(f"{boxes.path} has no usable {split} images")
    check_images_present(boxes, root)
    loader = Loader(RegionDataset(boxes, root, checkpoint.preprocessing.size), rows, batch_size, workers)
    predictions = evaluate(
        checkpoint.model.to(device.device),
        loader.epoch(0),
        device=device,
        preprocessing=checkpoint.preprocessing,
        progress=watch(f"evaluate {split}", loader.images),
    )
    metrics = measure(predictions.logits, predictions.labels, checkpoint.classes)
    content = {
        "split": split,
        "epoch": checkpoint.epoch,
        "boxes_fingerprint": boxes.fingerprint,
        "device": device.device.type,
        "precision": device.precision,
        **metrics.to_dict(),
    }
    target = run / f"metrics-{split}.json"
    with atomic_file(target) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return metrics, target

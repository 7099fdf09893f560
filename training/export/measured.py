"""Export in half precision or 8-bit integers, with the loss of accuracy measured on photographs before it is kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from ...data.boxes.reader import Boxes
from ...data.errors import CheckpointError, ConfigurationError, DatasetError
from ...data.files import atomic_file, write_text
from ..measure.measurable import check_images, check_same_kind
from ..runs.checkpoint_header import read_header
from ..runs.checkpoints import load_checkpoint
from ..runs.folder import checkpoint_hash
from ..runs.provenance import code_revision
from ..samples.loader import Batch, Loader, RegionDataset
from .export import export_run, trial_inputs
from .formats import INT8
from .loss import PrecisionLoss, measure_loss
from .lower_precision import write_half, write_int8
from .target import check_export, report_of
from .writing import Inputs, load_onnx, reason

CALIBRATION = 128  #: photographs of the training split that set the ranges of activations, evenly spaced
_BATCH = 16
_LEAST_AGREEMENT = 0.5  # below it a file is another network

Watch = Callable[[str, int], Callable[[int, dict[str, float]], None]]


@dataclass(frozen=True)
class Measured:
    """A written file of lower precision, and what it costs."""

    file: Path
    report: Path  #: the same numbers as JSON
    precision: str
    split: str
    loss: PrecisionLoss
    settings: dict[str, object]  #: how the file was made, and on what it was measured

    def to_dict(self) -> dict[str, object]:
        return {
            "file": self.file.name,
            "precision": self.precision,
            "split": self.split,
            **self.settings,
            **self.loss.to_dict(),
        }


def export_measured(
    run: str | Path,
    precision: str,
    output: Path | None,
    boxes: Boxes,
    root: Path,
    split: str = "val",
    limit: int = 1000,
    workers: int = 0,
    watch: Watch = lambda what, images: lambda done, values: None,
) -> Measured:
    """Export a run's best checkpoint as an ONNX file of lower precision, and measure what it loses.

    The float32 file that it is made from, and compared with, computes what the network computes (`export_run`).

    Args:
        run: Folder of the run, or its checkpoint.
        precision: ``half`` or ``int8``.
        output: File to write. None: ``model-half.onnx`` or ``model-int8.onnx`` beside the checkpoint. A report is
            written beside it, under its name with ``.json`` added.
        boxes: Boxes file of images with the classes of the run.
        root: Folder of the images.
        split: Split to measure on.
        limit: Largest number of its images, evenly spaced.
        workers: Number of processes that read images.
        watch: Callback that returns a progress callback for a named task and a number of images.

    Raises: as `export_run`; `ConfigurationError` for a boxes file of clips or of persons to search for; `MismatchError`
        for other classes, other regions or other images than the run's; `CheckpointError` if an operator does not
        survive, outputs are not finite, or most answers are others.
    """
    path, output = check_export(run, "onnx", output, precision)
    _check_boxes(path, boxes, root, split, precision)
    measured, calibration = _rows(boxes, split, limit), _rows(boxes, "train", CALIBRATION)
    checkpoint = load_checkpoint(path)
    dataset = RegionDataset(boxes, root, checkpoint.size_hw, regions=checkpoint.regions > 0)
    with tempfile.TemporaryDirectory() as folder, atomic_file(output) as unfinished:
        source = Path(folder) / "float.onnx"
        export_run(path, "onnx", source)
        if precision == INT8:
            seen = watch("calibrate", len(calibration))
            done = write_int8(source, unfinished, lambda: _inputs(dataset, calibration, workers, seen))
            done["calibration_images"] = len(calibration)
        else:
            done = write_half(source, unfinished)
        _check_runs(unfinished, precision, checkpoint.size_hw, checkpoint.regions)
        shown = watch("measure", len(measured))
        loss = measure_loss(
            load_onnx(source),
            load_onnx(unfinished),
            _batches(dataset, measured, workers),
            (source, unfinished),
            lambda count: shown(count, {}),
        )
        _check_loss(loss, precision)
        settings = {**done, "network": checkpoint_hash(path), "epoch": checkpoint.epoch, **_circumstances(boxes)}
        found = Measured(output, report_of(output), precision, split, loss, settings)
        write_text(found.report, json.dumps(found.to_dict(), indent=1) + "\n")
    return found


def _circumstances(boxes: Boxes) -> dict[str, object]:
    return {
        "boxes_fingerprint": boxes.fingerprint,
        "batch_size": _BATCH,
        "threads": torch.get_num_threads(),
        "onnxruntime": onnxruntime.__version__,
        **code_revision(),
    }


def _check_boxes(path: Path, boxes: Boxes, root: Path, split: str, precision: str) -> None:
    if boxes.of_clips or boxes.is_retrieval:
        what = "clips" if boxes.of_clips else "persons to search for"
        raise ConfigurationError(
            f"the loss of --precision {precision} is measured on the classes of images, and {boxes.path} has {what}"
        )
    check_same_kind(path.parent, read_header(path), boxes)
    for part in dict.fromkeys(["train", split] if precision == INT8 else [split]):
        if not len(boxes.rows(part)):
            remedy = "measure on another with --split" if part == split else "int8 needs them to set its ranges"
            raise DatasetError(f"{boxes.path} has no usable {part} images: {remedy}")
        check_images(boxes, root, part)


def _rows(boxes: Boxes, split: str, most: int) -> np.ndarray:
    """At most so many rows of a split, evenly spaced."""
    rows = boxes.rows(split)
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _batches(dataset: RegionDataset, rows: np.ndarray, workers: int) -> Iterator[tuple[Inputs, Tensor]]:
    loader = Loader(dataset, rows, _BATCH, workers)
    try:
        for batch in loader.epoch(0):
            yield _of_batch(batch), batch.labels
    finally:
        loader.close()


def _inputs(
    dataset: RegionDataset, rows: np.ndarray, workers: int, progress: Callable[[int, dict[str, float]], None]
) -> Iterator[Inputs]:
    done = 0
    for inputs, labels in _batches(dataset, rows, workers):
        yield inputs
        done += len(labels)
        progress(done, {})


def _of_batch(batch: Batch) -> Inputs:
    images, regions = batch.images.contiguous(), batch.regions
    return {"images": images} if regions is None else {"images": images, "boxes": regions[:, 0]}


def _check_runs(file: Path, precision: str, size_hw: tuple[int, int], regions: int) -> None:
    """Raise `CheckpointError` if ONNX Runtime cannot run the file, or gives values that are not finite."""
    try:
        run = load_onnx(file)
        outputs = [run(inputs) for inputs in trial_inputs(size_hw, regions)]
    except Exception as error:  # onnxruntime's errors have no narrower base class
        raise CheckpointError(
            f"an operator of this network does not survive --precision {precision}, so no file was written: "
            f"{reason(error)}"
        ) from error
    bad = {name for one in outputs for name, value in one.items() if not value.isfinite().all()}
    if bad:
        raise CheckpointError(
            f"with --precision {precision} the outputs {', '.join(sorted(bad))} are not finite numbers, so no file was "
            "written: values of this network exceed the precision's range"
        )


def _check_loss(loss: PrecisionLoss, precision: str) -> None:
    if loss.agreement < _LEAST_AGREEMENT:
        raise CheckpointError(
            f"with --precision {precision} only {loss.agreement:.0%} of {loss.images:,} photographs still get the "
            f"same answer (top-1 {loss.top1:.1%} for {loss.top1_float:.1%}), so no file was written: this network does "
            "not survive it"
        )

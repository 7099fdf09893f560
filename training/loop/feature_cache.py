"""Computation of the features of a frozen backbone, once for all epochs and for all runs that share them."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ...data.boxes.reader import Boxes
from ...data.errors import ConfigurationError, DatasetError
from ...data.files import PatientFile, atomic_file, check_writable, interrupts_postponed, one_process
from ...data.names import TRAIN_FOLD
from ...data.text import rough_size, rows_called
from ..machine.devices import Device, Pieces
from ..models.backbones.backbone import PackedMaps
from ..models.contract import Settings
from ..models.model import Model
from ..models.views import views_of
from ..recipes import Recipe
from ..samples.features import FEATURES, FORMAT, FORMAT_VERSION, ROW, ROWS, FeatureDataset, FeatureFile
from ..samples.loader import Batch, Loader, dataset_of
from ..tasks import task_of
from .engine import Watch

_BATCH = 16  # frames are computed in batches of about this many
_LARGEST = float(np.finfo(np.float16).max)
_NO_ROOM = "delete feature files of earlier runs beside it, or leave out --cache-features"


class FeatureCache:
    """The features that a run reads in place of images: of its training and validation rows.

    They include the rows of a fold that the run leaves out, so that the runs of all folds share one file.

    Args:
        model: Network on its device, with its final size of images; its backbones are frozen.
        settings: Settings of the model.
        boxes: Boxes file of the images.
        root: Folder of the images.
        recipe: Training settings.
        device: Device and precision.
    """

    def __init__(
        self, model: Model, settings: Settings, boxes: Boxes, root: Path, recipe: Recipe, device: Device
    ) -> None:
        self._model, self._boxes, self._root, self._device = model, boxes, root, device
        self._sampling = recipe.sampling_of_clips
        splits = task_of(boxes).splits
        shown = (splits.trained_on, splits.chosen_by, TRAIN_FOLD)
        self.rows = np.sort(np.concatenate([boxes.rows(split) for split in shown]))
        self.frames = self._sampling.frames if self._sampling else 1
        self.packed = self._packing()
        self.key = self._key(settings)
        self.path = boxes.path.with_name(f"{boxes.path.stem}.features-{self.key[:12]}.h5")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of rows, frames T, and numbers L of a frame."""
        return len(self.rows), self.frames, sum(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Numbers of features of each view of a frame."""
        return tuple(sum(one.size for one in of_view) for of_view in self.packed)

    @property
    def bytes(self) -> int:
        """Size of the features."""
        return 2 * math.prod(self.shape)

    def _packing(self) -> list[list[PackedMaps]]:
        """Place of each backbone's maps in the features of each view, from the maps of an empty image."""
        empty = torch.zeros(1, 3, *self._model.input_hw, device=self._device.device)
        return [self._places(view) for view in self._views(empty)]

    def _places(self, view: Tensor) -> list[PackedMaps]:
        found, first = [], 0
        for backbone in self._model.backbones:
            with torch.no_grad(), self._device.autocast():
                maps = backbone.eval().maps(view)
            found.append(PackedMaps(first, tuple((one.shape[1], one.shape[2], one.shape[3]) for one in maps)))
            first += found[-1].size
        return found

    def _views(self, images: Tensor) -> list[Tensor]:
        return [images] if self._model.views is None else views_of(images, self._model.views)

    def _key(self, settings: Settings) -> str:
        weights = hashlib.blake2b(digest_size=16)
        for backbone in self._model.backbones:
            for name, value in backbone.state_dict().items():
                weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                weights.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        parts = [
            FORMAT_VERSION,
            [list(stream) for stream in settings.streams],
            weights.hexdigest(),
            [asdict(backbone.preprocessing) for backbone in self._model.backbones],
            self._model.size_hw,
            *([views.record] if (views := self._model.views) else []),  # older files have no such entry
            self._boxes.fingerprint,
            self.rows.tolist(),
            asdict(self._sampling) if self._sampling else None,
            self._device.precision,
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def prepare(self, workers: int, watch: Watch, say: Callable[[str], None]) -> None:
        """Compute the features unless the file has them.

        Raises: `DatasetError` if the file is damaged or foreign, another process is writing it, or the disk is full.
        """
        size = rough_size(self.bytes)
        told = f"{size}, features of {len(self.rows):,} {rows_called(self._sampling is not None)}"
        if self.path.exists():
            self.open()
            say(f"features of the frozen backbone from {self.path} ({told})")
            return
        say(f"computing the features of the frozen backbone once, into {self.path} ({told})")
        check_writable(self.path, "copy the boxes file to another folder, or leave out --cache-features")
        if shutil.disk_usage(self.path.parent).free < self.bytes + 2**20:
            raise DatasetError(f"cannot write {self.path}: the disk has no room for {size}; {_NO_ROOM}")
        busy = DatasetError(f"another run is computing {self.path}; wait for it, and start this one again")
        with one_process(self.path.with_name(f"{self.path.name}.lock"), busy):
            try:
                self._write(workers, watch, say)
            except (OSError, RuntimeError) as error:
                if "No space left" in str(error):
                    raise DatasetError(f"cannot write {self.path}: no space left on the disk; {_NO_ROOM}") from None
                raise

    def open(self) -> FeatureFile:
        """Open the file. Raises: `DatasetError` as `FeatureFile`."""
        return FeatureFile(self.path, self.key)

    def dataset(self, regions: bool) -> FeatureDataset:
        """Build the dataset of the features."""
        return FeatureDataset(self._boxes, self._model.input_hw, self.open(), regions=regions)

    def use_in(self, *models: Model) -> None:
        """Make the backbones of copies of the model read features in place of images."""
        for model in models:
            model.lengths_of_views = self.lengths
            for number, backbone in enumerate(model.backbones):
                backbone.packed = dict(zip(self.lengths, (of_view[number] for of_view in self.packed), strict=True))

    def _write(self, workers: int, watch: Watch, say: Callable[[str], None]) -> None:
        images = dataset_of(self._boxes, self._root, self._model.input_hw, self._sampling, regions=False)
        loader = Loader(images, self.rows, max(1, _BATCH // self.frames), workers, postpones_signals=True)
        table = np.zeros(len(self.rows), [*ROW, ("frames", "<i4", (self.frames,))])
        shown, pieces, at = watch("features", len(self.rows)), Pieces(self._device, say), 0
        try:
            with (
                interrupts_postponed() as interrupts,
                atomic_file(self.path) as unfinished,
                PatientFile(unfinished) as disk,
                h5py.File(disk, "w", libver=("earliest", "v110")) as file,
            ):
                features = file.create_dataset(FEATURES, self.shape, np.float16)
                for batch in loader.epoch(0):
                    found = self._features(batch.on(self._device), pieces)
                    numbers = (
                        torch.zeros_like(batch.valid, dtype=torch.int32) if batch.numbers is None else batch.numbers
                    )
                    for row, values, frames in zip(batch.rows.tolist(), found, numbers.numpy(), strict=True):
                        features[at] = values
                        table[at] = (row, zlib.crc32(values.data), frames)
                        at += 1
                    shown(at, {})
                    interrupts()
                    disk.check()
                file.create_dataset(ROWS, data=table)
                self._describe(file)
        finally:
            loader.close()

    def _features(self, batch: Batch, pieces: Pieces) -> np.ndarray:
        """Compute packed features ``(B, T, L)`` in half precision; 0 for padding."""
        images = batch.valid_images

        def compute(cut: slice) -> np.ndarray:
            with torch.no_grad(), self._device.autocast():
                maps = [
                    one
                    for view in self._views(images[cut])
                    for backbone in self._model.backbones
                    for one in backbone.eval().maps(view)
                ]
            return torch.cat([_flat(one) for one in maps], dim=1).cpu().numpy()

        values = np.concatenate(pieces.of(len(images), compute))
        if not np.abs(values).max() <= _LARGEST:  # also for NaN
            raise ConfigurationError(
                "--cache-features stores half precision, and the backbone returns numbers beyond it; leave it out"
            )
        found = np.zeros((*batch.valid.shape, values.shape[1]), np.float16)
        found[batch.valid.cpu().numpy()] = values
        return found

    def _describe(self, file: h5py.File) -> None:
        backbones = ", ".join(str(one.shapes) for of_view in self.packed for one in of_view)
        file.attrs["description"] = np.bytes_(
            f"Feature maps of a frozen backbone, for agnet train --cache-features; may be deleted. Maps: {backbones}"
        )
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["format_version"] = np.int32(FORMAT_VERSION)
        file.attrs["key"] = np.bytes_(self.key)
        file.attrs["complete"] = np.int8(1)  # written last


def _flat(features: Tensor) -> Tensor:
    """Flatten maps ``(B, C, h, w)`` to ``(B, h · w · C)`` in single precision."""
    return features.permute(0, 2, 3, 1).flatten(1).float()

"""Features of a frozen backbone, computed once: reading of their file, and samples made from them."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
import torch

from ...data.boxes.reader import Boxes
from ...data.errors import DatasetError
from ...data.text import first_line
from .loader import ClipSample, Key, RegionDataset
from .views import View

FORMAT, FORMAT_VERSION = "agnet features", 1
FEATURES, ROWS = "features", "rows"  #: names of the tables
ROW = [("row", "<i8"), ("crc32", "<u4")]  # and the frames


class FeatureFile:
    """An open feature file: rows of packed features ``(T, L)`` in half precision.

    The numbers are mapped, not read, so that processes share them and a sample costs the copy of its row.

    Args:
        path: HDF5 file.
        key: Key of everything that the features depend on.

    Raises: `DatasetError` if it is not the complete feature file of this key.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        try:
            with h5py.File(path, "r") as file:
                found = {name: file.attrs.get(name) for name in ("format", "format_version", "key", "complete")}
                wanted = {
                    "format": FORMAT.encode(),
                    "format_version": FORMAT_VERSION,
                    "key": key.encode(),
                    "complete": 1,
                }
                if found != wanted:
                    raise ValueError("it is not the complete feature file of this backbone and these images")
                features, rows = _inside(file, FEATURES), _inside(file, ROWS)[:]
                self.shape = features.shape
                if features.dtype != np.float16 or features.ndim != 3 or len(rows) != len(features):
                    raise ValueError("its tables are not those of a feature file")
                self.features = np.memmap(path, np.float16, "r", features.id.get_offset(), self.shape)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise DatasetError(f"{path}: {first_line(error)}; delete it, and it is made again") from None
        self._rows = rows
        self._place = {row: number for number, row in enumerate(rows["row"].tolist())}

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the features ``(T, L)`` of a row of the boxes file, and the numbers of its frames ``(T,)``; -1: padding.

        Raises: `DatasetError` if they are damaged or not there.
        """
        place = self._place.get(row)
        if place is None:
            raise DatasetError(f"{self.path}: it has no features of row {row}; delete it, and it is made again")
        found = np.array(self.features[place])
        if zlib.crc32(found.data) != self._rows["crc32"][place]:
            raise DatasetError(f"{self.path}: the features of row {row} are damaged; delete it, and it is made again")
        return found, self._rows["frames"][place]


class NoFeatures(FeatureFile):
    """Zeros in place of the features of a file, to measure how long training on features takes.

    Args:
        shape: Numbers of rows, frames T and numbers L of a frame.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(self.shape[1:], np.float16), np.zeros(self.shape[1], np.int32)


def _inside(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of this name. Raises: `ValueError` if its numbers are not in one piece in this very file."""
    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.id.get_offset() is None or found.external:
        raise ValueError("its tables are not those of a feature file")
    return found


class FeatureDataset(RegionDataset):
    """Samples of features in place of pixels, with the regions of the view without augmentation.

    Args:
        boxes: Boxes file of the images or clips.
        size_hw: Height and width of the images that the features were computed from.
        file: Feature file.
        regions: Whether to compute regions.
    """

    def __init__(self, boxes: Boxes, size_hw: tuple[int, int], file: FeatureFile, *, regions: bool) -> None:
        super().__init__(boxes, Path(), size_hw, regions=regions)
        self.file = file
        self.frames = file.shape[1]

    @property
    def bytes_of_a_sample(self) -> int:
        return 2 * self.file.shape[1] * self.file.shape[2]

    def __getitem__(self, key: Key) -> ClipSample:
        row, label = self._row_and_label(key)
        features, frames = self.file.read(row)
        width, height = self.boxes.sizes_wh[self.boxes.usable[row]].tolist()
        view = View.of((width, height), self.size_hw)
        regions, region_valid = self._regions_of(row, view, frames) if self.regions else (None, None)
        numbers = torch.from_numpy(frames.copy())
        return ClipSample(torch.from_numpy(features), numbers >= 0, regions, region_valid, numbers, label, row)

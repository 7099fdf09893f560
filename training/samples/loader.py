"""Images and their regions, streamed to the network."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.boxes.reader import Boxes
from ...data.errors import AgnetError, DatasetError, MismatchError
from ...data.images import pixel_limit, read_image
from ..machine.devices import Device
from ..machine.torch_internals import (
    Batches,
    end_if_a_batch_cannot_be_sent,
    is_lost_worker,
    is_of_worker,
    message_of_worker,
)
from .reading import Propose
from .views import AffineRange, View

Key = tuple[int, int]  #: (epoch, row): a sample is a function of it, whatever worker makes it; ~row for a stand-in
SHARED_MEMORY = Path("/dev/shm")  # small in containers, unless asked for
BATCHES_OF_A_WORKER = 3  #: under way in shared memory at most: two made ahead, and one that the network has
STAND_IN = -100  #: label of a sample that counts nothing, PyTorch's own number for it


class Batch(NamedTuple):
    """B samples of T frames each; an image is one frame. Pixels stay bytes until they are on the device: a quarter of
    the traffic.
    """

    frames: Tensor  #: uint8 ``(B, T, 3, H, W)``, channels last in memory
    valid: Tensor  #: bool ``(B, T)``: False for the padding after a short clip; every sample has a valid frame
    regions: Tensor | None  #: float32 ``(B, T, R, 4)`` xyxy in fractions of the frame; None for models without regions
    labels: Tensor  #: int64 ``(B,)``; `STAND_IN` where a process has no sample of its own in a short batch
    rows: Tensor  #: int64 ``(B,)``, rows of the boxes file's usable images

    @property
    def images(self) -> Tensor:
        """The first frames, uint8 ``(B, 3, H, W)``: a view."""
        return self.frames[:, 0]

    def inputs(self, names: Sequence[str]) -> tuple[Tensor | None, ...]:
        """The fields that a model names as its inputs, in that order.

        One that names ``images`` sees the first frame alone, so its ``regions`` are ``(B, R, 4)``, that frame's; one
        that names ``frames`` gets ``(B, T, R, 4)``.
        """
        found = {name: getattr(self, name) for name in names}
        if "images" in found and found.get("regions") is not None:
            found["regions"] = found["regions"][:, 0]
        return tuple(found.values())

    def cut(self, some: slice) -> Batch:
        """Some of the samples: views."""
        regions = None if self.regions is None else self.regions[some]
        return Batch(self.frames[some], self.valid[some], regions, self.labels[some], self.rows[some])

    def on(self, device: Device) -> Batch:
        """The batch on a device, its frames channels last in memory."""
        regions = None if self.regions is None else device.on(self.regions)
        frames, valid = device.frames(self.frames), device.on(self.valid)
        return Batch(frames, valid, regions, device.on(self.labels), device.on(self.rows))

    @staticmethod
    def of_images(
        images: Tensor, regions: Tensor | None = None, labels: Tensor | None = None, rows: Tensor | None = None
    ) -> Batch:
        """Samples of one frame: images ``(B, 3, H, W)``, regions ``(B, R, 4)``, views of both. Without ``labels`` they
        are those of stand-ins, without ``rows`` 0, 1, 2, ...
        """
        labels = torch.full((len(images),), STAND_IN) if labels is None else labels
        rows = torch.arange(len(images)) if rows is None else rows
        valid = torch.ones(len(images), 1, dtype=torch.bool)
        return Batch(images[:, None], valid, None if regions is None else regions[:, None], labels, rows)


_Sample = tuple[Tensor, Tensor | None, int, int]  #: pixels ``(3, H, W)``, regions ``(R, 4)``, label, row


class RegionDataset(Dataset[_Sample]):
    """The usable images of a boxes file, each with its regions in the same view if the model looks at regions.

    Args:
        boxes: read once, in the main process; flat arrays, which workers share: by fork, or else as shared memory.
        root: where the images are.
        size_hw: height and width of the network's input, in pixels.
        augment: random views, or None for the plain one.
        seed: of the views; with epoch and row it decides them.
        propose: finds the regions of each view anew, as the paper does, instead of moving the file's with the pixels.
        regions: whether to compute regions. Without, samples have none, whatever the file holds.
    """

    def __init__(
        self,
        boxes: Boxes,
        root: Path,
        size_hw: tuple[int, int],
        augment: AffineRange | None = None,
        seed: int = 0,
        propose: Propose | None = None,
        *,
        regions: bool = True,
    ) -> None:
        self.boxes, self.root, self.size_hw = boxes, root, size_hw
        self.augment, self.seed, self.propose, self.regions = augment, seed, propose, regions
        self._shared: dict[str, _SharedArray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is no fork of this process: the boxes' arrays are not copied to each, but mapped."""
        boxes = {field.name: getattr(self.boxes, field.name) for field in fields(self.boxes)}
        arrays = {name: value for name, value in boxes.items() if isinstance(value, np.ndarray)}
        # As much again is left for the batches.
        if not self._shared and 2 * sum(array.nbytes for array in arrays.values()) < _free_shared_memory():
            self._shared = {name: _SharedArray.of(array) for name, array in arrays.items()}
        return self.__dict__ | {"boxes": boxes | self._shared, "_shared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        boxes = state["boxes"]
        arrays = {name: value.array() for name, value in boxes.items() if isinstance(value, _SharedArray)}
        self.__dict__.update(state, boxes=Boxes(**(boxes | arrays)))

    def __getitem__(self, key: Key) -> _Sample:
        epoch, row = key
        stands_in, row = row < 0, max(row, ~row)
        image_number = self.boxes.usable[row]
        name = self.boxes.names[image_number].decode()
        image = read_image(self.root / name, pixel_limit(self.boxes.settings.get("proposals", {})))
        width, height = self.boxes.sizes_wh[image_number].tolist()
        if image.shape[:2] != (height, width):
            raise MismatchError(
                f"{self.root / name} is {image.shape[1]} x {image.shape[0]} pixels, but {self.boxes.path} has its "
                f"boxes at {width} x {height}; propose again with --restart"
            )
        motion = None
        if self.augment is not None:
            motion = self.augment.draw(np.random.default_rng([self.seed, epoch, row]), self.size_hw)
        view = View.of((width, height), self.size_hw, motion)
        seen = view.pixels(image)
        pixels = torch.from_numpy(seen).permute(2, 0, 1)
        fractions = torch.from_numpy(self._fractions(row, view, seen)) if self.regions else None
        label = STAND_IN if stands_in else int(self.boxes.labels[image_number])
        return pixels, fractions, label, row

    def _fractions(self, row: int, view: View, seen: np.ndarray) -> np.ndarray:
        """The regions of a view ``(R, 4)``, in fractions of the frame."""
        if self.propose is None:
            return view.boxes(self.boxes.regions(row))
        return View.of(self.size_hw[::-1], self.size_hw).boxes(self.propose(seen))


def _free_shared_memory() -> float:
    """Bytes; infinitely many where it is not limited (no Linux). To write more than there are would be the end."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return math.inf


class _SharedArray(NamedTuple):
    """An array whose bytes are in shared memory: sent to a process, it is their address that goes."""

    content: Tensor
    dtype: str
    shape: tuple[int, ...]

    @staticmethod
    def of(array: np.ndarray) -> _SharedArray:
        content = torch.empty(array.nbytes, dtype=torch.uint8).share_memory_()
        content.numpy()[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return _SharedArray(content, array.dtype.str, array.shape)

    def array(self) -> np.ndarray:
        return self.content.numpy().view(self.dtype).reshape(self.shape)


class KeySampler:
    """Batches of (epoch, row), shuffled by (seed, epoch) or in order; every row exactly once.

    Of ``size`` processes each takes its ``rank``'s part of every batch, so that all take the same number of steps. One
    for whom a short batch has nothing takes the batch's first row as a stand-in.
    """

    def __init__(
        self, rows: np.ndarray, batch_size: int, shuffle_seed: int | None, rank: int = 0, size: int = 1
    ) -> None:
        self.rows, self.batch_size, self.shuffle_seed = rows, batch_size, shuffle_seed
        self.rank, self.size = rank, size
        self.epoch = 0
        self.first_step = 0  #: batches before it are left out

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        rows = self.rows
        if self.shuffle_seed is not None:
            rows = np.random.default_rng([self.shuffle_seed, self.epoch]).permutation(rows)
        for at in range(self.first_step * self.batch_size, len(rows), self.batch_size):
            batch = rows[at : at + self.batch_size]
            own = np.array_split(batch, self.size)[self.rank].tolist() or [~int(batch[0])]
            yield [(self.epoch, row) for row in own]


class Loader:
    """Batches of a `RegionDataset`, epoch by epoch.

    Args:
        dataset: the samples.
        rows: which of them.
        batch_size: of all processes together; the last batch may be smaller; none is dropped or padded.
        workers: processes that decode and warp, at most: one a batch does, and shared memory has to hold what they
            make. With 0 of them this process does it.
        shuffle_seed: None keeps the order.
        rank, size: which process this is, and of how many that share every batch.
        postpones_signals: this process notes SIGINT and SIGTERM and goes on for a while, so its readers must, too; it
            then has to `close` the loader in the end.
    """

    def __init__(
        self,
        dataset: RegionDataset,
        rows: np.ndarray,
        batch_size: int,
        workers: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        size: int = 1,
        postpones_signals: bool = False,
    ) -> None:
        self.sampler = KeySampler(rows, batch_size, shuffle_seed, rank, size)
        self.images = len(rows)
        batch_bytes = (
            batch_size * 3 * math.prod(dataset.size_hw)
        )  # of all processes: those of a machine share its memory
        room = _free_shared_memory() / (BATCHES_OF_A_WORKER * batch_bytes)
        workers = int(min(workers, len(self.sampler), room))
        self._batches = Batches(
            dataset,
            batch_sampler=self.sampler,
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_start_patient_worker if postpones_signals else _start_worker,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def close(self) -> None:
        """End the processes that read images."""
        self._batches.close()

    def epoch(self, number: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from ``first_step`` on.

        Raises what reading an image raises, also when a worker read it.
        """
        self.sampler.epoch, self.sampler.first_step = number, first_step
        try:
            yield from self._batches
        except RuntimeError as error:
            if not is_lost_worker(error):
                raise
            raise DatasetError(
                "a process that reads images has ended, most likely for want of memory (a container's shared memory, "
                "/dev/shm, is small unless asked for); take fewer --workers; training goes on with --resume"
            ) from None
        except OSError as error:
            if is_of_worker(error):
                raise
            raise DatasetError(
                f"the processes that read images cannot be started: {error.strerror}; take fewer --workers, or raise "
                "the limits of processes and open files (ulimit -u, ulimit -n) and the size of /dev/shm"
            ) from None
        except AgnetError as error:
            raise type(error)(message_of_worker(error)) from None


def _collate(samples: list[_Sample]) -> Batch:
    images, regions, labels, rows = zip(*samples, strict=True)
    # Stacking the H × W × 3 originals keeps channels last, which convolutions prefer.
    pixels = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    stacked = None if None in regions else torch.stack(regions)
    return Batch.of_images(pixels, stacked, torch.tensor(labels), torch.tensor(rows))


def _start_worker(_: int) -> None:
    # A loader is one of several processes: each keeps to its own core. OpenCV's pool would also not survive a fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    end_if_a_batch_cannot_be_sent()


def _start_patient_worker(number: int) -> None:
    _start_worker(number)
    # Ctrl-C and many schedulers signal all processes of a group. A second SIGTERM is the main process's own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *first: signal.signal(signal.SIGTERM, signal.SIG_DFL))

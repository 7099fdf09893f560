"""Load images with their regions and labels in batches, with worker processes."""

from __future__ import annotations

import math
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.boxes.reader import Boxes
from ...data.clips import frames_at, open_clip
from ...data.errors import AgnetError, DatasetError, MismatchError
from ...data.images import pixel_limit, read_image
from ...data.sampling import Sampling
from ...data.videos import Frame
from ..machine.devices import Device
from ..machine.torch_internals import (
    Batches,
    end_if_a_batch_cannot_be_sent,
    is_lost_worker,
    is_of_worker,
    message_of_worker,
)
from ..models.blocks.each_frame import gather, scatter, valid_mean
from ..models.contract import Output
from .reading import Propose
from .views import AffineRange, View, erased

#: (epoch, row), which determines a sample, whatever the worker; ~row for a stand-in; (epoch, row, window) of a clip
Key = tuple[int, ...]
SHARED_MEMORY = Path("/dev/shm")  # small in containers by default
BATCHES_OF_A_WORKER = 3  #: largest number in shared memory: two prefetched, and the one that the network uses
STAND_IN = -100  #: label of a sample that does not count: PyTorch's default ``ignore_index``


class Batch(NamedTuple):
    """B samples of T frames each; an image is one frame.

    Pixels stay bytes until they are on the device, which transfers a quarter of the data of float32.
    """

    #: uint8 ``(B, T, 3, H, W)``, channels last in memory; or half-precision features ``(B, T, L)``
    frames: Tensor
    valid: Tensor  #: bool ``(B, T)``, False for padding after a short clip; every sample has at least one valid frame
    regions: Tensor | None  #: float32 ``(B, T, R, 4)`` xyxy in fractions of the frame; None for models without regions
    labels: Tensor  #: int64 ``(B,)``; `STAND_IN` if a process has no sample in a short batch
    rows: Tensor  #: int64 ``(B,)``, rows among the usable images of the boxes file
    #: bool ``(B, T, R)``, False for a box without keypoints in its frame, which was filled in; None if all are True
    region_valid: Tensor | None = None
    numbers: Tensor | None = None  #: int32 ``(B, T)``, numbers of the frames in their clips, -1 for padding

    @property
    def images(self) -> Tensor:
        """The first frame of each sample, uint8 ``(B, 3, H, W)``, as a view."""
        return self.frames[:, 0]

    def inputs(self, names: Sequence[str]) -> tuple[Tensor | None, ...]:
        """Return the fields that a model names as its inputs, in that order.

        With ``images`` among the names, only the first frame is used and ``regions`` are ``(B, R, 4)``; with
        ``frames`` they are ``(B, T, R, 4)``.
        """
        found = {name: getattr(self, name) for name in names}
        if "images" in found and found.get("regions") is not None:
            found["regions"] = found["regions"][:, 0]
        return tuple(found.values())

    def called(self, network: Callable[..., Output], names: Sequence[str]) -> Output:
        """Call a network with the fields that it names as its inputs.

        A network of images receives every valid frame of a clip as an image, so that padding reaches no batch norm. Of
        its output, logits, region weights and maps are ``(B, T, ...)``, 0 for padding; embeddings and losses are means
        over the valid frames.
        """
        if "images" not in names or self.frames.shape[1] == 1:
            return network(*self.inputs(names))
        return _of_clips(network(*self._valid_frames().inputs(names)), self.valid)

    @property
    def valid_images(self) -> Tensor:
        """Every valid frame as an image ``(n, 3, H, W)``, sample after sample."""
        return gather(self.frames, self.valid)

    def _valid_frames(self) -> Batch:
        """Every valid frame as a sample of its own."""
        images = self.valid_images
        regions = None if self.regions is None else gather(self.regions, self.valid)[:, None]
        samples = self.valid.nonzero()[:, 0]
        return Batch(images[:, None], samples[:, None] >= 0, regions, self.labels[samples], self.rows[samples])

    def cut(self, some: slice) -> Batch:
        """Return a slice of the samples, as views."""
        return Batch(*(None if field is None else field[some] for field in self))  # type: ignore[arg-type]

    def on(self, device: Device) -> Batch:
        """Move the batch to a device, with its frames channels last in memory."""
        fields = (None if field is None else device.on(field) for field in self[1:])
        return Batch(device.frames(self.frames), *fields)  # type: ignore[arg-type]

    @staticmethod
    def of_images(
        images: Tensor, regions: Tensor | None = None, labels: Tensor | None = None, rows: Tensor | None = None
    ) -> Batch:
        """Build a batch of single-frame samples, as views of images ``(B, 3, H, W)`` and regions ``(B, R, 4)``.

        ``labels`` default to those of stand-ins, ``rows`` to 0, 1, 2, ...
        """
        labels = torch.full((len(images),), STAND_IN) if labels is None else labels
        rows = torch.arange(len(images)) if rows is None else rows
        valid = torch.ones(len(images), 1, dtype=torch.bool)
        return Batch(images[:, None], valid, None if regions is None else regions[:, None], labels, rows)


def _of_clips(output: Output, valid: Tensor) -> Output:
    """Put the output for the valid frames together by clips; see `Batch.called`."""

    def mean(values: Tensor) -> Tensor:
        return valid_mean(scatter(values, valid), valid)

    def if_there(function: Callable[[Tensor], Tensor], values: Tensor | None) -> Tensor | None:
        return None if values is None else function(values)

    losses = output.losses
    return Output(
        logits=scatter(output.logits, valid),
        region_weights=if_there(lambda values: scatter(values, valid), output.region_weights),
        attention_map=if_there(lambda values: scatter(values, valid), output.attention_map),
        embedding=if_there(mean, output.embedding),
        losses=None if losses is None else {name: mean(value[:, None])[:, 0] for name, value in losses.items()},
        compared=if_there(mean, output.compared),
    )


_Sample = tuple[Tensor, Tensor | None, int, int]  #: pixels ``(3, H, W)``, regions ``(R, 4)``, label, row


class ClipSample(NamedTuple):
    """A sample of T frames."""

    frames: Tensor  #: uint8 ``(T, H, W, 3)``, or features ``(T, L)``
    valid: Tensor  #: bool ``(T,)``
    regions: Tensor | None  #: ``(T, R, 4)``
    region_valid: Tensor | None  #: bool ``(T, R)``
    numbers: Tensor  #: int32 ``(T,)``
    label: int
    row: int


class RegionDataset(Dataset[Any]):
    """The usable images of a boxes file, each with its regions in the same view if the model uses regions.

    Args:
        boxes: Boxes file, read once in the main process. Its flat arrays are shared with the workers, by fork or in
            shared memory.
        root: Folder of the images.
        size_hw: Height and width of the network's input in pixels.
        augment: Range of the random augmentation; None for no augmentation.
        seed: Random seed of the augmentation, which also depends on epoch and row.
        propose: Function that proposes regions on each augmented view, as in the paper, instead of transforming the
            regions of the file with the pixels.
        regions: Whether to compute regions. If False, samples have none, whatever the file contains.
        erasing: Probability of `erased` for an augmented view.
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
        erasing: float = 0.0,
    ) -> None:
        self.boxes, self.root, self.size_hw = boxes, root, size_hw
        self.erasing = erasing
        self.augment, self.seed, self.propose, self.regions = augment, seed, propose, regions
        self._shared: dict[str, _SharedArray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a worker that is not forked: the boxes' arrays are mapped, not copied to each one."""
        boxes = {field.name: getattr(self.boxes, field.name) for field in fields(self.boxes)}
        arrays = {name: value for name, value in boxes.items() if isinstance(value, np.ndarray)}
        # The same amount must be left for the batches.
        if not self._shared and 2 * sum(array.nbytes for array in arrays.values()) < _free_shared_memory():
            self._shared = {name: _SharedArray.of(array) for name, array in arrays.items()}
        return self.__dict__ | {"boxes": boxes | self._shared, "_shared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        boxes = state["boxes"]
        arrays = {name: value.array() for name, value in boxes.items() if isinstance(value, _SharedArray)}
        self.__dict__.update(state, boxes=Boxes(**(boxes | arrays)))

    frames = 1  #: T, number of frames of a sample

    @property
    def bytes_of_a_sample(self) -> int:
        """Size of the pixels of a sample."""
        return self.frames * 3 * math.prod(self.size_hw)

    def _row_and_label(self, key: Key) -> tuple[int, int]:
        """Row of a key, and the label of its sample."""
        row = max(key[1], ~key[1])
        return row, STAND_IN if key[1] < 0 else int(self.boxes.labels[self.boxes.usable[row]])

    def __getitem__(self, key: Key) -> _Sample | ClipSample:
        epoch = key[0]
        row, label = self._row_and_label(key)
        image_number = self.boxes.usable[row]
        name = self.boxes.names[image_number].decode()
        image = read_image(self.root / name, pixel_limit(self.boxes.settings.get("proposals", {})))
        width, height = self.boxes.sizes_wh[image_number].tolist()
        if image.shape[:2] != (height, width):
            raise MismatchError(
                f"{self.root / name} is {image.shape[1]} x {image.shape[0]} pixels, but {self.boxes.path} has its "
                f"boxes at {width} x {height}; propose again with --restart"
            )
        motion, generator = None, np.random.default_rng([self.seed, epoch, row])
        if self.augment is not None:
            motion = self.augment.draw(generator, self.size_hw)
        view = View.of((width, height), self.size_hw, motion)
        seen = view.pixels(image)
        fractions = torch.from_numpy(self._fractions(row, view, seen)) if self.regions else None
        if self.augment is not None and self.erasing and generator.uniform() < self.erasing:
            seen = erased(seen, generator)
        pixels = torch.from_numpy(seen).permute(2, 0, 1)
        return pixels, fractions, label, row

    def _regions_of(self, row: int, view: View, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Regions ``(T, R, 4)`` of some frames in this view, the whole frame for padding, and whether they are valid.

        ``frames``: numbers of the T frames, -1 for padding.
        """
        count = self.boxes.layout.count
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (self.frames, count, 1))
        valid = np.zeros((self.frames, count), bool)
        for number in np.flatnonzero(frames >= 0).tolist():
            boxes[number] = view.boxes(self.boxes.regions(row, frames[number]))
            valid[number] = self.boxes.region_valid(row, frames[number])
        return torch.from_numpy(boxes), torch.from_numpy(valid)

    def _fractions(self, row: int, view: View, seen: np.ndarray) -> np.ndarray:
        """Return the regions of a view, ``(R, 4)`` xyxy in fractions of the frame."""
        if self.propose is None:
            return view.boxes(self.boxes.regions(row))
        return View.of(self.size_hw[::-1], self.size_hw).boxes(self.propose(seen))


class ClipDataset(RegionDataset):
    """The usable clips of a boxes file, as T frames each.

    All frames of a clip are augmented alike. A clip with fewer frames than T is padded at the end, and masked.

    Args:
        sampling: Choice of the frames: random ones with ``augment``, otherwise those in the middle or of a window.
        others: Other arguments of `RegionDataset`, except ``propose``.
    """

    def __init__(self, *others: Any, sampling: Sampling, **named: Any) -> None:
        super().__init__(*others, **named)
        if self.propose is not None:
            raise ValueError("regions cannot be proposed live for clips")
        self.sampling, self.frames = sampling, sampling.frames

    def windows(self, row: int) -> int:
        """Number of windows of the sampling that cover the clip of a row."""
        clips = self.boxes.clips
        assert clips is not None
        return self.sampling.windows(clips.last(self.boxes.usable[row]))

    def __getitem__(self, key: Key) -> ClipSample:
        epoch, _, window = (*key, 0)[:3]
        row, label = self._row_and_label(key)
        image_number = self.boxes.usable[row]
        generator = np.random.default_rng([self.seed, epoch, row])
        motion = None if self.augment is None else self.augment.draw(generator, self.size_hw)
        frames = self._read(image_number, window, None if self.augment is None else generator)
        width, height = self.boxes.sizes_wh[image_number].tolist()
        view = View.of((width, height), self.size_hw, motion)
        seen = np.zeros((self.frames, *self.size_hw, 3), np.uint8)
        for number, frame in enumerate(frames):
            seen[number] = view.pixels(frame.pixels)
        if self.augment is not None and self.erasing and generator.uniform() < self.erasing:
            seen = erased(seen, generator)
        numbers = np.full(self.frames, -1, np.int32)
        numbers[: len(frames)] = [frame.number for frame in frames]
        regions, region_valid = self._regions_of(row, view, numbers) if self.regions else (None, None)
        there = torch.from_numpy(numbers)
        return ClipSample(torch.from_numpy(seen), there >= 0, regions, region_valid, there, label, row)

    def _read(self, image_number: int, window: int, generator: np.random.Generator | None) -> list[Frame]:
        """Read the frames, at least one. Raises: `MismatchError` if the clip is another one than in the boxes file."""
        clips = self.boxes.clips
        assert clips is not None
        path = self.root / self.boxes.names[image_number].decode()
        times = self.sampling.times(clips.last(image_number), generator, window)
        rate = float(clips.frames_a_second[image_number])
        with open_clip(path, pixel_limit(self.boxes.settings.get("proposals", {}))) as clip:
            frames = list(frames_at(clip, times, rate))
        width, height = self.boxes.sizes_wh[image_number].tolist()
        ends_early = not frames or frames[-1].seconds < times[-1] - 1 / rate
        if ends_early or any(frame.pixels.shape[:2] != (height, width) for frame in frames):
            raise MismatchError(
                f"{path} does not have the {clips.frames[image_number]:,} frames of {width} x {height} pixels that "
                f"{self.boxes.path} has regions for; propose again with --restart"
            )
        return frames


def dataset_of(
    boxes: Boxes, root: Path, size_hw: tuple[int, int], sampling: Sampling | None, **others: Any
) -> RegionDataset:
    """Build the dataset of a boxes file: a `ClipDataset` with ``sampling``, otherwise a `RegionDataset`."""
    if sampling is None:
        return RegionDataset(boxes, root, size_hw, **others)
    return ClipDataset(boxes, root, size_hw, sampling=sampling, **others)


def _free_shared_memory() -> float:
    """Return the free shared memory in bytes; infinite without a limit (not Linux). Exceeding it is fatal."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return math.inf


class _SharedArray(NamedTuple):
    """An array in shared memory: pickling it for another process sends only its address."""

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
    """Batches of (epoch, row), in order or shuffled by (seed, epoch); every row occurs exactly once.

    Each of ``size`` processes gets its ``rank``'s share of every batch, so that all do the same number of steps. If a
    short batch leaves a process without a row, it gets the batch's first row as a stand-in.
    """

    def __init__(
        self, rows: np.ndarray, batch_size: int, shuffle_seed: int | None, rank: int = 0, size: int = 1
    ) -> None:
        self.rows, self.batch_size, self.shuffle_seed = rows, batch_size, shuffle_seed
        self.rank, self.size = rank, size
        self.images = len(rows)  #: number of images in an epoch
        self.epoch = 0
        self.first_step = 0  #: batches before it are skipped

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def _ordered(self) -> np.ndarray:
        """Return the rows of the epoch in order."""
        if self.shuffle_seed is None:
            return self.rows
        return np.random.default_rng([self.shuffle_seed, self.epoch]).permutation(self.rows)

    def __iter__(self) -> Iterator[list[Key]]:
        rows = self._ordered()
        for at in range(self.first_step * self.batch_size, len(rows), self.batch_size):
            batch = rows[at : at + self.batch_size]
            own = np.array_split(batch, self.size)[self.rank].tolist() or [~int(batch[0])]
            yield [(self.epoch, row) for row in own]


class WindowSampler(KeySampler):
    """Batches of (0, row, window): every window of every clip once, in order. ``rows`` repeat in them.

    Args:
        dataset: Clips.
        rows: Rows of the dataset.
        batch_size: Windows per batch.
    """

    def __init__(self, dataset: ClipDataset, rows: np.ndarray, batch_size: int) -> None:
        super().__init__(rows, batch_size, None)
        self._keys = [(0, row, window) for row in rows.tolist() for window in range(dataset.windows(row))]
        self.images = len(self._keys)

    def __iter__(self) -> Iterator[list[Key]]:
        for at in range(0, len(self._keys), self.batch_size):
            yield list(self._keys[at : at + self.batch_size])


class ClassSampler(KeySampler):
    """Batches of P classes with K images each, for losses that compare the images of a batch.

    An epoch has about as many images as there are rows. Every class is drawn as often as any other, give or take one,
    and none twice in a batch; so is every image of a class. In a class of fewer than K images, some occur twice in a
    batch, in the same view.

    Args:
        rows: Rows to draw from.
        labels: Class of each row.
        batch_size: P · K.
        per_class: K.
        shuffle_seed: Random seed, combined with the epoch.
    """

    def __init__(
        self, rows: np.ndarray, labels: np.ndarray, batch_size: int, per_class: int, shuffle_seed: int
    ) -> None:
        self._of_class = [rows[labels == label] for label in np.unique(labels)]
        self._classes = min(batch_size // per_class, len(self._of_class))
        self._per_class = per_class
        super().__init__(rows, self._classes * per_class, shuffle_seed)
        self.images = -(-len(rows) // self.batch_size) * self.batch_size

    def _ordered(self) -> np.ndarray:
        generator = np.random.default_rng([self.shuffle_seed or 0, self.epoch])
        waiting: list[int] = []  # classes in the order in which they are drawn next
        left = [np.zeros(0, np.int64) for _ in self._of_class]
        drawn = []
        for _ in range(len(self)):
            if len(waiting) < self._classes:
                waiting += generator.permutation(len(self._of_class)).tolist()
            batch = list(dict.fromkeys(waiting))[: self._classes]
            for number in batch:
                waiting.remove(number)  # its first place; the second is of the next round
                drawn.append(self._take(left, number, generator))
        return np.concatenate(drawn)

    def _take(self, left: list[np.ndarray], number: int, generator: np.random.Generator) -> np.ndarray:
        """Take K rows of a class from those that are left of it, refilled as needed; different ones if it has K."""
        own, k = self._of_class[number], self._per_class
        while len(left[number]) < k or len(np.unique(left[number])) < min(k, len(own)):
            left[number] = np.concatenate([left[number], generator.permutation(own)])
        firsts = np.sort(np.unique(left[number], return_index=True)[1])
        places = np.arange(k) if len(own) < k else firsts[:k]
        taken, left[number] = left[number][places], np.delete(left[number], places)
        return taken


class Loader:
    """Iterate over batches of a `RegionDataset`, epoch by epoch.

    Args:
        dataset: Samples to load.
        rows: Rows of the dataset to use.
        batch_size: Images per batch over all processes. The last batch may be smaller; none is dropped or padded.
        workers: Largest number of processes that decode and warp images; 0 to load in this process. Fewer are started
            if there are fewer batches or if shared memory is too small.
        shuffle_seed: Random seed of the order; None keeps the order.
        rank, size: Rank of this process and number of processes that share every batch.
        postpones_signals: Whether this process records SIGINT and SIGTERM and continues for a while. Its workers then
            do the same, and the loader must be closed with `close`.
        sampler: Order of the rows, in place of the one in ``shuffle_seed``, ``rank`` and ``size``.
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
        sampler: KeySampler | None = None,
    ) -> None:
        self.sampler = sampler or KeySampler(rows, batch_size, shuffle_seed, rank, size)
        self.images = self.sampler.images
        # Over all processes, since those of one machine share its memory.
        batch_bytes = batch_size * dataset.bytes_of_a_sample
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
        """Stop the worker processes."""
        self._batches.close()

    def epoch(self, number: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch ``number`` from ``first_step`` on.

        Raises: The errors of reading an image, also from a worker; `DatasetError` if a worker dies or cannot start.
        """
        self.sampler.epoch, self.sampler.first_step = number, first_step
        try:
            yield from self._batches
        except RuntimeError as error:
            if not is_lost_worker(error):
                raise
            raise DatasetError(
                "a worker process that reads images has died, most likely for lack of memory (a container's shared "
                "memory, /dev/shm, is small by default); use fewer --workers; training continues with --resume"
                f"{_hint_of_scripts()}"
            ) from None
        except OSError as error:
            if is_of_worker(error):
                raise
            raise DatasetError(
                f"the worker processes that read images cannot be started: {error.strerror}; use fewer --workers, or "
                "raise the limits of processes and open files (ulimit -u, ulimit -n) and the size of /dev/shm"
            ) from None
        except AgnetError as error:
            raise type(error)(message_of_worker(error)) from None


def _hint_of_scripts() -> str:
    """Another reason why workers end, where each first imports the user's script: unless they are forks."""
    if multiprocessing.get_start_method() == "fork":
        return ""
    return '; a script of your own that trains needs if __name__ == "__main__":, or no workers'


def _collate(samples: list[_Sample] | list[ClipSample]) -> Batch:
    if isinstance(samples[0], ClipSample):
        return _collate_clips(samples)
    images, regions, labels, rows = zip(*samples, strict=True)
    # Stacking as H × W × 3 keeps channels last in memory, which is faster for convolutions.
    pixels = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    stacked = None if None in regions else torch.stack(regions)
    return Batch.of_images(pixels, stacked, torch.tensor(labels), torch.tensor(rows))


def _collate_clips(samples: list[ClipSample]) -> Batch:
    frames, valid, regions, region_valid, numbers, labels, rows = zip(*samples, strict=True)
    stacked = torch.stack(frames)
    return Batch(
        stacked.permute(0, 1, 4, 2, 3) if stacked.ndim == 5 else stacked,
        torch.stack(valid),
        None if None in regions else torch.stack(regions),
        torch.tensor(labels),
        torch.tensor(rows),
        None if None in region_valid else torch.stack(region_valid),
        torch.stack(numbers),
    )


def _start_worker(_: int) -> None:
    # Several workers run in parallel, so each uses one core. OpenCV's thread pool would not survive a fork either.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    end_if_a_batch_cannot_be_sent()


def _start_patient_worker(number: int) -> None:
    _start_worker(number)
    # Ctrl-C and many schedulers signal all processes of a group; a second SIGTERM comes from the main process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *first: signal.signal(signal.SIGTERM, signal.SIG_DFL))

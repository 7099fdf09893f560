import dataclasses
import errno
import multiprocessing
import os
import pickle
import shutil
from functools import partial
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import DatasetError, ImageError, MismatchError
from agnet.proposals.one_image import propose_regions
from agnet.proposals.settings import ProposalSettings
from agnet.training.machine.torch_internals import Batches
from agnet.training.samples.loader import BATCHES_OF_A_WORKER, Loader, RegionDataset
from agnet.training.samples.views import AffineRange, View

SIDE = 64
SQUARE = (SIDE, SIDE)


@pytest.fixture
def boxes(boxes_file):
    return read_boxes(boxes_file)


def everything(loader, epoch):
    columns = list(zip(*loader.epoch(epoch), strict=True))[:5]
    frames, valid, regions, labels, rows = map(torch.cat, columns)
    assert valid.all() and valid.shape == frames.shape[:2] == regions.shape[:2] == (len(rows), 1)
    return frames[:, 0], regions[:, 0], labels, rows


def test_a_batch_has_the_promised_shapes(boxes, folder):
    loader = Loader(RegionDataset(boxes, folder, SQUARE), boxes.rows("train"), 4, workers=0)
    batch = next(iter(loader.epoch(0)))
    assert batch.images.shape == (4, 3, SIDE, SIDE) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.data_ptr() == batch.frames.data_ptr() and batch.frames.shape == (4, 1, 3, SIDE, SIDE)
    assert batch.regions.shape == (4, 1, 6, 4) and batch.regions.dtype == torch.float32
    names = [boxes.names[boxes.usable[row]].decode() for row in batch.rows]
    assert [boxes.classes[label] for label in batch.labels] == [name.split("/")[1] for name in names]


def test_every_row_comes_once_and_none_is_added(boxes, folder):
    rows = boxes.rows("train")
    for batch_size in (1, 2, 4, 5, 100):
        loader = Loader(RegionDataset(boxes, folder, SQUARE), rows, batch_size, workers=0, shuffle_seed=3)
        got = everything(loader, 0)[3].tolist()
        assert sorted(got) == sorted(rows.tolist())
        assert len(loader) == len(list(loader.epoch(1)))


def test_samples_are_a_function_of_seed_epoch_and_row_whatever_worker_makes_them(boxes, folder):
    def load(workers, seed, epoch):
        dataset = RegionDataset(boxes, folder, SQUARE, AffineRange(15, 0.15, 0.15), seed)
        return everything(Loader(dataset, boxes.rows("train"), 2, workers, shuffle_seed=seed), epoch)

    here, elsewhere = load(0, 5, 3), load(2, 5, 3)
    assert all(torch.equal(one, other) for one, other in zip(here, elsewhere, strict=True))
    assert not torch.equal(here[0], load(0, 5, 4)[0])
    assert not torch.equal(here[0], load(0, 6, 3)[0])
    assert here[3].tolist() != load(0, 5, 4)[3].tolist()


def test_workers_that_are_no_forks_map_the_boxes_instead_of_copying_them(boxes, folder):
    dataset = RegionDataset(boxes, folder, SQUARE, AffineRange(15, 0.15, 0.15), 3)
    sent = [ForkingPickler.dumps(dataset) for _ in range(2)]
    got = [pickle.loads(content) for content in sent]
    for other in got:
        for field in dataclasses.fields(boxes):
            own, its = getattr(boxes, field.name), getattr(other.boxes, field.name)
            if isinstance(own, np.ndarray):
                assert own.dtype == its.dtype and np.array_equal(own, its), field.name
            else:
                assert own == its, field.name
        for before, after in zip(dataset[1, 2], other[1, 2], strict=True):
            assert np.array_equal(before, after)
    got[0].boxes.hull_xy[0] = -7
    assert (got[1].boxes.hull_xy[0] == -7).all() and (boxes.hull_xy[0] != -7).all()


def test_where_shared_memory_is_small_each_worker_gets_a_copy(boxes, folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    dataset = RegionDataset(boxes, folder, SQUARE)
    other, another = (pickle.loads(ForkingPickler.dumps(dataset)) for _ in range(2))
    other.boxes.hull_xy[0] = -7
    assert np.array_equal(another.boxes.hull_xy, boxes.hull_xy) and not np.array_equal(
        other.boxes.hull_xy, boxes.hull_xy
    )


ROOM_OF_ONE = BATCHES_OF_A_WORKER * 4 * 3 * SIDE**2


@pytest.mark.parametrize(
    ("images", "free", "workers"), [(4, 10**9, 1), (10, 2 * ROOM_OF_ONE - 1, 1), (10, ROOM_OF_ONE - 1, 0)]
)
def test_there_are_no_more_workers_than_batches_or_than_shared_memory_has_room_for(
    boxes, folder, monkeypatch, images, free, workers
):
    """In a container of 64 MB, what 16 of them make of common batches does not fit."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    rows = boxes.rows("train")[:images]
    loader = Loader(RegionDataset(boxes, folder, SQUARE), rows, 4, workers=16)
    try:
        assert everything(loader, 0)[3].tolist() == rows.tolist()
        assert len(getattr(loader._batches._iterator, "_workers", [])) == workers
    finally:
        loader.close()


def test_more_workers_than_cores_are_no_warning(boxes, folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    loader = Loader(RegionDataset(boxes, folder, SQUARE), np.arange(5000), 1, workers=5000)
    assert loader._batches.num_workers == 5000


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="others do not inherit the patch")
def test_a_batch_that_cannot_be_sent_is_an_error_and_not_waited_for_for_ever(boxes, folder, monkeypatch):
    def full(*_):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", full)
    loader = Loader(RegionDataset(boxes, folder, SQUARE), boxes.rows("train"), 4, workers=1)
    try:
        with pytest.raises(DatasetError, match=r"shared memory.*--workers"):
            next(loader.epoch(0))
    finally:
        loader.close()


@pytest.mark.parametrize(("method", "hinted"), [("fork", False), ("forkserver", True), ("spawn", True)])
def test_a_script_that_workers_import_is_named_where_they_do(boxes, folder, monkeypatch, method, hinted):
    def lost(self):
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    monkeypatch.setattr(Batches, "__iter__", lost)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    with pytest.raises(DatasetError, match=r"has died.*--workers") as caught:
        next(Loader(RegionDataset(boxes, folder, SQUARE), np.arange(2), 2, 0).epoch(0))
    assert ("__main__" in str(caught.value)) == hinted


def test_a_machine_that_has_no_room_for_readers_says_so(boxes, folder, monkeypatch):
    def refuse(self):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    loader = Loader(RegionDataset(boxes, folder, (32, 32)), np.arange(4), 2, 2)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    with pytest.raises(DatasetError, match=r"cannot be started: Resource .* unavailable; use fewer --workers"):
        next(loader.epoch(0))


def test_pixels_and_regions_are_those_of_the_file(boxes, folder):
    rows = boxes.rows("test")
    images, regions, _, _ = everything(Loader(RegionDataset(boxes, folder, SQUARE), rows, 3, workers=0), 0)
    for number, row in enumerate(rows):
        image = boxes.usable[row]
        with Image.open(folder / boxes.names[image].decode()) as photograph:
            expected = np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=float)
            width, height = photograph.size
        assert np.abs(images[number].permute(1, 2, 0).numpy() - expected).mean() < 8
        primary = boxes.primary_xyxy[row] / [width, height, width, height]
        np.testing.assert_allclose(regions[number, :3].numpy(), primary, atol=0.1 / 80)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_of_another_size_than_its_boxes_is_refused(boxes, folder, workers):
    name = boxes.names[boxes.usable[boxes.rows("train")[0]]].decode()
    Image.new("RGB", (33, 44)).save(folder / name)
    loader = Loader(RegionDataset(boxes, folder, SQUARE), boxes.rows("train"), 2, workers)
    with pytest.raises(MismatchError, match="33 x 44 pixels") as error:
        list(loader.epoch(0))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_vanished_image_is_named(boxes, folder):
    name = boxes.names[boxes.usable[boxes.rows("train")[1]]].decode()
    (folder / name).unlink()
    with pytest.raises(ImageError, match=name):
        list(Loader(RegionDataset(boxes, folder, SQUARE), boxes.rows("train"), 2, 0).epoch(0))


def test_live_regions_are_those_of_the_view_itself(boxes_file, folder):
    boxes = read_boxes(boxes_file)
    settings = ProposalSettings.from_dict(boxes.settings["proposals"])
    live = RegionDataset(
        boxes, folder, (160, 160), AffineRange(15, 0.15, 0.15), 3, partial(propose_regions, settings=settings)
    )
    cached = RegionDataset(boxes, folder, (160, 160), AffineRange(15, 0.15, 0.15), 3)
    for row in range(4):
        pixels, regions, label, _ = live[2, row]
        same_pixels, moved, same_label, _ = cached[2, row]
        assert torch.equal(pixels, same_pixels) and label == same_label
        expected = propose_regions(pixels.permute(1, 2, 0).numpy(), settings).boxes_xyxy / 160
        np.testing.assert_allclose(regions, expected, atol=1e-6)
        assert regions.shape == moved.shape and not torch.equal(regions, moved)


def test_without_regions_none_are_computed_and_pixels_stay_the_same(boxes, folder, monkeypatch):
    given = boxes, folder, (64, 32), AffineRange(15, 0.15, 0.15), 3
    wanted = next(iter(Loader(RegionDataset(*given), boxes.rows("train"), 4, 0).epoch(1)))

    def refuse(*_):
        raise AssertionError("regions are computed")

    monkeypatch.setattr(View, "boxes", refuse)
    monkeypatch.setattr(type(boxes), "regions", refuse)
    found = next(iter(Loader(RegionDataset(*given, regions=False), boxes.rows("train"), 4, 1).epoch(1)))
    assert found.regions is None and wanted.regions is not None
    assert torch.equal(found.images, wanted.images) and found.images.shape == (4, 3, 64, 32)
    assert torch.equal(found.labels, wanted.labels) and torch.equal(found.valid, wanted.valid)

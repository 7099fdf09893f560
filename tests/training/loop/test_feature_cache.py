"""Features of a frozen backbone that are computed once: the same results as without, and no stale or broken file."""

import errno
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import ConfigurationError, DatasetError
from agnet.data.text import first_line, rough_size
from agnet.training.loop import feature_cache
from agnet.training.loop.engine import TIMINGS
from agnet.training.loop.feature_cache import FeatureCache
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Job
from agnet.training.loop.preflight import check_cacheable
from agnet.training.machine.devices import choose_device
from agnet.training.models.build import build_model
from agnet.training.models.contract import Views
from agnet.training.models.settings import AGNetSettings, PlainSettings, SRBNSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.folder import read_log

pytestmark = pytest.mark.usefixtures("small_mobilenet")

SMALL = "mobilenet-v3-small"
RECIPE = RECIPES["modern"].override(
    epochs=2, batch_size=4, image_size=64, augment=False, backbone_lr=0.0, warmup_epochs=0.0, fan_in=0, lr=1e-3
)
TIMES = (*TIMINGS, "images_at_once")


@pytest.fixture
def copied(boxes_file):
    return read_boxes(boxes_file)


def trained(boxes, folder, run, model, recipe=RECIPE, cached=True, **others):
    settings = RunSettings(weights="none", device="cpu", workers=0, cache_features=cached)
    fit(Job(run, boxes, folder, model, recipe, settings, **others))
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read_log(run)]


def values(log):
    return np.array([[value for value in line.values() if isinstance(value, float)] for line in log])


@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        ("plain", RECIPE),
        ("agnet", RECIPE),
        ("agnet", RECIPE.override(image_size=0, sizes="32 64")),
        ("plain", RECIPE.override(crops="five")),
    ],
)
def test_cached_features_train_as_computed_ones(copied, folder, tmp_path, family, recipe):
    settings = PlainSettings(3, backbone=SMALL)
    if family == "agnet":
        settings = AGNetSettings(3, regions=copied.layout.count, backbone=SMALL, units=4)
    cached, computed = (
        trained(copied, folder, tmp_path / str(one), settings, recipe, one, keep_states=True) for one in (True, False)
    )
    np.testing.assert_allclose(values(cached), values(computed), rtol=3e-3, atol=3e-3)
    resumed = tmp_path / "resumed"
    trained(copied, folder, resumed, settings, recipe, stop_after=1)
    assert trained(copied, folder, resumed, settings, recipe, resume=True) == cached


def test_the_key_changes_with_everything_that_the_features_depend_on(copied, folder):
    cpu = choose_device("cpu")

    def key(seed=0, size=64, stages=1, boxes=copied, recipe=RECIPE, views=None):
        torch.manual_seed(seed)
        settings = AGNetSettings(3, regions=copied.layout.count, backbone=SMALL, units=4, stages=stages)
        model = build_model(settings)
        model.size_hw, model.views = (size, size), views
        return FeatureCache(model, settings, boxes, folder, recipe, cpu).key

    others = [key(seed=1), key(size=96), key(stages=2), key(views=Views((32, 64))), key(views=Views())]
    others.append(key(boxes=replace(copied, attributes=copied.attributes | {"fingerprint": "0" * 32})))
    assert key() == key() and len({key(), *others}) == 7


def test_broken_and_foreign_files_are_refused_and_a_stopped_one_leaves_nothing(copied, folder, tmp_path, monkeypatch):
    settings = SRBNSettings(
        3, backbone=SMALL, second_backbone="torchvision:squeezenet1_1", units=4, bilinear_channels=8
    )
    own = copied
    torch.manual_seed(0)
    model = build_model(settings)
    model.size_hw = (64, 64)
    cache = FeatureCache(model, settings, own, folder, RECIPE, choose_device("cpu"))
    said = []

    def stopped(what, count):
        def shown(done, values):
            raise KeyboardInterrupt

        return shown

    with pytest.raises(KeyboardInterrupt):
        cache.prepare(0, stopped, said.append)
    assert not list(tmp_path.glob("*features*"))
    watch = lambda what, count: lambda done, values: None  # noqa: E731
    cache.prepare(0, watch, said.append)
    assert rough_size(cache.bytes) in said[0] and abs(cache.path.stat().st_size - cache.bytes) < 20_000
    dataset = cache.dataset(regions=False)
    row = int(cache.rows[-1])
    with torch.no_grad():
        pixels = torch.from_numpy(read_pixels(own, folder, row))
        wanted = [backbone.eval()(pixels) for backbone in model.backbones]
        cache.use_in(model)
        found = [backbone(dataset[(0, row)].frames) for backbone in model.backbones]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert not torch.equal(*(one.flatten()[:100] for one in found))  # of two backbones

    whole = cache.path.read_bytes()
    damaged = bytearray(whole)
    with h5py.File(cache.path) as file:
        damaged[file["features"].id.get_offset() + 5] ^= 255
    for content, complaint in ((damaged, "are damaged"), (whole[:-9000], ""), (own.path.read_bytes(), "complete")):
        cache.path.write_bytes(bytes(content))
        with pytest.raises(DatasetError, match="delete it") as caught:
            dataset = cache.dataset(regions=False)
            _ = [dataset[(0, row)] for row in cache.rows.tolist()]
        assert complaint in first_line(caught.value)


def test_a_full_disk_and_another_run_that_computes_them_are_named_and_leave_nothing(
    copied, folder, tmp_path, monkeypatch
):
    class Full(feature_cache.PatientFile):
        def write(self, data):
            self._error = OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(feature_cache, "PatientFile", Full)
    settings = PlainSettings(3, backbone=SMALL)
    with pytest.raises(DatasetError, match="no space left on the disk; delete feature files"):
        trained(copied, folder, tmp_path / "run", settings)
    (tmp_path / "run" / "training.lock").unlink(missing_ok=True)
    assert not list(tmp_path.glob("*features*")) and not list(tmp_path.glob("run/*"))
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(DatasetError, match=r"no room for [0-9.]+ kB; delete feature files"):
        trained(copied, folder, tmp_path / "run", settings)
    monkeypatch.undo()

    def meanwhile(what, count):
        with pytest.raises(DatasetError, match="another run is computing"):
            trained(copied, folder, tmp_path / "other", settings)
        return lambda done, values: None

    torch.manual_seed(0)  # the weights of seed 0
    model = build_model(settings)
    model.size_hw = (64, 64)
    cache = FeatureCache(model, settings, copied, folder, RECIPE, choose_device("cpu"))
    cache.prepare(0, meanwhile, lambda text: None)
    trained(copied, folder, tmp_path / "run", settings)
    assert len(list(tmp_path.glob("*features*"))) == 1


def read_pixels(boxes, folder, row):
    from agnet.training.samples.loader import RegionDataset

    return RegionDataset(boxes, folder, (64, 64), regions=False)[(0, row)][0][None].numpy()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"augment": True}, "add --no-augment"),
        ({"mixup": 0.2}, "add --mixup 0"),
        ({"backbone_lr": 0.1}, "add --backbone-lr 0"),
        ({"head_epochs": 1, "backbone_lr": 0.1}, "add --backbone-lr 0"),
    ],
)
def test_what_changes_the_features_is_refused(changed, complaint):
    check_cacheable(RECIPE)
    with pytest.raises(ConfigurationError, match=complaint):
        check_cacheable(RECIPE.override(**changed))


def test_clips_are_cached_with_their_frames_and_regions(clip_boxes, clip_folder, tmp_path):
    boxes = replace(clip_boxes, path=tmp_path / "clips.h5")
    recipe = RECIPE.override(frames=4)
    settings = AGNetSettings(3, regions=boxes.layout.count, backbone=SMALL, units=4)
    cached, computed = (
        trained(boxes, clip_folder, tmp_path / str(one), settings, recipe, cached=one) for one in (True, False)
    )
    np.testing.assert_allclose(values(cached), values(computed), rtol=3e-3, atol=3e-3)

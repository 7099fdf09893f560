"""The ways of proposing other than SIFT, and how a data set's file tells them apart."""

import functools
import json
from itertools import combinations

import joblib
import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image

from agnet.cli import main
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, ConfigurationError
from agnet.data.sets.catalogue import open_dataset
from agnet.predictor import proposer
from agnet.proposals import networks, run
from agnet.proposals.networks import group_detections, group_feature_map
from agnet.proposals.one_image import propose_regions
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings, name_of_weights
from agnet.training.models.settings import AGNetSettings
from agnet.training.runs.checkpoint_header import CheckpointHeader


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("primary", "rows", "columns"), [(4, 2, 2), (6, 2, 3), (8, 2, 4), (10, 2, 5), (16, 4, 4), (7, 1, 7)]
)
def test_a_grid_tiles_the_image_in_rows(primary, rows, columns, textured):
    image = textured(1, 210, 120)
    regions = propose_regions(image, ProposalSettings(method="grid", primary=primary, kinds="primary"))
    expected = [
        [210 * x / columns, 120 * y / rows, 210 * (x + 1) / columns, 120 * (y + 1) / rows]
        for y in range(rows)
        for x in range(columns)
    ]
    np.testing.assert_allclose(regions.boxes_xyxy, expected, atol=0.06)
    assert regions.weights.tolist() == pytest.approx([1 / primary] * primary)


def test_random_boxes_lie_inside_and_belong_to_seed_and_pixels(textured):
    images = [textured(seed, 300, 200) for seed in range(20)]
    settings = ProposalSettings(method="random")
    boxes = [propose_regions(image, settings).primary_xyxy for image in images]
    for one, image in zip(boxes, images, strict=True):
        assert (one[:, :2] >= 0).all() and (one[:, 2:] <= (300, 200)).all()
        sides = (one[:, 2:] - one[:, :2]) / (300, 200)
        assert (sides > 0.09).all() and (sides < 0.91).all()
        np.testing.assert_array_equal(propose_regions(image, settings).primary_xyxy, one)
    assert len({one.tobytes() for one in boxes}) == 20
    other = propose_regions(images[0], ProposalSettings(method="random", seed=1)).primary_xyxy
    assert not np.array_equal(other, boxes[0])


def test_places_of_like_features_make_a_region(textured, monkeypatch):
    """A feature map of four quarters, told apart by their channel: four groups, each the quarter's box."""
    quarters = np.zeros((4, 6, 6), dtype=np.float32)
    for number, (y, x) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
        quarters[number, y : y + 3, x : x + 3] = number + 1
    monkeypatch.setattr(networks, "_resnet50", lambda weights: lambda pixels: torch.from_numpy(quarters)[None])
    settings = ProposalSettings(method="cnn-features", primary=4, kinds="primary", slot_order="top-to-bottom")
    regions = propose_regions(textured(0, 300, 180), settings)
    expected = {(0, 0, 150, 90), (150, 0, 300, 90), (0, 90, 150, 180), (150, 90, 300, 180)}
    assert {tuple(box) for box in regions.boxes_xyxy.tolist()} == expected
    assert regions.weights.tolist() == [0.25] * 4
    assert regions.keypoints.tolist() == [36] * 4


def test_feature_regions_of_a_real_network_repeat_themselves(textured, resnet50_file):
    settings = ProposalSettings(method="cnn-features")
    image = textured(3, 320, 200)
    groups = group_feature_map(image, settings, resnet50_file)
    assert set(groups.labels.tolist()) == set(range(8))
    assert groups.weights.sum() == pytest.approx(1)
    regions = propose_regions(image, settings, resnet50_file)
    assert regions.boxes_xyxy.shape == (36, 4)
    cells = regions.primary_xyxy / (320 / 7, 200 / 7, 320 / 7, 200 / 7)
    np.testing.assert_allclose(cells, cells.round(), atol=0.01)
    np.testing.assert_array_equal(propose_regions(image, settings, resnet50_file).hull_xy, regions.hull_xy)


def test_the_surest_detections_make_the_regions_and_the_rest_see_everything(textured, monkeypatch):
    found = {
        "boxes": torch.tensor([[10.0, 20, 60, 80], [30, 5, 90, 40], [0, 0, 20, 20]]),
        "scores": torch.tensor([0.9, 0.6, 0.3]),
    }
    monkeypatch.setattr(networks, "_mask_rcnn", lambda weights: lambda images: [found])
    image = textured(0, 100, 90)
    regions = propose_regions(image, ProposalSettings(method="mask-rcnn", primary=4, kinds="primary"))
    assert regions.boxes_xyxy.tolist() == [[10, 20, 60, 80], [30, 5, 90, 40], [0, 0, 20, 20], [0, 0, 100, 90]]
    assert regions.weights.tolist() == pytest.approx([0.5, 1 / 3, 1 / 6, 0])
    assert regions.keypoints.tolist() == [4, 4, 4, 0]
    two = propose_regions(image, ProposalSettings(method="mask-rcnn", primary=2, kinds="primary"))
    assert two.boxes_xyxy.tolist() == [[10, 20, 60, 80], [30, 5, 90, 40]]
    found["boxes"], found["scores"] = torch.zeros(0, 4), torch.zeros(0)
    nothing = propose_regions(image, ProposalSettings(method="mask-rcnn"))
    assert not nothing.enough_keypoints
    assert nothing.primary_xyxy.tolist() == [[0, 0, 100, 90]] * 8


def test_torchvisions_own_detector_runs(textured, tmp_path, monkeypatch):
    torch.manual_seed(0)
    path = tmp_path / "detector.pth"
    whole = torchvision.models.detection.maskrcnn_resnet50_fpn
    smaller = functools.partial(whole, min_size=64, max_size=96)  # by default it enlarges images to 800 pixels
    monkeypatch.setattr(torchvision.models.detection, "maskrcnn_resnet50_fpn", smaller)
    network = whole(weights_backbone=None)
    torch.save(network.state_dict(), path)
    groups = group_detections(textured(0, 96, 64), ProposalSettings(method="mask-rcnn"), path)
    assert groups.weights.sum() == pytest.approx(1)
    assert (groups.points_xy >= 0).all() and (groups.points_xy <= (96, 64)).all()
    assert set(groups.labels.tolist()) <= set(range(8))


def test_a_download_that_fails_names_the_remedy(monkeypatch, textured):
    networks._resnet50.cache_clear()
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda *_, **__: (_ for _ in ()).throw(OSError("no net"))
    )
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", torch.hub.load_state_dict_from_url)
    with pytest.raises(CheckpointError, match=r"could not be downloaded \(no net\); .* --weights"):
        propose_regions(textured(0), ProposalSettings(method="cnn-features"))


def test_files_that_are_no_weights_are_refused(tmp_path, textured, resnet50_file):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name, complaint in (
        ("text.pth", "holds no readable weights"),
        ("other.pth", "does not hold weights of ResNet"),
    ):
        with pytest.raises(CheckpointError, match=complaint):
            propose_regions(textured(0), ProposalSettings(method="cnn-features"), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"gone\.pth: cannot be read"):
        name_of_weights(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("options", "regions", "live"),
    [
        (["--method", "random", "--primary", "16"], 36, "cached"),
        (["--kinds", "secondary"], 28, "live"),
    ],
)
def test_training_sees_as_many_regions_as_the_file_has(options, regions, live, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def agnet(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result

    agnet("propose", "--dataset", "folder", "--root", folder, *options)
    boxes = read_boxes("boxes.h5")
    assert boxes.layout.count == boxes.regions(0).boxes_xyxy.shape[0] == regions
    small = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", 0, "--image-size", 64]
    agnet("train", "--run", "run", "--epochs", 1, "--batch-size", 8, "--regions", live, *small)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["regions"] == regions
    agnet("evaluate", "--run", "run", "--workers", 0)
    predicted = agnet("predict", "--run", "run", folder / "val" / "ant" / "0.png", "--save", "pictures")
    assert "0.png:" in predicted.stdout


def test_weights_from_a_file_are_asked_for_again_when_predicting(folder, tmp_path, monkeypatch, resnet50_file):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def agnet(*arguments):
        return runner.invoke(main, [str(argument) for argument in arguments])

    network = ["--method", "cnn-features", "--weights", resnet50_file]
    proposed = agnet("propose", "--dataset", "folder", "--root", folder, "--limit", 9, *network)
    assert proposed.exit_code == 0, proposed.output
    recorded = read_boxes("boxes.h5").settings
    assert recorded["proposals"]["weights"] == name_of_weights(resnet50_file)
    assert {"torch", "torchvision"} <= set(recorded["versions"])
    assert str(resnet50_file.name).encode() not in (tmp_path / "boxes.h5").read_bytes()
    again = agnet("propose", "--dataset", "folder", "--root", folder, "--limit", 9, "--method", "cnn-features")
    assert again.exit_code == 1 and "weights" in again.output and "--restart" in again.output
    small = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", 0]
    assert agnet("train", "--run", "run", "--epochs", 1, *small).exit_code == 0
    photograph = folder / "val" / "ant" / "0.png"
    refused = agnet("predict", "--run", "run", photograph)
    assert refused.exit_code == 1 and "--proposal-weights" in refused.output
    assert agnet("predict", "--run", "run", photograph, "--proposal-weights", resnet50_file).exit_code == 0


def test_weights_are_for_networks_alone():
    result = CliRunner().invoke(main, ["propose", "--dataset", "demo", "--weights", "x.pth"])
    assert result.exit_code == 2 and "--method cnn-features or --method mask-rcnn" in result.output


def test_shuffled_regions_are_those_of_another_image_of_the_split(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_IMAGES", 5)  # images exchange across parts, too
    (folder / "train" / "ant" / "0.png").write_bytes(b"no image")
    index = open_dataset("folder", folder)
    with joblib.parallel_config(backend="sequential"):
        for method in ("sift", "shuffled"):
            propose_dataset(index, ProposalSettings(method=method, primary=3), tmp_path / f"{method}.h5")
    own, others = read_boxes(tmp_path / "sift.h5"), read_boxes(tmp_path / "shuffled.h5")
    assert own.fingerprint != others.fingerprint and own.failures == others.failures
    assert (own.contents == others.contents).all() and (own.sizes_wh == others.sizes_wh).all()
    for split in ("train", "val"):
        rows = own.rows(split)
        shares = [
            np.stack([boxes.regions(row).primary_xyxy / np.tile(boxes.regions(row).size_wh, 2) for row in rows])
            for boxes in (own, others)
        ]
        distance = np.abs(shares[0][:, None] - shares[1][None]).max(axis=(2, 3))  # row: the giver
        giver = distance.argmin(axis=0)
        assert distance.min(axis=0).max() < 0.003  # coordinates are rounded to a tenth of a pixel
        assert sorted(giver) == list(range(len(rows))) and (giver != np.arange(len(rows))).all()


def slots_of(regions):
    hulls = np.split(regions.hull_xy.tolist(), np.cumsum(regions.hull_counts)[:-1])
    return list(zip(map(np.ndarray.tolist, hulls), regions.weights, regions.keypoints, strict=True))


def test_shuffled_slots_hold_the_image_s_own_regions_in_an_order_of_its_own(folder, tmp_path, monkeypatch):
    (folder / "train" / "ant" / "0.png").write_bytes(b"no image")
    Image.new("RGB", (64, 48), "white").save(folder / "train" / "ant" / "1.png")  # no keypoints
    index = open_dataset("folder", folder)
    for method, name, part, jobs in (
        ("sift", "own", 256, 1),
        ("shuffled-slots", "others", 256, 1),
        ("shuffled-slots", "again", 5, 2),
    ):
        monkeypatch.setattr(run, "PART_IMAGES", part)
        with joblib.parallel_config(backend="threading", n_jobs=jobs):
            propose_dataset(index, ProposalSettings(method=method, primary=4), tmp_path / f"{name}.h5")
    assert (tmp_path / "others.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    own, others = read_boxes(tmp_path / "own.h5"), read_boxes(tmp_path / "others.h5")
    assert own.fingerprint != others.fingerprint and own.failures == others.failures
    assert (own.contents == others.contents).all() and (own.total_keypoints == others.total_keypoints).all()
    orders = set()
    for row in range(len(own.usable)):
        before, after = own.regions(row), others.regions(row)
        order = tuple(slots_of(before).index(slot) for slot in slots_of(after))
        if before.enough_keypoints:
            assert sorted(order) == [0, 1, 2, 3]
            orders.add(order)
        for number, (first, second) in enumerate(combinations(order, 2)):  # a pair's slot has the box around that pair
            boxes = before.primary_xyxy[[first, second]]
            around = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
            assert after.boxes_xyxy[4 + number].tolist() == around
    assert len(orders) > 5  # of 24, for 16 images


@pytest.mark.parametrize("method", ["shuffled", "shuffled-slots"])
def test_a_run_on_shuffled_regions_has_none_for_a_single_photograph(method):
    proposals = ProposalSettings(method=method).to_dict()
    header = CheckpointHeader(AGNetSettings(backbone="resnet50", classes=2), ("a", "b"), proposals, "", 1, None)
    with pytest.raises(ConfigurationError, match=f"--method {method}, which a single photograph does not have"):
        proposer(header, None)

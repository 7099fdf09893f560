"""Data sets of persons: layouts, junk, cameras, whole persons cut for validation."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from agnet.data.boxes.reader import IMAGES, kind_of_rows, read_boxes
from agnet.data.errors import ConfigurationError, DatasetError
from agnet.data.sets.catalogue import open_dataset
from agnet.data.sets.persons import JUNK
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings

TRAINED, SEARCHED = ("0002", "0007", "0010", "0011", "0020"), ("0001", "0003", "1500")


def paint(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def market(tmp_path):
    """Market-1501's layout: five persons of two cameras to train on, three to search for, distractors and junk."""
    base, parts = tmp_path / "Market-1501-v15.09.15", Counter()
    for part, persons, cameras in (
        ("bounding_box_train", TRAINED, (1, 2)),
        ("query", SEARCHED, (3,)),
        ("bounding_box_test", SEARCHED, (3, 4, 5)),
    ):
        for person in persons:
            for camera in cameras:
                paint(base / part / f"{person}_c{camera}s1_000451_0{camera}.jpg", seed=len(parts))
                parts[part] += 1
    paint(base / "bounding_box_test" / "0000_c1s1_000001_00.jpg")
    paint(base / "bounding_box_test" / "-1_c1s1_000002_00.jpg")
    (base / "query" / "Thumbs.db").touch()
    return tmp_path


def test_market_is_read_with_persons_cameras_distractors_and_without_junk(market):
    index = open_dataset("market1501", market, any_counts=True, val_fraction=0)
    splits = Counter(index.splits.tolist())
    assert splits == {"train": 10, "query": 3, "gallery": 10}
    assert index.left_out == {JUNK: 1, ".db": 1}
    assert index.is_retrieval and index.classes == (*TRAINED, "0000", *SEARCHED)
    assert index.groups == tuple(index.classes[label] for label in index.labels)
    for name, camera in zip(index.names, index.cameras, strict=True):
        assert f"_c{camera}s1" in name
    with pytest.raises(DatasetError, match=re.escape("9 classes instead of 1,502")):
        open_dataset("market1501", market)


@pytest.mark.parametrize("seed", range(4))
def test_whole_persons_are_cut_for_validation_and_trained_ones_come_first(market, seed):
    index = open_dataset("market1501", market, any_counts=True, val_fraction=0.1, split_seed=seed)
    of = {split: set(index.labels[index.splits == split].tolist()) for split in ("train", "val", "query")}
    assert of["train"] == {0, 1, 2} and len(of["val"]) == 2 and not of["val"] & of["query"]
    assert list(index.classes[3:]) == sorted(index.classes[3:])
    again = open_dataset("market1501", market, any_counts=True, val_fraction=0.1, split_seed=seed)
    assert again.classes == index.classes
    cuts = {open_dataset("market1501", market, any_counts=True, split_seed=seed).classes[:3] for seed in range(9)}
    assert len(cuts) > 2


def test_a_limit_keeps_whole_persons_of_every_part(market):
    index = open_dataset("market1501", market, any_counts=True, limit=17)
    counts = {split: len(set(index.labels[index.splits == split])) for split in ("train", "val", "query", "gallery")}
    assert len(index) <= 17 and counts == {"train": 2, "val": 2, "query": 2, "gallery": 2}
    whole = open_dataset("market1501", market, any_counts=True)
    for name in index.classes:
        there, kept = (sum(one.groups[k] == name for k in range(len(one))) for one in (whole, index))
        assert there == kept
    with pytest.raises(ConfigurationError, match="at least 16"):
        open_dataset("market1501", market, any_counts=True, limit=15)


def test_the_boxes_file_keeps_it_all(market, tmp_path):
    index = open_dataset("market1501", market, any_counts=True)
    propose_dataset(index, ProposalSettings(method="none", primary=0, kinds="none"), tmp_path / "boxes.h5")
    boxes = read_boxes(tmp_path / "boxes.h5")
    assert boxes.is_retrieval and kind_of_rows(tmp_path / "boxes.h5") == "searched images"
    assert (boxes.groups, boxes.cameras, boxes.classes) == (index.groups, index.cameras, index.classes)
    assert boxes.splits.tolist() == index.splits.tolist()
    for one in range(len(index)):
        same = boxes.camera_numbers == boxes.camera_numbers[one]
        assert same.tolist() == [camera == index.cameras[one] for camera in index.cameras]


def test_what_is_no_boxes_file_has_no_queries(boxes_file, tmp_path):
    (tmp_path / "text").write_text("no")
    assert {kind_of_rows(path) for path in (boxes_file, tmp_path, tmp_path / "text", tmp_path / "missing")} == {IMAGES}


def own(root, train=("a", "b"), query=("c", "d"), gallery=("c", "d", "x")):
    for split, persons in (("train", train), ("query", query), ("gallery", gallery)):
        for person in persons:
            paint(root / split / person / f"one_c{1 + (split == 'query')}.jpg")
    return root


@pytest.mark.parametrize("name", ["{}/c2/1.jpg", "{}/x_c2_7.jpg", "0{}_c2s1_9.jpg", "0{}_c2.jpg"])
def test_ones_own_persons_are_in_folders_or_in_names(tmp_path, name):
    for split, persons in (("train", "12"), ("query", "34"), ("gallery", "345")):
        for person in persons:
            paint(tmp_path / split / name.format(person))
    paint(tmp_path / "query" / "-1_c1_0.jpg")
    index = open_dataset("reid-folder", tmp_path, val_fraction=0)
    assert [name.lstrip("0") for name in index.classes] == ["1", "2", "3", "4", "5"]
    assert set(index.cameras) == {"2"} and index.left_out == {JUNK: 1}


def test_ones_own_persons_may_have_no_cameras(tmp_path):
    for split, persons in (("train", "ab"), ("query", "cd"), ("gallery", "cd")):
        for person in persons:
            paint(tmp_path / split / person / "photo.jpg")
    assert open_dataset("reid-folder", tmp_path).cameras == ()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"train": ("a", "c")}, "1 persons are in train and in query or gallery, first 'c'"),
        ({"gallery": ("x", "y")}, "no person of query is in gallery"),
        ({"query": ()}, "has no folder query"),
    ],
)
def test_persons_that_cannot_be_searched_for_are_refused(tmp_path, given, complaint):
    own(tmp_path, **given)
    with pytest.raises(DatasetError, match=re.escape(complaint)):
        open_dataset("reid-folder", tmp_path)


def test_a_name_without_a_person_is_refused(tmp_path):
    own(tmp_path)
    paint(tmp_path / "query" / "holiday.jpg")
    with pytest.raises(DatasetError, match=r"holiday\.jpg: expected a folder for each person"):
        open_dataset("reid-folder", tmp_path)

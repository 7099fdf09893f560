"""The numbers of a boxes file and of one of its images, against counting by hand."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from agnet.data.boxes.image_facts import facts_text, find_image, image_facts
from agnet.data.boxes.reader import Sizes, read_boxes
from agnet.data.boxes.summary import ClassCounts, Failure, Persons, Spread, printable, summarise, summary_text
from agnet.data.errors import ConfigurationError
from agnet.data.regions import Layout
from agnet.data.sets.catalogue import open_dataset
from agnet.data.text import table
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings


@pytest.fixture
def boxes(boxes_file):
    return read_boxes(boxes_file)


def summary_of(boxes, there=18):
    return summarise(boxes, Sizes(9000, 3600, 4000), "photos", there)


def test_images_are_counted_by_split_status_and_class(boxes):
    summary = summary_of(boxes)
    # Of each class's four training images one is cut for validation; its folder val is the test part.
    assert summary.images == 18
    assert summary.splits == {"train": 9, "val": 3, "test": 6}
    assert summary.statuses == {"ok": 18, "few keypoints": 0, "unreadable": 0}
    assert summary.classes == tuple(ClassCounts(name, 3, 1, 2) for name in ("ant", "bee", "côté"))
    assert (summary.bytes_per_image, summary.table_bytes, summary.preview_bytes) == (500, 3600, 4000)
    assert "0.01 MB: tables 0.00 MB, 200 bytes an image; previews 0.00 MB" in summary_text(summary)
    assert (summary.primary_regions, summary.secondary_regions) == (3, 3)


def test_keypoints_and_areas_are_measured_over_the_usable_images(boxes):
    summary = summary_of(boxes)
    found = boxes.total_keypoints.tolist()
    assert summary.keypoints == Spread(min(found), np.median(found), sum(found) / 18, max(found))
    assert summary.duplicate_keypoints == pytest.approx(1 - boxes.distinct_keypoints.sum() / sum(found))
    shares, around = [], []
    for row in range(18):
        width, height = boxes.sizes_wh[row].tolist()
        regions = boxes.primary_xyxy[row].tolist()
        shares += [(x1 - x0) * (y1 - y0) / (width * height) for x0, y0, x1, y1 in regions]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            corners = list(zip(regions[a], regions[b], strict=True))
            x0, y0 = (min(pair) for pair in corners[:2])
            x1, y1 = (max(pair) for pair in corners[2:])
            around.append((x1 - x0) * (y1 - y0) / (width * height))
    for spread, values in ((summary.primary_areas, shares), (summary.secondary_areas, around)):
        assert spread.median == pytest.approx(np.median(values), rel=1e-5)
        assert (spread.min, spread.max) == pytest.approx((min(values), max(values)), rel=1e-5)


def test_a_layout_without_one_kind_of_region_has_no_areas_of_it(boxes):
    primary = summary_of(replace(boxes, layout=Layout(3, "primary")))
    secondary = summary_of(replace(boxes, layout=Layout(3, "secondary")))
    assert (primary.secondary_areas, primary.secondary_regions) == (None, 0)
    assert (secondary.primary_areas, secondary.primary_regions) == (None, 0)
    assert "area of a secondary" not in summary_text(primary) and "area of a primary" not in summary_text(secondary)


def test_the_text_has_the_dictionarys_numbers(boxes):
    summary = summary_of(boxes)
    values, text = json.loads(json.dumps(summary.to_dict())), summary_text(summary)
    assert set(values) >= {"images", "splits", "statuses", "classes", "keypoints", "failures", "settings", "root"}
    words = [line.split() for line in text.splitlines()]
    row = next(line for line in words if line[:1] == ["keypoints"])
    assert [float(number) for number in row[1:]] == pytest.approx(list(values["keypoints"].values()), abs=0.06)
    assert ["bee", "3", "1", "2", "6"] in words
    assert ["splits", "9", "train,", "3", "val,", "6", "test"] in words
    assert ["primary", "3"] in words and values["settings"]["proposals"]["primary"] == 3
    assert values["fingerprint"] in text
    assert max(map(len, text.splitlines()[1:])) < 120


@pytest.mark.parametrize(("there", "said"), [(18, "photos, all there"), (0, "none is there"), (15, "3 are missing")])
def test_the_text_says_whether_the_images_are_there(boxes, there, said):
    assert said in summary_text(summary_of(boxes, there))


def test_many_classes_are_told_by_their_extremes(boxes):
    classes = tuple(ClassCounts(f"class{number:03}", number, 0, 0) for number in range(21))
    many = replace(summary_of(boxes), classes=classes)
    text = summary_text(many)
    assert "class020" in text and "class000" in text and "class010" not in text
    assert "the 5 largest and the 5 smallest of 21 classes" in text
    assert len(many.to_dict()["classes"]) == 21
    assert "class010" in summary_text(replace(many, classes=classes[:20]))


def test_ten_failures_are_told_and_the_others_counted(boxes):
    failures = tuple(Failure(f"{number}.jpg", "the file is empty") for number in range(13))
    text = summary_text(replace(summary_of(boxes), failures=failures))
    assert text.count("the file is empty") == 10 and "and 3 others" in text


def test_nothing_in_a_text_commands_the_terminal(boxes):
    hostile = replace(summary_of(boxes), failures=(Failure("a\x1b[2J.jpg", "\rnone"),))
    assert not set(summary_text(hostile)) & set("\x1b\r")
    assert printable("côté 犬\x07") == "côté 犬\ufffd"


def test_a_table_aligns_its_columns():
    assert table([("a", "bb"), ("ccc", "1")]) == ["a    bb", "ccc   1"]


def test_an_image_is_found_by_path_ending_or_row(boxes):
    names = [name.decode() for name in boxes.names]
    row = names.index("train/bee/2.png")
    assert find_image(boxes, "train/bee/2.png") == find_image(boxes, "bee/2.png") == find_image(boxes, str(row)) == row


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("train/be/2.png", "did you mean train/bee/2.png"),
        ("ben/3.png", "did you mean train/bee/3.png"),
        ("0.png", "6 images end in 0.png: train/ant/0.png"),
        ("ee/2.png", "has no image ee/2.png"),
        ("18", "rows are 0 to 17"),
        ("???????????????", "its images have names such as train/ant/0.png"),
    ],
)
def test_another_name_is_an_error_that_helps(boxes, name, complaint):
    with pytest.raises(ConfigurationError) as caught:
        find_image(boxes, name)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_the_facts_of_an_image_are_its_rows(boxes):
    facts = image_facts(boxes, 5)
    assert (facts.width, facts.height) == tuple(boxes.sizes_wh[5])
    assert [region.region for region in facts.regions] == list(range(6))
    assert [region.pair for region in facts.regions] == [None, None, None, (0, 1), (0, 2), (1, 2)]
    x0, y0, x1, y1 = facts.regions[1].box_xyxy
    assert (x0, y0, x1, y1) == pytest.approx(boxes.primary_xyxy[5, 1].tolist(), abs=0.01)
    assert facts.regions[1].area == pytest.approx((x1 - x0) * (y1 - y0) / facts.width / facts.height, abs=1e-3)
    assert sum(region.keypoints for region in facts.regions[:3]) == facts.keypoints
    text = facts_text(facts)
    assert f"{x0:.1f}" in text and "4 = 0+2" in text and "\n  class      " in text
    assert json.loads(json.dumps(facts.to_dict()))["regions"][3]["pair"] == [0, 1]


def test_an_unreadable_image_has_a_reason_and_no_regions(folder, tmp_path):
    shutil.rmtree(folder / "val")
    (folder / "train" / "ant" / "1.png").write_bytes(b"not an image")
    path = tmp_path / "damaged.h5"
    propose_dataset(open_dataset("folder", folder), ProposalSettings(primary=3), path)
    boxes = read_boxes(path)
    name = next(name.decode() for name, status in zip(boxes.names, boxes.status, strict=True) if status == "unreadable")
    facts = image_facts(boxes, find_image(boxes, name))
    assert facts.regions == () and "format" in facts.reason and facts.reason in facts_text(facts)
    summary = summarise(boxes, Sizes(1, 1, 0), "", 0)
    assert summary.statuses["unreadable"] == 1 and summary.failures == (Failure(name, facts.reason, "not an image"),)
    assert "unreadable: 1 (1 not an image)" in summary_text(summary)
    # The rows of later images are theirs, though one before them has no regions.
    last = len(boxes.names) - 1
    assert image_facts(boxes, last).regions[0].keypoints == boxes.keypoints[-1, 0]


def test_persons_are_counted_by_what_they_are_there_for(boxes):
    # Classes 0 to 2: 0 is trained on, 1 is searched for, 2 is in the gallery alone.
    splits = np.array([("train", ("query", "gallery")[row % 2], "gallery")[boxes.labels[row]] for row in range(18)])
    retrieval = replace(boxes, splits=splits, cameras=tuple("a" if row < 9 else "" for row in range(18)))
    persons = summary_of(retrieval).persons
    assert persons == Persons(1, 0, 1, 0, distractors=1, cameras=1, images_without_camera=9)
    text = summary_text(summary_of(retrieval))
    assert "18 images of 3 persons" in text and "1 in train, 0 in val, 1 in query, 1 only in gallery" in text
    assert "1; that of 9 images is unknown" in text and "test" not in text.split("\n\n")[1]
    alone = replace(retrieval, splits=np.where(splits == "gallery", "train", splits))
    assert summary_of(alone).persons.without_match == 1 and summary_of(boxes).persons is None

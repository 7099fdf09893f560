"""The class of an image that a run's own boxes file knows."""

import json
import shutil
from types import SimpleNamespace

import pytest

from agnet.data.boxes.reader import read_listing
from agnet.training.answers.truth import KnownImages, known_images


@pytest.fixture
def known(boxes_file, folder):
    return KnownImages(read_listing(boxes_file), folder)


def test_an_image_is_known_by_its_place(known, folder, tmp_path, monkeypatch):
    listing = known.listing
    for row in (0, 9, 17):
        name = listing.names[row].decode()
        truth = known.truth(str(folder / name))
        assert truth.name == name.split("/")[1] == listing.classes[listing.labels[row]]
    monkeypatch.chdir(folder / "train")
    assert known.truth("bee/0.png").name == "bee" and known.truth("./ant/../bee/0.png") == known.truth("bee/0.png")
    for row, said in (
        (listing.splits == "train", "trained on"),
        (listing.splits == "val", "epoch"),
        (listing.splits == "test", "test"),
    ):
        assert said in known.truth(str(folder / listing.names[row][0].decode())).part
    (tmp_path / "linked").symlink_to(folder / "val" / "ant")
    assert known.truth(str(tmp_path / "linked" / "0.png")) == known.truth("../val/ant/0.png")


def test_a_copy_is_known_by_its_content_and_a_stranger_is_not(known, folder, tmp_path):
    copy = shutil.copy(folder / "val" / "bee" / "1.png", tmp_path / "elsewhere.png")
    assert known.truth(str(copy)).name == "bee"
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1  # as large, and other
    copy.write_bytes(content)
    assert known.truth(str(copy)) is None and known.truth(str(tmp_path / "none.png")) is None
    nowhere = KnownImages(known.listing, None)
    assert nowhere.truth(str(folder / "val" / "bee" / "1.png")).name == "bee"


def test_what_is_there_in_two_classes_has_no_truth(known, folder, tmp_path):
    known.listing.contents[:] = known.listing.contents[0]
    known.listing.file_bytes[:] = known.listing.file_bytes[0]
    copy = shutil.copy(folder / known.listing.names[0].decode(), tmp_path / "copy.png")
    assert known.truth(str(copy)) is None
    known.listing.labels[:] = 2
    assert known.truth(str(copy)).name == "côté" and "trained on" in known.truth(str(copy)).part


def test_a_run_knows_the_file_it_learnt_from_and_no_other(boxes_file, folder, tmp_path):
    listing = read_listing(boxes_file)
    run = tmp_path / "run"
    run.mkdir()
    own = SimpleNamespace(fingerprint=listing.attributes["fingerprint"], classes=listing.classes)
    assert known_images(run, own) is None  # a checkpoint alone
    places = {"file_relative_to_run": "../boxes.h5", "root_relative_to_run": "../images"}
    sections = {name: {} for name in ("model", "recipe", "run", "versions")}
    (run / "config.json").write_text(json.dumps({**sections, "boxes": places}))
    assert known_images(run, own).truth(str(folder / "train" / "ant" / "0.png")).name == "ant"
    for other in ({"fingerprint": "another"}, {"classes": ("x", "y", "z")}):
        assert known_images(run, SimpleNamespace(**{**vars(own), **other})) is None
    boxes_file.unlink()
    assert known_images(run, own) is None

"""What a run said of every image, there and back, and what is no such file."""

import csv
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from agnet.data.errors import CheckpointError
from agnet.training.measure.predictions import SplitPredictions, load_predictions, save_predictions


@pytest.fixture
def predictions():
    return SplitPredictions(
        logits=np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], dtype=np.float32)),
        labels=np.array([0, 1]),
        names=("test/a, b.jpg", 'test/空"x".jpg'),
        contents=("0123456789abcdef", "unknown"),
        classes=("ant", "=bee", "côté"),
        split="test",
        dataset="folder",
        network="fedcba9876543210",
        image_size=224,
        images_seen_in_training=None,
    )


@pytest.mark.parametrize("size", [224, (256, 128)])
def test_there_and_back(predictions, tmp_path, size):
    predictions = replace(predictions, image_size=size)
    path = save_predictions(tmp_path / "p.safetensors", predictions)
    found = load_predictions(path)
    for field in fields(SplitPredictions):
        assert np.array_equal(getattr(found, field.name), getattr(predictions, field.name)), field.name
    assert found.logits.dtype == np.float32 and found.labels.dtype == np.int64


def test_the_table_for_people(predictions, tmp_path):
    save_predictions(tmp_path / "p.safetensors", predictions)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["path", "content", "true", "predicted", "probability", "probability_of_true", "rank_of_true"]
    assert first == ["test/a, b.jpg", "0123456789abcdef", "ant", "ant", "0.7", "0.7", "1"]
    # The first of two equal classes comes first: the true one, =bee, is third behind côté and ant. To a spreadsheet it
    # is no formula.
    assert second == ['test/空"x".jpg', "unknown", "'=bee", "côté", "0.5", "0.25", "3"]


def test_facts_of_the_images_are_columns_after_the_others(predictions, tmp_path):
    facts = {"row": [7, 3], "top5": predictions.likeliest(5), "copies_training_image": ["", "train/a.jpg"]}
    save_predictions(tmp_path / "p.safetensors", predictions, facts)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header[6:] == ["rank_of_true", "row", "top5", "copies_training_image"]
    assert first[7:] == ["7", "ant; =bee; côté", ""] and second[7:] == ["3", "côté; ant; =bee", "train/a.jpg"]


def damaged(predictions):
    yield "logits", replace(predictions, logits=predictions.logits[:, :2])
    yield "finite", replace(predictions, logits=predictions.logits * np.float32("nan"))
    yield "kind", replace(predictions, logits=predictions.logits.astype(np.float64))
    yield "labels", replace(predictions, labels=np.array([0, 3]))
    yield "negative", replace(predictions, labels=np.array([-1, 0]))
    yield "images", replace(predictions, contents=("unknown",))
    yield "names", replace(predictions, names=("\x1b[2J", "b"))
    yield "classes", replace(predictions, classes=("a\nb", "c", "d"))
    yield "size", replace(predictions, image_size="224")
    yield "sizes", replace(predictions, image_size=(256, 128, 3))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_parts_that_do_not_fit_are_refused(predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("agnet.training.measure.predictions._rows", lambda *_: [])  # nonsense cannot be tabled
    for what, wrong in damaged(predictions):
        path = save_predictions(tmp_path / f"{what}.safetensors", wrong)
        with pytest.raises(CheckpointError, match="its entries are inconsistent"):
            load_predictions(path)


@pytest.mark.parametrize("header", [{}, {"agnet": "[]"}, {"agnet": "{"}, {"agnet": json.dumps({"format": "agnet"})}])
def test_other_safetensors_files_are_refused(header, tmp_path):
    tensors = {"logits": np.zeros((1, 1), np.float32), "labels": np.zeros(1, np.int64)}
    save_file(tensors, tmp_path / "p.safetensors", metadata=header)
    with pytest.raises(CheckpointError, match="not a file of predictions"):
        load_predictions(tmp_path / "p.safetensors")


def test_mutated_files_are_refused_or_read_in_full(predictions, tmp_path):
    whole = bytearray(save_predictions(tmp_path / "p.safetensors", predictions).read_bytes())
    generator, refused = np.random.default_rng(0), 0
    for _ in range(200):
        changed = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 4)):
            changed[place] = generator.integers(0, 256)
        (tmp_path / "p.safetensors").write_bytes(changed[: generator.integers(1, len(whole) + 200)])
        try:
            found = load_predictions(tmp_path / "p.safetensors")
            assert found.logits.shape == (2, 3) and len(found.names) == 2
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100

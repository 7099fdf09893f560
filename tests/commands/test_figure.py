"""`agnet figure` as a user meets it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from agnet.commands.figure import FIGURES
from agnet.training.measure.predictions import SplitPredictions, save_predictions


@pytest.fixture
def run(tmp_path):
    """Make a run of eight images of two classes that was evaluated; returns its name."""

    def make(name, **changes):
        folder = tmp_path / name
        folder.mkdir()
        config = {"model": {"model": "plain"}, "recipe": {}, "run": {"seed": 0}, "boxes": {}, "versions": {}}
        (folder / "config.json").write_text(json.dumps(config))
        logits = np.zeros((8, 2), np.float32)
        logits[np.arange(8), [0, 0, 1, 0, 1, 1, 1, 1]] = 3
        found = SplitPredictions(
            **{"logits": logits, "labels": np.repeat([0, 1], 4), "classes": ("ant", "bee")},
            **{"names": tuple(f"{k}.png" for k in range(8)), "contents": tuple(f"{k:016x}" for k in range(8))},
            **{"split": "test", "dataset": "folder", "network": "0", "image_size": 224, "images_seen_in_training": 0},
        )
        save_predictions(folder / "predictions-test.safetensors", replace(found, **changes))
        return name

    return make


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_figure_its_numbers_and_its_caption_are_written(agnet, run, tmp_path):
    (tmp_path / "out").mkdir()
    result = agnet("figure", "class-accuracy", "--run", run("a"), "--against", run("b"), "--save", "out/f.pdf")
    assert (tmp_path / "out" / "f.pdf").read_bytes().startswith(b"%PDF")
    rows = rows_of(tmp_path / "out" / "f.csv")
    assert [(row["class"], row["run"], float(row["accuracy"])) for row in rows] == [
        *(("bee", "b", 1.0), ("bee", "a", 1.0), ("ant", "b", 0.75), ("ant", "a", 0.75)),
    ]
    assert result.stdout.startswith("Accuracy by class on folder, test: 8 images of 2 classes (4 a class); b (1 seed) ")
    assert len(result.stdout.splitlines()) == 1 and "written: out/f.pdf and out/f.csv" in result.stderr


def test_only_the_numbers_of_a_figure_are_replaced(agnet, run, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n")
    words = ("figure", "class-accuracy", "--run", run("a"), "--save")
    assert "list.csv is there already, without a figure" in agnet(*words, "list.png", code=2).stderr
    assert (tmp_path / "list.csv").read_text() == "path,label\n" and not (tmp_path / "list.png").exists()
    for name in ("f.png", "f.png", "f.svg"):
        agnet(*words, name)


def test_average_precision_is_drawn_to_a_file_of_its_name_by_default(agnet, run, tmp_path):
    agnet("figure", "average-precision", "--run", run("a"), "--label", "犬 $x$")
    with Image.open(tmp_path / "average-precision.png") as picture:
        assert picture.width > 1000
    assert "犬 $x$" in (tmp_path / "average-precision.csv").read_text(encoding="utf-8")


def test_figures_are_offered_by_name_and_options_of_others_are_refused(agnet, run):
    refused = agnet("figure", "confusions", code=2).stderr
    assert all(name in refused for name in FIGURES)
    a = run("a")
    for words, said in (
        (["class-accuracy"], "the figure class-accuracy needs a run: --run RUN"),
        (["worst-classes", "--run", a, "--run", a], "shows one run; several seeds of it are in one folder"),
        (["regions", "--run", a, "--image", "1"], "--image changes nothing in the figure regions; leave it out"),
        (["keypoints", "a.png"], "FILES changes nothing in the figure keypoints"),
        (["attention", "--run", a], "needs photographs or videos"),
        (["class-accuracy", "--run", a, "--save", "f.jpg"], "its name must end in .png, .svg, .pdf"),
        (["class-accuracy", "--run", a, "--save", "none/f.png"], "there is no folder none"),
    ):
        assert said in agnet("figure", *words, code=2).stderr


def test_runs_that_were_not_evaluated_or_on_other_images_are_refused(agnet, run, tmp_path):
    a = run("a")
    b = run("b", contents=tuple(f"{k:016x}" for k in range(1, 9)))
    refused = agnet("figure", "class-accuracy", "--run", a, "--run", b, code=1).stderr
    assert "evaluated on different images" in refused
    (tmp_path / a / "predictions-test.safetensors").unlink()
    assert "make them with: agnet evaluate --run a" in agnet("figure", "worst-classes", "--run", a, code=1).stderr
    assert not list(tmp_path.glob("*.csv"))


def test_keypoints_are_those_of_the_images_named_with_a_row_of_numbers_for_each_region(
    agnet, boxes_file, folder, tmp_path
):
    named = [word for name in ("val/ant/1.png", "val/bee/0.png") for word in ("--image", name)]
    result = agnet("figure", "keypoints", "--root", folder, *named, "--save", "k.svg")
    assert result.stdout.startswith("From photograph to regions, 2 of 18 images of ") and "3 boxes" in result.stdout
    rows = rows_of(tmp_path / "k.csv")
    assert [row["region"] for row in rows] == [*"012345"] * 2 and {row["image"] for row in rows} == {*named[1::2]}
    boxes = [[float(row[edge]) for edge in ("x0", "y0", "x1", "y1")] for row in rows[:6]]
    around = [min(boxes[0][0], boxes[2][0]), min(boxes[0][1], boxes[2][1])]
    assert (rows[4]["first"], rows[4]["second"], rows[4]["weight"]) == ("0", "2", "") and boxes[4][:2] == around
    assert sum(float(row["weight"]) for row in rows[:3]) == pytest.approx(1, abs=1e-4)
    svg = (tmp_path / "k.svg").read_text(encoding="utf-8")
    assert svg.count("<image ") == 2 * 5  # photograph, keypoints, clusters, primary and secondary regions

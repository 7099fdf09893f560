"""The recipes of CONTRIBUTING.md work: their changes are applied to a copy of the package, which then is used."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import agnet

ROOT = Path(agnet.__file__).resolve().parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = ("a backbone", "a data set", "a way of proposing regions", "a model", "a measure")


def diff_of(recipe):
    section = re.search(rf"^### {re.escape(recipe)}\n(.*?)(?=^### |\Z)", PAGE, re.M | re.S | re.I)[1]
    (block,) = re.findall(r"^```diff\n(.*?)^```$", section, re.M | re.S)
    return block


def apply(diff, root):
    """Change files under ``root`` by a diff without line numbers: what a hunk replaces must be there exactly once."""
    for old, new, hunks in re.findall(r"^--- (\S+)\n\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff, re.M | re.S):
        path = root / new
        assert path.exists() == (old != "/dev/null"), new
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for hunk in re.split(r"^@@\n", hunks, flags=re.M)[1:]:
            lines = hunk.splitlines(keepends=True)
            assert all(line[0] in " +-" for line in lines), hunk
            before, after = ("".join(line[1:] for line in lines if line[0] != unwanted) for unwanted in "+-")
            # A line feed before it: what is replaced begins where a line does.
            assert not before or f"\n{text}".count(f"\n{before}") == 1, f"{new} has not exactly once:\n{before}"
            text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:] if before else after
        path.write_text(text, encoding="utf-8")


# What each recipe's addition does, told by the changed package as JSON.
USE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import numpy as np
import agnet

told = {"package": agnet.__file__}

import agnet.data.sets.catalogue as catalogue
root = Path("dtd")
(root / "labels").mkdir(parents=True)
for split, numbers in (("train", range(1, 10)), ("val", range(10, 11)), ("test", range(11, 13))):
    names = [f"{kind}/{kind}_{number:04}.jpg" for kind in ("banded", "lace-like") for number in numbers]
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).touch()
    (root / "labels" / f"{split}1.txt").write_text("".join(f"{name}\\n" for name in names))
try:
    catalogue.open_dataset("dtd", root)
except agnet.data.errors.DatasetError as error:
    told["other counts"] = str(error)
index = catalogue.open_dataset("dtd", root, any_counts=True)
told["splits"] = {split: int((index.splits == split).sum()) for split in ("train", "val", "test")}
told["classes"] = list(index.classes)

settings = agnet.ProposalSettings(method="centre", primary=4)
photograph = np.zeros((60, 80, 3), np.uint8)
told["boxes"] = agnet.propose_regions(photograph, settings).boxes_xyxy[:4].tolist()

from agnet.training.measure.evaluation_report import metrics_text
from agnet.training.measure.metrics import measure
logits = np.log([[0.5, 0.25, 0.25], [0.75, 0.125, 0.125]])
metrics = measure(logits, np.array([0, 1]), list("abc"))
told["measure"] = metrics.to_dict()["mean_true_probability"]
told["interval"] = asdict(metrics.intervals["mean_true_probability"])
told["table"] = metrics_text(metrics, None)

import torch
from agnet.training.models.backbones.names import check_backbone_name
check_backbone_name("mobilenet-v3-large")
torch.manual_seed(0)
torch.set_num_threads(1)
model = agnet.build_model(agnet.ModelSettings(classes=2, model="gmp", backbone="mobilenet-v3-large", top=2))
told["channels"] = model.backbone.channels
images, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
told["losses"] = []
for step in range(2):
    loss = torch.nn.functional.cross_entropy(model(images).logits, labels)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    told["losses"].append(loss.item())
embedding = model.eval()(images).embedding
largest = model.backbone(images).flatten(2).sort(dim=2).values[:, :, -2:].mean(dim=2)
told["largest"] = bool(torch.allclose(embedding, largest))

from click.testing import CliRunner
from agnet.cli import main
pages = {"centre": ["propose"], "--top": ["train", "--model", "gmp"]}
told["offered"] = {what: what in CliRunner().invoke(main, [*page, "--help"]).output for what, page in pages.items()}
told["refused"] = [
    CliRunner().invoke(main, words).output
    for words in (
        ["propose", "photos", "--method", "centre", "--tol", "0.1"],
        ["train", "--model", "gmp", "--top", "0"],
    )
]
told["listed"] = "dtd" in CliRunner().invoke(main, ["datasets"]).output
json.dump(told, sys.stdout)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    place = tmp_path_factory.mktemp("contribution")
    copy = place / "agnet"
    for folder in ("commands", "data", "proposals", "training"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, copy)
    for recipe in RECIPES:
        apply(diff_of(recipe), copy)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    environment.pop("AGNET_ROOT", None)
    command = [sys.executable, "-c", USE]
    result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert Path(told["package"]).parent == copy
    return told


def test_every_recipe_is_on_the_page_and_no_other():
    section = PAGE[PAGE.index("## Adding something") :]
    assert [title.lower() for title in re.findall(r"^### (.*)", section, re.M)] == list(RECIPES)


def test_a_hunk_that_does_not_fit_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("one = 1\n")
    with pytest.raises(AssertionError, match="not exactly once"):
        apply("--- a/a.py\n+++ b/a.py\n@@\n-two = 2\n+two = 3\n", tmp_path)


def test_the_backbone_builds(told):
    assert told["channels"] == 960


def test_the_data_set_is_listed_and_read(told):
    assert told["listed"] and told["splits"] == {"train": 18, "val": 2, "test": 4}
    assert told["classes"] == ["banded", "lace-like"]
    assert "2 classes instead of 47, 18 train images instead of 1,880" in told["other counts"]


def test_the_method_proposes(told):
    assert told["offered"]["centre"] and "--tol changes nothing with --method centre" in told["refused"][0]
    boxes = [[0, 0, 80, 60], [10, 7.5, 70, 52.5], [20, 15, 60, 45], [30, 22.5, 50, 37.5]]
    assert sorted(told["boxes"]) == [pytest.approx(box) for box in boxes]


def test_the_model_trains(told):
    assert told["offered"]["--top"] and "--top: wanted 1 or more, got 0" in told["refused"][1]
    assert told["largest"]
    first, second = told["losses"]
    assert first != second and all(0 < loss < 10 for loss in (first, second))


def test_the_measure_is_measured(told):
    assert told["measure"] == pytest.approx((0.5 + 0.125) / 2)
    assert told["interval"]["low"] <= told["measure"] <= told["interval"]["high"]
    assert "mean probability of the true class" in told["table"]

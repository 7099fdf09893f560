"""A model that looks at no regions is the same run on any boxes file of the same images."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from agnet.data.boxes.reader import read_boxes
from agnet.training.measure.compare import compare_runs
from agnet.training.runs.provenance import identity, images_hash, same_boxes

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

OPTIONS = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", "40x32", "--batch-size", 5]
OPTIONS += ["--epochs", 2, "--workers", 0, "--device", "cpu"]


@pytest.fixture
def files(agnet, boxes_file, folder, tmp_path):
    """A boxes file with regions, and one of the same images without."""
    agnet("propose", folder, "--boxes", tmp_path / "none.h5", "--method", "none", "--jobs", 1)
    return boxes_file, tmp_path / "none.h5"


def test_plain_trains_resumes_and_is_measured_on_either_file_alike(agnet, files, folder, tmp_path):
    def train(boxes, run, *options):
        agnet("train", "--model", "plain", "--boxes", boxes, "--root", folder, "--run", run, *OPTIONS, *options)
        return run

    straight, other, turned = (tmp_path / name for name in ("straight", "other", "turned"))
    train(files[0], straight)
    train(files[1], other)
    train(files[0], turned, "--stop-after", 1)
    train(files[1], turned, "--resume")
    wanted = load_file(straight / "best.safetensors")
    for run in (other, turned):
        found = load_file(run / "best.safetensors")
        assert all(torch.equal(value, found[name]) for name, value in wanted.items())
    for boxes in files:
        shutil.rmtree(straight / "tensorboard", ignore_errors=True)
        (straight / "metrics-test.json").unlink(missing_ok=True)
        agnet("evaluate", "--run", straight, "--boxes", boxes, "--root", folder, "--device", "cpu", "--workers", 0)
        metrics = json.loads((straight / "metrics-test.json").read_text())
        assert metrics["images_seen_in_training"] == 0
    agnet("evaluate", "--run", other, "--root", folder, "--device", "cpu", "--workers", 0)
    compared = compare_runs([straight, other], "test")
    assert compared.challenges[0].differences["top1"].value == 0
    assert compared.model_differences == [] and not any("boxes" in line for line in compared.cautions)
    photograph = next((folder / "val" / "ant").iterdir())
    said = {agnet("predict", "--run", run, photograph, "--json", "--device", "cpu").stdout for run in (straight, other)}
    assert len(said) == 1


def test_only_what_a_model_looks_at_tells_files_apart(files, tmp_path):
    sift, none = (read_boxes(file) for file in files)
    assert images_hash(sift) == images_hash(none) and sift.fingerprint != none.fingerprint
    assert same_boxes(identity(sift), identity(none), regions=False)
    assert not same_boxes(identity(sift), identity(none), regions=True)
    older = {"fingerprint": sift.fingerprint}
    assert same_boxes(older, identity(sift), regions=False) and not same_boxes(older, identity(none), regions=False)
    for change in ("labels", "splits", "contents", "names"):
        column = getattr(none, change).copy()
        column[[0, -1]] = column[[-1, 0]]
        changed = type(none)(**{**vars(none), change: column})
        assert images_hash(changed) != images_hash(none), change


def test_a_model_with_regions_is_not_measured_on_a_file_without(agnet, files, folder, tmp_path):
    run = tmp_path / "run"
    agnet("train", "--boxes", files[0], "--root", folder, "--run", run, *OPTIONS, "--stop-after", 1)
    told = agnet("evaluate", "--run", run, "--boxes", files[1], "--root", folder, code=1).stderr
    assert "was trained on regions with method = 'sift'" in told and told.count("\n") == 1
    told = agnet("train", "--boxes", files[1], "--root", folder, "--run", run, *OPTIONS, "--resume", code=1).stderr
    assert "needs regions" in told
    agnet("propose", folder, "--boxes", tmp_path / "four.h5", "--primary", 4, "--jobs", 1)
    told = agnet("evaluate", "--run", run, "--boxes", tmp_path / "four.h5", "--root", folder, "--force", code=1).stderr
    assert "primary = 3" in told and "has 4" in told

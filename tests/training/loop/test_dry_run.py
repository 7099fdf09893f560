"""What `--dry-run` says, against the run that is then done."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import REASONS, RECIPES, Recipe
from agnet.training.runs.checkpoints import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

SMALL = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", "0", "--device", "cpu"]


@pytest.fixture
def train(agnet, boxes_file, folder):
    def run(*options, code=0):
        return agnet("train", "--boxes", boxes_file, "--root", folder, *SMALL, "--image-size", 64, *options, code=code)

    return run


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_writes_nothing_and_reckons_with_what_then_happens(train, tmp_path):
    options = ["--run", "run", "--batch-size", 2, "--accumulate", 2, "--frozen-stages", 1, "--ema-decay", 0.9]
    before = everything(tmp_path)
    told = json.loads(train(*options, "--dry-run", "--json").stdout)
    assert everything(tmp_path) == before
    # Nine training images: four batches of two and one of one, in steps of two batches.
    assert (told["images"], told["steps_per_epoch"], told["images_per_step"]) == ({"train": 9, "val": 3}, 3, 4)
    assert told["steps"] == 3 * RECIPES["modern"].epochs
    assert told["seconds_per_step"] > 0 and told["seconds"] > told["steps"] * told["seconds_per_step"] * 0.7
    assert told["peak_memory_bytes"] > 1e7

    model = build_model(ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small"))
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    stem = sum(count for name, count in counts.items() if name.startswith("backbone.body.0."))
    backbone = sum(count for name, count in counts.items() if name.startswith("backbone."))
    assert told["parameters"]["backbone"] == {"total": backbone, "trainable": backbone - stem}
    assert told["parameters"]["classifier"] == {"total": 576 * 3 + 3, "trainable": 576 * 3 + 3}
    assert told["parameters"]["all"] == {"total": sum(counts.values()), "trainable": sum(counts.values()) - stem}

    train(*options, "--epochs", 1)
    for name in ("best.safetensors", "config.json", "seen.txt"):
        assert told["files"][name] == pytest.approx((tmp_path / "run" / name).stat().st_size, rel=0.5), name
    assert told["files"]["best.safetensors"] == pytest.approx((tmp_path / "run/best.safetensors").stat().st_size, 0.02)
    assert load_checkpoint(Path("run/best.safetensors")).size_hw == (64, 64)


def test_of_cached_features_it_tells_the_size_and_that_they_are_computed_once(train, tmp_path):
    options = ["--model", "plain", "--batch-size", 4, "--backbone-lr", 0, "--no-augment", "--cache-features"]
    options += ["--epochs", 1, "--warmup-epochs", 0]
    before = everything(tmp_path)
    told = json.loads(train(*options, "--seeds", 0, 1, "--dry-run", "--json").stdout)
    assert everything(tmp_path) == before
    features = told["features"]
    assert features["bytes"] == 12 * 576 * 2 * 2 * 2  # images, channels, height, width, half precision
    assert told["seconds"] == pytest.approx(2 * told["seconds_per_epoch"] + features["seconds"])
    assert told["seconds_per_epoch"] > 0
    train(*options, "--run", "run")
    (file,) = tmp_path.glob("boxes.features-*.h5")
    assert features["file"] == file.name
    assert features["bytes"] == pytest.approx(file.stat().st_size, abs=20_000)
    stopped = train(*options[:-5], "--epochs", 1, "--warmup-epochs", 0, "--run", "run", "--resume", code=1)
    assert "cache_features = True, now it is False" in stopped.stderr


def test_of_several_seeds_it_tells_the_time_and_the_room_of_all(train):
    told = json.loads(train("--model", "plain", "--seeds", 4, 5, 6, "--dry-run", "--json").stdout)
    assert told["seeds"] == 3
    assert told["seconds"] == pytest.approx(3 * RECIPES["modern"].epochs * told["seconds_per_epoch"])
    text = train("--model", "plain", "--seeds", 4, 5, 6, "--dry-run").stdout
    assert re.search(r"an epoch, .* in all for 3 seeds$", text, flags=re.MULTILINE)
    whole, parts = re.search(r"about ([\d.]+) MB for 3 seeds: (.*) each$", text, flags=re.MULTILINE).groups()
    sizes = re.findall(r"([\d.]+) (MB|kB|bytes)", parts)
    one = sum(float(size) * {"MB": 1, "kB": 1e-3, "bytes": 1e-6}[unit] for size, unit in sizes)
    assert float(whole) == pytest.approx(3 * one, rel=0.02)


def test_of_two_phases_it_tells_what_learns_in_each_and_the_time_of_both(train):
    options = ["--model", "plain", "--recipe", "bilinear", "--epochs", 7, "--head-epochs", 3, "--dry-run"]
    told = json.loads(train(*options, "--json").stdout)
    head, rest = told["phases"]
    assert (head["trainable"], rest["trainable"]) == (576 * 3 + 3, told["parameters"]["all"]["total"])
    assert told["seconds"] == pytest.approx(3 * head["seconds_per_epoch"] + 4 * rest["seconds_per_epoch"])
    text = train(*options).stdout
    assert "epochs 1 to 3: the head alone, adamw, learning rate 0.001; 1,731 parameters" in text
    assert "epochs 4 to 7: head and backbone, sgd, learning rate 0.01, of the backbone 0.001; " in text


def test_a_recipe_is_told_with_its_reasons_and_what_was_overridden(train):
    text = train("--model", "plain", "--recipe", "paper", "--lr", 0.25, "--dry-run").stdout
    for name, reason in REASONS["paper"].items():
        if name not in ("lr", "image_size"):
            assert re.search(rf"^  {name} .*{re.escape(reason)}$", text, flags=re.MULTILINE), name
    assert re.search(r"^  lr +0\.25 +given; the recipe has 1e-05$", text, flags=re.MULTILINE)
    assert re.search(r"^model plain$\n  neck +none\n  backbone +mobilenet-v3-small$", text, flags=re.MULTILINE)
    assert re.search(r"^run$(\n  .*)*\n  seed +0$", text, flags=re.MULTILINE)
    assert REASONS["paper"]["lr"] not in text and "section IV, except for regions" in text
    assert "nothing was written" in text


def test_every_value_that_a_recipe_sets_has_a_reason():
    defaults = {field.name: field.default for field in fields(Recipe)}
    for name, recipe in RECIPES.items():
        for setting, default in defaults.items():
            if getattr(recipe, setting) != default:
                assert REASONS[name].get(setting), (name, setting)
        assert set(REASONS[name]) <= set(defaults)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--json"], "--dry-run"),
        (["--dry-run", "--resume"], "--resume"),
        (["--dry-run", "--frozen-stages", 9], "0 to 5"),
        (["--dry-run", "--precision", "fp16"], "CUDA"),
        (["--dry-run", "--ema-decay", 1], "--ema-decay: wanted at least 0 and below 1, got 1"),
        (["--dry-run", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["--dry-run", "--image-size", 7], "--image-size: wanted 0, a side of 32 to 4096"),
    ],
)
def test_what_cannot_be_done_is_one_line(train, options, complaint):
    failed = train(*options, code=2 if complaint.startswith("--") else 1)
    assert complaint in failed.stderr.strip().splitlines()[-1] and failed.stdout == ""


def test_a_size_that_the_backbone_cannot_take_is_said(agnet, boxes_file, folder):
    pytest.importorskip("timm")
    options = ["--backbone", "timm:vit_tiny_patch16_224", "--weights", "none", "--image-size", 96, "--device", "cpu"]
    failed = agnet("train", "--boxes", boxes_file, "--root", folder, *options, "--model", "plain", code=1)
    assert "does not support images of 96 x 96 pixels" in failed.stderr
    assert not list(Path("runs").rglob("*.safetensors"))

"""Runs written by hand, without any training, for the tests of the page about a run."""

import json
from dataclasses import asdict

import numpy as np
from PIL import Image

from agnet.data.contents import hash_of
from agnet.training.measure.predictions import QueryResults, SplitPredictions, save_predictions
from agnet.training.models.registry import record_of
from agnet.training.models.settings import PlainSettings
from agnet.training.recipes import RECIPES

HOSTILE = '<script>alert("1")</script>'
CLASSES = ("ant", HOSTILE, "côté")
#: of each image: its class and the answer; 7 of 12 are right.
ANSWERS = ((0, 0), (0, 0), (0, 1), (0, 1), (1, 1), (1, 1), (1, 1), (1, 0), (2, 2), (2, 2), (2, 0), (2, 1))
NETWORK = "fedcba9876543210"


def write_run(folder, predictions, seed=0, title=None, epochs=3, facts=None):
    """A run's folder with its configuration, log and predictions, and more columns of their table."""
    folder.mkdir(parents=True)
    recipe = asdict(RECIPES["modern"]) | {"epochs": epochs + 1, "backbone_lr": 0.0}
    config = {
        "model": record_of(PlainSettings(classes=max(2, len(predictions.classes)))),
        "recipe": recipe,
        "run": {"weights": "imagenet", "seed": seed, "device": "cpu", "precision": "fp32"},
        "boxes": {
            "dataset": predictions.dataset,
            "images": {"train": 9, "val": 3, "test": 12},
            "left_out_unreadable": 1,
        },
        "versions": {"agnet": "0.1.0"},
        "code": {"git_revision": "0" * 40, "git_dirty": False},
        "command": {
            "recipe": "modern",
            "options": {"root": "insects", "boxes": "/home/someone/boxes.h5", "flip": False},
        },
    }
    if title:
        config["title"] = title
    (folder / "config.json").write_text(json.dumps(config))
    lines = [
        {
            "epoch": k,
            "seconds": 40.0,
            "train_loss": 2 / k,
            "val_loss": 1.5 / k,
            "train_top1": 0.2 * k,
            "val_top1": 0.1 * k,
            "best": True,
        }
        for k in range(1, epochs + 1)
    ]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    save_predictions(folder / f"predictions-{predictions.split}.safetensors", predictions, facts)
    return folder


def predictions_of(answers=ANSWERS, classes=CLASSES, contents=None, names=None, **others):
    """Predictions with these answers, each a little surer than the one before."""
    logits = np.zeros((len(answers), len(classes)), dtype=np.float32)
    logits[np.arange(len(answers)), [answer for _, answer in answers]] = 1 + np.arange(len(answers)) / 4
    given = {
        "split": "test",
        "dataset": "folder",
        "network": NETWORK,
        "image_size": 224,
        "images_seen_in_training": 0,
        "names": names or tuple(f"test/{k}.png" for k in range(len(answers))),
        "contents": contents or tuple(f"{k:016x}" for k in range(len(answers))),
    }
    labels = np.array([label for label, _ in answers])
    return SplitPredictions(logits=logits, labels=labels, classes=classes, **{**given, **others})


def searches():
    """Results of three queries, of which the first two are found at once."""
    return QueryResults(
        labels=np.array([0, 0, 1]),
        names=("query/a.png", "query/b.png", "query/c.png"),
        contents=("unknown",) * 3,
        classes=("0001", "0002"),
        split="query",
        dataset="market1501",
        network=NETWORK,
        image_size=(256, 128),
        images_seen_in_training=0,
        average_precisions=np.array([1.0, 0.75, 0.25]),
        first_match=np.array([0, 0, 3]),
        nearest=("gallery/a.png",) * 3,
        nearest_persons=("0001", "0001", "0001"),
        cameras=("c1",) * 3,
        gallery="abc",
    )


def write_images(root):
    """Small textured photographs. Returns their names, of which one is hostile, and their content hashes."""
    names = [f"test/{k}.png" for k in range(len(ANSWERS))]
    names[2] = 'test/"><b>2.png'
    (root / "test").mkdir(parents=True)
    for k, name in enumerate(names):
        pixels = np.random.default_rng(k).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((120, 90)).save(root / name)
    return tuple(names), tuple(hash_of(root / name) for name in names)


def write_explanations(folder):
    """What a proof over the split leaves in the run's folder: its numbers and a picture."""
    minus = {"mean": -0.1, "low": -0.15, "high": -0.05, "better": True}
    unsure = {"mean": 0.01, "low": -0.02, "high": 0.04, "better": None}
    fill = {"deletion_minus": {"random": minus, "centre": unsure}, "insertion_minus": {"random": unsure}}
    found = {
        "format": "agnet explanations",
        "format_version": 1,
        "network": NETWORK,
        "images": 5,
        "of": 12,
        "fills": {"blur": fill},
        "verdict": "Better than random orders in 1 of 2 trials.",
        "rows": [],
        "pictures": [
            {"image": "test/0.png", "why": "surest mistake", "file": "explanations-test/0.png", "class": HOSTILE}
            | {"truth": "ant"}
        ],
    }
    (folder / "explanations-test.json").write_text(json.dumps(found))
    (folder / "explanations-test").mkdir()
    Image.new("RGB", (600, 200), "white").save(folder / "explanations-test" / "0.png")

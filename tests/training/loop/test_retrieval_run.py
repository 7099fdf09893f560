"""A run on a data set of persons, from training to its metrics, with a backbone of one layer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from agnet.commands.next_step import gallery_words
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import ConfigurationError, MismatchError
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.training.answers.nearest import Subjects
from agnet.training.answers.truth import known_images
from agnet.training.export.export import Network
from agnet.training.loop.engine import TIMINGS
from agnet.training.loop.fit import fit
from agnet.training.loop.interruption import Interrupted
from agnet.training.loop.job import Console, Job
from agnet.training.loop.preflight import check_input
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble, build_model
from agnet.training.models.registry import ModelSettings, record_of, settings_of
from agnet.training.models.settings import PlainSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoint_header import read_header
from agnet.training.runs.checkpoints import load_checkpoint
from agnet.training.tasks import CLASSIFY, RETRIEVE, task_of
from factories import EYES, images_and_regions

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

RUN = RunSettings(weights="none", workers=0, device="cpu")
RECIPE = RECIPES["reid"].override(epochs=2, batch_size=8, image_size=(48, 32), warmup_epochs=0.0, lr=3e-3, shift=0.1)
SETTINGS = PlainSettings(classes=6, backbone="mobilenet-v3-small", neck="batch-norm")


@pytest.fixture(scope="module")
def persons(tmp_path_factory):
    """Persons in shirts and trousers of their own colours, before six backgrounds; and the boxes file."""
    place = tmp_path_factory.mktemp("persons")
    generator = np.random.default_rng(0)
    for person in range(14):
        colours = generator.integers(0, 256, (2, 3))
        for camera in range(1, 7):
            split = "train" if person < 8 else "query" if camera == 1 else "gallery"
            pixels = generator.integers(0, 256, (48, 24, 3)) // 4 + 20 * camera
            pixels[8:26, 4:20], pixels[26:44, 4:20] = colours
            noisy = np.clip(pixels + generator.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
            (place / "images" / split / f"{person:02}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(place / "images" / split / f"{person:02}" / f"x_c{camera}.png")
    index = open_dataset("reid-folder", place / "images", val_fraction=0.25)
    propose_dataset(index, ProposalSettings(method="none", primary=0, kinds="none"), place / "boxes.h5")
    return place


@pytest.fixture(scope="module")
def trained(persons, one_thread):
    run = persons / "run"
    fit(Job(run, read_boxes(persons / "boxes.h5"), persons / "images", SETTINGS, RECIPE, RUN, keep_states=True))
    return run


def log_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def test_persons_are_a_task_of_their_own(persons, boxes_file):
    boxes = read_boxes(persons / "boxes.h5")
    assert task_of(boxes) is RETRIEVE and task_of(read_boxes(boxes_file)) is CLASSIFY
    assert RETRIEVE.classes(boxes) == boxes.classes[:6] and not set(RETRIEVE.classes(boxes)) & {"08", "09", "13"}
    swapped = replace(boxes, labels=len(boxes.classes) - 1 - boxes.labels)
    with pytest.raises(MismatchError, match="in a wrong order"):
        RETRIEVE.classes(swapped)


def test_it_logs_the_triplet_loss_and_measures_a_search_among_unseen_persons(trained, persons):
    found = log_of(trained)
    assert [set(line) >= {"train_triplet", "val_map", "val_cmc1"} for line in found] == [True, True]
    assert all(0 < line["val_map"] <= 1 and "val_loss" not in line for line in found)
    checkpoint = load_checkpoint(trained)
    assert checkpoint.classes == read_boxes(persons / "boxes.h5").classes[:6]
    assert checkpoint.settings == SETTINGS and checkpoint.size_hw == (48, 32)


def test_it_is_resumed_bit_for_bit_within_an_epoch(trained, persons, tmp_path):
    boxes = read_boxes(persons / "boxes.h5")
    job = Job(tmp_path / "run", boxes, persons / "images", SETTINGS, RECIPE, RUN, keep_states=True)
    seen = []

    def interrupt(what, images):
        def watch(done, values):
            seen.append(done)
            if what.startswith("epoch 2") and len(seen) > 6:
                import signal

                signal.raise_signal(signal.SIGINT)

        return watch

    with pytest.raises(Interrupted, match="of epoch 2 of 2"):
        fit(job, Console(watch=interrupt))
    fit(replace(job, resume=True))
    assert log_of(tmp_path / "run") == log_of(trained)
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (trained / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "processes", "complaint"),
    [
        ({"select_by": "val_loss"}, 1, "wanted val_map or val_cmc1, which are measured in retrieval"),
        ({}, 2, "images_per_class' needs one process"),
    ],
)
def test_what_cannot_be_trained_is_refused(persons, changes, processes, complaint):
    boxes = read_boxes(persons / "boxes.h5")
    with pytest.raises(ConfigurationError, match=complaint):
        check_input(boxes, RECIPE.override(**changes), proposes=False, processes=processes)


def test_persons_are_trained_for_retrieval_unless_told_otherwise(agnet, persons):
    given = ["train", "--boxes", persons / "boxes.h5", "--model", "plain", "--backbone", "mobilenet-v3-small"]
    given += ["--weights", "none", "--dry-run", "--json", "--workers", 0, "--batch-size", 8, "--image-size", "48x32"]
    told = json.loads(agnet(*given).stdout)
    assert (told["recipe"], told["model"]["neck"]) == ("reid", "batch-norm")
    Path("mine.yaml").write_text(f"boxes: {persons / 'boxes.h5'}\nmodel: plain\nbackbone: mobilenet-v3-small\n")
    told = json.loads(agnet("train", "--config", "mine.yaml", *given[7:]).stdout)
    assert (told["recipe"], told["model"]["neck"]) == ("reid", "batch-norm")
    other = ["--recipe", "modern", "--select-by", "val_cmc1", "--neck", "none"]
    told = json.loads(agnet(*given, *other).stdout)
    assert (told["recipe"], told["model"]["neck"]) == ("modern", "none")


# The neck


@pytest.mark.parametrize("model", ["plain", "agnet"])
def test_a_neck_is_a_batch_norm_without_a_bias_before_a_classifier_without_one(model):
    def build(**changes):
        torch.manual_seed(0)
        settings = ModelSettings(3, 4, model=model, units=4, se_ratio=4, **changes)
        return assemble(settings, Backbone(nn.Conv2d(3, 16, 8, stride=8), 16, EYES)).double()

    bare, necked = build().eval(), build(neck="batch-norm")
    assert set(necked.state_dict()) - set(bare.state_dict()) == {
        f"neck.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert set(bare.state_dict()) - set(necked.state_dict()) == {"classifier.bias"}
    assert not necked.neck.bias.requires_grad and necked.parts()["neck"] == "head"
    inputs = images_and_regions(5)[: len(necked.inputs)]
    output = necked.train()(*inputs)
    assert output.embedding.mean(0).abs().max() < 1e-10 and not torch.equal(output.compared, output.embedding)
    assert torch.allclose(output.logits, output.embedding @ necked.classifier.weight.T)
    assert bare(*inputs).compared is None


def test_records_from_before_necks_are_read():
    old = {name: value for name, value in record_of(SETTINGS).items() if name != "neck"}
    assert settings_of(old) == replace(SETTINGS, neck="none")
    assert build_model(replace(SETTINGS, neck="none")).neck is None


def test_what_only_training_compares_is_not_exported():
    settings = replace(SETTINGS, backbone="resnet18")
    network = Network(assemble(settings, Backbone(nn.Conv2d(3, 16, 8, stride=8), 16, EYES)).eval())
    assert set(network(torch.zeros(2, 3, 32, 32))) == {"logits", "probabilities", "embedding"}


def test_a_search_with_it_knows_the_persons_and_cameras_of_its_boxes_file(trained, persons):
    """The network has names for the persons of train only; the file knows all."""
    subjects = Subjects(known_images(trained, read_header(trained / "best.safetensors")))
    query = subjects.of(str(persons / "images" / "query" / "09" / "x_c1.png"))
    assert (query.name, query.camera, query.is_person, query.part) == ("09", "1", True, "in the query split")
    gallery = [subjects.of(str(persons / "images" / "gallery" / name)) for name in ("09/x_c3.png", "12/x_c2.png")]
    assert [query.same(one) for one in gallery] == [True, False]
    assert [one.part for one in gallery] == ["in the gallery split"] * 2


def test_predict_without_a_gallery_says_whom_it_lists(agnet, trained, persons):
    told = agnet("predict", "--run", trained, persons / "images" / "query" / "09" / "x_c1.png")
    assert told.stderr.count("classes listed are persons it was trained on") == 1 and "--gallery" in told.stderr


def test_the_suggested_search_is_in_the_folder_of_the_gallery(persons, boxes_file):
    boxes, images = read_boxes(persons / "boxes.h5"), persons / "images"
    assert gallery_words(boxes, images, "query") == ["--gallery", images / "gallery"]
    assert gallery_words(boxes, images, "val") == ["--gallery", images / "train"]  # validation is cut from it
    assert gallery_words(read_boxes(boxes_file), images, "test") == []

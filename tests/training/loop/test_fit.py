import json
import os
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, ConfigurationError, DatasetError, MismatchError, TrainingError
from agnet.training.loop import engine
from agnet.training.loop.engine import TIMINGS, evaluate, train_epoch
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Job
from agnet.training.loop.learner import Learner
from agnet.training.loop.optimizer import build_optimizer
from agnet.training.machine.devices import Device, choose_device
from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.folder import read_config, title_of
from agnet.training.samples.loader import Batch, Loader, RegionDataset

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

CPU = Device(torch.device("cpu"))
RECIPE = RECIPES["modern"].override(lr=1e-3, epochs=4, batch_size=4, image_size=64)
RUN = RunSettings(weights="none", workers=0)


def settings(**changes):
    return ModelSettings(**({"classes": 3, "regions": 6, "backbone": "mobilenet-v3-small"} | changes))


def log_of(run, without=TIMINGS):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in without} for line in lines]


@pytest.fixture
def boxes(boxes_file):
    return read_boxes(boxes_file)


def test_two_and_two_epochs_equal_four_bit_for_bit(boxes, folder, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    fit(Job(straight, boxes, folder, settings(), RECIPE, RUN, keep_states=True))
    fit(Job(stopped, boxes, folder, settings(), RECIPE, RUN, stop_after=2))
    assert len((stopped / "log.jsonl").read_text().splitlines()) == 2
    # Readers in other processes make no difference either.
    workers = RunSettings(weights="none", workers=1)
    fit(Job(stopped, boxes, folder, settings(), RECIPE, workers, resume=True, keep_states=True))
    one, other = load_file(straight / "last.safetensors"), load_file(stopped / "last.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert log_of(straight) == log_of(stopped)
    assert (straight / "best.safetensors").read_bytes() == (stopped / "best.safetensors").read_bytes()


def test_the_best_epoch_is_chosen_by_validation_alone(boxes, folder, tmp_path, monkeypatch):
    scores = iter([0.2, 0.6, 0.6, 0.4])
    looked_at = set()
    original = engine.evaluate

    def scored(model, batches, **options):
        predictions = original(model, batches, **options)
        looked_at.update(boxes.splits[boxes.usable[predictions.rows]].tolist())
        score = next(scores)
        monkeypatch.setattr(engine.Predictions, "measures", lambda self, task, cameras: {"loss": 1.0, "top1": score})
        return predictions

    monkeypatch.setattr("agnet.training.loop.fit.evaluate", scored)
    fit(Job(tmp_path / "run", boxes, folder, settings(model="plain"), RECIPE.override(select_by="val_top1"), RUN))
    assert [line.get("best", False) for line in log_of(tmp_path / "run")] == [True, True, False, False]
    assert looked_at == {"val"}


def test_a_run_is_never_written_over(boxes, folder, tmp_path):
    options = (boxes, folder, settings(model="plain"), RECIPE.override(epochs=1), RUN)
    fit(Job(tmp_path / "run", *options))
    before = (tmp_path / "run" / "best.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="--resume"):
        fit(Job(tmp_path / "run", *options))
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == before


def test_resuming_with_other_options_names_the_difference(boxes, folder, tmp_path):
    plain = settings(model="plain")
    fit(Job(tmp_path / "run", boxes, folder, plain, RECIPE, RUN, stop_after=1))
    with pytest.raises(MismatchError, match=r"lr = 0\.001, now it is 0\.5"):
        fit(Job(tmp_path / "run", boxes, folder, plain, RECIPE.override(lr=0.5), RUN, resume=True))
    with pytest.raises(MismatchError, match="model"):
        fit(Job(tmp_path / "run", boxes, folder, settings(), RECIPE, RUN, resume=True))
    with pytest.raises(CheckpointError, match="not a run folder"):
        fit(Job(tmp_path / "other", boxes, folder, plain, RECIPE, RUN, resume=True))


def test_a_run_records_its_title_hardware_and_time_in_all(boxes, folder, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("agnet.training.loop.fit.draw_curves", lambda lines, path, title, *how: titles.append(title))
    given = (tmp_path / "run", boxes, folder, settings(model="plain"), RECIPE.override(epochs=2), RUN)
    began = time.monotonic()
    fit(Job(*given, title="first try", stop_after=1))
    fit(Job(*given, resume=True))
    lasted = time.monotonic() - began
    config = read_config(tmp_path / "run")
    assert config["title"] == "first try" and titles[-1].startswith("first try - ")
    assert config["boxes"]["proposals"]["primary"] == 3
    assert config["hardware"]["threads"] == torch.get_num_threads() and config["hardware"]["gpu"] is None
    assert config["hardware"]["cores"] >= 1 and config["hardware"]["cpu"]
    first, second = log_of(tmp_path / "run", without=())
    assert first["seconds"] < first["total_seconds"] < second["total_seconds"] < lasted
    assert second["total_seconds"] > first["total_seconds"] + second["seconds"]
    assert first["train_cross_entropy"] > 0 and 0 <= first["val_map"] <= 1
    fit(Job(*given, resume=True, title="better"))  # it has finished
    assert title_of(tmp_path / "run") == "better" and read_config(tmp_path / "run")["model"] == config["model"]


def test_artefacts_tell_all_but_whose_machine_this_is(boxes, folder, tmp_path, a_named_host):
    run = tmp_path / "run"
    home = os.environ.get("HOME", "/").rstrip("/").encode()  # a container's may be /
    fit(Job(run, boxes, folder, settings(model="plain"), RECIPE.override(epochs=1), RUN))
    config = read_config(run)
    assert config["recipe"]["lr"] == RECIPE.lr and config["boxes"]["fingerprint"] == boxes.fingerprint
    assert config["boxes"]["images"] == {"train": 9, "val": 3, "test": 6}
    artefacts = [path for path in run.rglob("*") if path.is_file()]
    assert len(artefacts) >= 6
    for artefact in artefacts:
        content = artefact.read_bytes()
        assert str(tmp_path).encode() not in content and not (home and home + b"/" in content), artefact
        assert a_named_host.encode() not in artefact.name.encode() + content, artefact


def test_unreadable_and_missing_parts_are_said(boxes, folder, tmp_path):
    with pytest.raises(DatasetError, match="not under"):
        fit(Job(tmp_path / "run", boxes, tmp_path, settings(), RECIPE, RUN))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigurationError, match="known: resnet50"):
        fit(Job(tmp_path / "run", boxes, folder, settings(backbone="alexnet"), RECIPE, RUN))
    with pytest.raises(ConfigurationError, match="'warp'"):
        choose_device("warp")


def test_a_frozen_backbone_does_not_move_at_all(boxes, folder, tmp_path):
    torch.manual_seed(RUN.seed)
    before = {f"model.{name}": value for name, value in build_model(settings()).state_dict().items()}
    fit(
        Job(
            tmp_path / "run",
            boxes,
            folder,
            settings(),
            RECIPE.override(epochs=1, backbone_lr=0.0),
            RUN,
            keep_states=True,
        )
    )
    after = load_file(tmp_path / "run" / "last.safetensors")
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved and not any(name.startswith("model.backbone.") for name in moved)


def test_parameters_are_grouped_by_place_and_kind():
    model = build_model(settings())
    optimizer = build_optimizer(model, RECIPE.override(backbone_lr=0.1, classifier_lr=1.0, fan_in=0))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(groups) == sum(1 for _ in model.parameters())
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        assert group["highest_lr"] == pytest.approx(1e-4 if name.startswith("backbone.") else 1e-3), name
        assert (group["weight_decay"] > 0) == (parameter.ndim > 1), name


def test_a_diverged_loss_stops_with_a_reason():
    model = build_model(settings(model="plain"))
    with torch.no_grad():
        model.classifier.weight.fill_(float("inf"))
    batch = Batch.of_images(
        torch.zeros(2, 3, 224, 224, dtype=torch.uint8), torch.zeros(2, 6, 4), torch.tensor([0, 1]), torch.arange(2)
    )
    with pytest.raises(TrainingError, match=r"parameters not finite: classifier\.weight; .*--lr"):
        train_epoch(Learner(model, RECIPES["modern"], CPU), [batch], 0, steps=1)


def test_evaluation_sees_every_image_once_whatever_the_batch(boxes, folder):
    torch.manual_seed(0)
    model = build_model(settings()).eval()
    results = []
    for batch_size in (1, 4, 100):
        loader = Loader(RegionDataset(boxes, folder, (224, 224)), boxes.rows("test"), batch_size, 0)
        results.append(evaluate(model, loader.epoch(0), device=CPU))
    for result in results:
        assert result.rows.tolist() == boxes.rows("test").tolist()
        np.testing.assert_allclose(result.logits, results[0].logits, atol=1e-4)


def test_training_learns_three_generated_classes(boxes, folder, tmp_path):
    """Nine images, learnt by heart: the whole loop moves the network the right way."""
    recipe = RECIPE.override(
        epochs=15, augment=False, lr=3e-3, backbone_lr=1.0, batch_size=9, warmup_epochs=2.0, image_size=64
    )
    fit(Job(tmp_path / "run", boxes, folder, settings(), recipe, RUN))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["train_top1"] >= 8 / 9
    assert lines[-1]["train_loss"] < 0.7 * lines[0]["train_loss"]

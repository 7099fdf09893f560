"""A run of two phases: the head alone, then all parts; wherever it is stopped, it ends as if it had not been."""

import json
import math
import signal

import pytest
import torch
from safetensors.torch import load_file

from agnet.data.boxes.reader import read_boxes
from agnet.training.loop.engine import TIMINGS, train_epoch
from agnet.training.loop.fit import fit
from agnet.training.loop.interruption import Interrupted
from agnet.training.loop.job import SILENT, Job
from agnet.training.loop.learner import Learner
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from factories import CPU, batch_of, tiny

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

PLAIN = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")
RECIPE = RECIPES["bilinear"].override(
    epochs=3, head_epochs=2, head_lr=0.01, batch_size=3, image_size=32, ema_decay=0.9, mixup=0.4
)
RUN = RunSettings(weights="none", workers=0, device="cpu")


@pytest.fixture
def train(boxes_file, folder, tmp_path):
    boxes = read_boxes(boxes_file)

    def run(name, **options):
        fit(Job(tmp_path / name, boxes, folder, PLAIN, RECIPE, RUN, keep_states=True, **options), SILENT)
        return tmp_path / name

    return run


def end_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    log = [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]
    last = {name: value.numpy().tobytes() for name, value in load_file(run / "last.safetensors").items()}
    return log, (run / "best.safetensors").read_bytes(), last


def test_a_stop_in_either_phase_and_exactly_between_them_changes_nothing(train, monkeypatch):
    """Three steps an epoch. A signal arrives before a step, and the state is saved after it."""
    straight, whole_step = end_of(train("straight")), Learner.step

    def until(place, **options):
        def step(self, batches, epoch, step, steps):
            if (epoch, step) == place:
                signal.raise_signal(signal.SIGINT)
            return whole_step(self, batches, epoch, step, steps)

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(Learner, "step", step)
            train("stopped", **options)

    until((0, 1))
    until((1, 2), resume=True)  # all steps of the first phase are done, but not its validation
    run = train("stopped", resume=True, stop_after=2)
    kept = {name.rpartition(".")[2] for name in load_file(run / "last.safetensors") if name.startswith("optimizer.")}
    assert kept == {"exp_avg", "exp_avg_sq", "step"}  # AdamW's
    until((2, 1), resume=True)
    assert end_of(train("stopped", resume=True)) == straight
    # At the middle of an epoch's last step: 5/12 and 11/12 of a cosine over two epochs, and 5/6 of one over one.
    rates = [0.01 * (1 + math.cos(math.pi * share)) / 2 for share in (5 / 12, 11 / 12, 5 / 6)]
    assert [line["lr"] for line in straight[0]] == pytest.approx(rates)


def test_frozen_backbones_rest_with_their_statistics_and_wake_up():
    model = tiny(norm=True)
    model.backbone.body[0].bias.requires_grad_(False)  # the model's own choice, which stays
    recipe = RECIPE.override(head_epochs=1, clip_norm=0.0)
    learner = Learner(model, recipe, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def moved():
        state = model.state_dict()
        return {name.partition(".")[0] for name, value in before.items() if not torch.equal(state[name], value)}

    train_epoch(learner, [batch_of(4, 0), batch_of(4, 1)], 0, steps=2)
    assert moved() == {"classifier"} and not model.backbone.training
    assert type(learner.optimizer) is torch.optim.AdamW
    assert {group["highest_lr"] for group in learner.optimizer.param_groups} == {0.01}
    train_epoch(learner, [batch_of(4, 2), batch_of(4, 3)], 1, steps=2)
    assert moved() == {"classifier", "backbone"} and model.backbone.training
    assert not torch.equal(model.state_dict()["backbone.body.1.running_mean"], before["backbone.body.1.running_mean"])
    assert torch.equal(model.backbone.body[0].bias, before["backbone.body.0.bias"])
    assert type(learner.optimizer) is torch.optim.SGD
    assert sorted({group["highest_lr"] for group in learner.optimizer.param_groups}) == pytest.approx([0.001, 0.01])

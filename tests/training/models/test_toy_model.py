"""A new family takes a module and an entry in the registry: nothing else of the code knows of it.

It has what none of the families here has: two backbones, logits for each frame, an auxiliary loss, no regions, and
images that are higher than wide.
"""

import json
import math
import shutil
import signal
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from agnet import load
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import ConfigurationError
from agnet.data.fields import A_NAME, AT_LEAST_1, setting
from agnet.training.loop import preparation
from agnet.training.loop.engine import TIMINGS
from agnet.training.loop.fit import fit
from agnet.training.loop.interruption import Interrupted
from agnet.training.loop.job import SILENT, Console, Job
from agnet.training.measure.evaluation import evaluate_run
from agnet.training.models.backbones.backbone import BACKBONES
from agnet.training.models.backbones.entries import BackboneEntry, Preprocessing
from agnet.training.models.build import build_model
from agnet.training.models.contract import ModelSpec, Needs, Output, Settings, Stream
from agnet.training.models.model import Model
from agnet.training.models.registry import MODELS
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoints import load_checkpoint
from agnet.training.runs.folder import read_config
from agnet.training.samples.loader import Loader, RegionDataset
from agnet.training.tasks import CLASSIFY
from factories import CPU

pytestmark = pytest.mark.usefixtures("one_thread", "toy")

RECIPE = RECIPES["modern"].override(
    epochs=2, batch_size=4, image_size=(40, 32), mixup=0.4, class_weights="balanced", ema_decay=0.9, dropout=0.1
)
RUN = RunSettings(weights="none", workers=0, device="cpu", seed=5)


@dataclass(frozen=True)
class ToySettings(Settings):
    model: ClassVar[str] = "toy"

    first: str = setting("Toy", "Name of the first backbone", A_NAME, "dots")
    second: str = setting("Toy", "Name of the second backbone", A_NAME, "lines")
    width: int = setting("Toy", "Numbers of the embedding", AT_LEAST_1, 6)

    @property
    def streams(self):
        return Stream(self.first), Stream(self.second)


class Toy(Model):
    inputs = ("frames", "valid")

    def __init__(self, first, second, width, classes):
        super().__init__()
        self.first, self.second = first, second
        self.join = nn.Linear(first.channels + second.channels, width)
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(width, classes)

    def forward(self, frames, valid):
        images = frames.flatten(0, 1)
        streams = [backbone(images).mean(dim=(2, 3)) for backbone in (self.first, self.second)]
        features = self.join(torch.cat(streams, dim=1)).tanh().unflatten(0, frames.shape[:2])  # (B, T, width)
        seen = torch.where(valid[..., None], features, 0)
        embedding = seen.sum(dim=1) / valid.sum(dim=1, keepdim=True)
        logits = self.classifier(self.dropout(features))  # (B, T, classes)
        return Output(logits, embedding=embedding, losses={"spread": 0.1 * seen.square().mean(dim=(1, 2))})


def assemble_toy(settings, backbones):
    return Toy(*backbones, settings.width, settings.classes)


def entry(size, channels, kernel):
    def build():
        body = nn.Sequential(nn.Conv2d(3, channels, kernel, stride=4), nn.BatchNorm2d(channels), nn.ReLU())
        return nn.Sequential(body, nn.Linear(channels, 2))

    eyes = Preprocessing(size, mean=(0.1 * size / 32, 0.5, 0.4), std=(0.2, 0.3, 0.4))
    return BackboneEntry(build, lambda net: net[0], channels, "1.", dict, eyes)


@pytest.fixture(scope="module")
def toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "dots", lambda: entry(32, 4, (4, 4)))
        patch.setitem(BACKBONES, "lines", lambda: entry(48, 5, (1, 7)))
        spec = ModelSpec("a toy", ToySettings, lambda settings: Needs(), f"{__name__}:assemble_toy")
        patch.setitem(MODELS, "toy", spec)
        patch.setattr("agnet.training.loop.fit.draw_curves", lambda *about: None)  # slow, and tested elsewhere
        yield


def train(run, boxes, root, recipe=RECIPE, run_settings=RUN, console=SILENT, **options):
    return fit(Job(run, boxes, root, ToySettings(3), recipe, run_settings, **options), console)


@pytest.fixture(scope="module")
def made(toy, one_thread, _original_boxes, _original_folder, tmp_path_factory):
    """A run of two epochs, with the images that it is of."""
    run, boxes = tmp_path_factory.mktemp("toys") / "run", read_boxes(_original_boxes)
    train(run, boxes, _original_folder)
    return run, boxes, _original_folder


def lines(run):
    told = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in told]


def test_it_trains_and_its_auxiliary_loss_is_logged_by_name(made):
    run = made[0]
    found = lines(run)
    assert len(found) == 2 and all(0 < line["train_spread"] < 0.1 < line["train_loss"] for line in found)
    assert all(not name.endswith("spread") or name == "train_spread" for line in found for name in line)
    record = read_config(run)["model"]
    assert record == {"model": "toy", "classes": 3, "neck": "none", "first": "dots", "second": "lines", "width": 6}
    checkpoint = load_checkpoint(run)
    assert checkpoint.size_hw == (40, 32) and checkpoint.settings == ToySettings(3) and checkpoint.regions == 0
    assert [backbone.preprocessing.size for backbone in checkpoint.model.backbones] == [32, 48]


def test_it_is_resumed_bit_for_bit_also_within_its_first_epoch(made, tmp_path):
    run, boxes, root = made

    def interrupt(what, images):
        return lambda done, values: what.startswith("epoch") and signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="after 1 step of epoch 1 of 2"):
        train(tmp_path / "run", boxes, root, console=Console(watch=interrupt))
    train(tmp_path / "run", boxes, root, resume=True, stop_after=1)
    train(tmp_path / "run", boxes, root, resume=True)
    assert lines(tmp_path / "run") == lines(run)
    wanted, found = (load_file(path / "best.safetensors") for path in (run, tmp_path / "run"))
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


def test_it_is_evaluated_and_predicts_what_was_measured(made, tmp_path):
    run, boxes, root = shutil.copytree(made[0], tmp_path / "run"), *made[1:]
    measured = evaluate_run(run, boxes, root, "test", 4, CPU, 0, watch=lambda what, images: lambda *_: None)
    with pytest.raises(ConfigurationError, match="'query': classification is measured on one of train, val, test"):
        evaluate_run(run, boxes, root, "query", 4, CPU, 0, watch=lambda what, images: lambda *_: None)
    scores = measured.predictions.logits
    assert scores.shape == (len(boxes.rows("test")), 3)
    model = load_checkpoint(run).model.eval()
    batch = next(iter(Loader(RegionDataset(boxes, root, (40, 32), regions=False), boxes.rows("test"), 99, 0).epoch(0)))
    with torch.no_grad():
        expected = model(batch.frames, batch.valid).logits[:, 0].softmax(1).numpy()
    np.testing.assert_allclose(np.exp(scores), expected, atol=1e-6)
    names = [str(root / name) for name in measured.predictions.names]
    for result, row in zip(load(run, device="cpu").predict(names, top=3), expected, strict=True):
        assert [dict(result.top)[name] for name in boxes.classes] == pytest.approx(row.tolist(), abs=1e-6)


def test_a_new_run_begins_with_its_weights(made, tmp_path):
    run, boxes, root = made
    said = []
    others = RECIPE.override(epochs=1, lr=1e-9, image_size=0)
    start = replace(RUN, weights=str(run), seed=1)
    train(tmp_path / "run", boxes, root, recipe=others, run_settings=start, console=Console(say=said.append))
    assert any(line.startswith("weights of run, epoch") for line in said)
    before, after = (load_checkpoint(path) for path in (run, tmp_path / "run"))
    assert after.size_hw == (40, 32)
    for name, value in before.model.named_parameters():
        torch.testing.assert_close(after.model.get_parameter(name), value, rtol=0, atol=1e-6)


def test_it_is_validated_on_the_scores_of_its_learners_task(made, tmp_path, monkeypatch):
    boxes, root = made[1:]

    def zeros(output, valid):
        return torch.zeros(len(valid), 3)

    monkeypatch.setattr(preparation, "task_of", lambda boxes: replace(CLASSIFY, scores=zeros))
    train(tmp_path / "run", boxes, root, stop_after=1)
    assert lines(tmp_path / "run")[0]["val_loss"] == pytest.approx(math.log(3))


def test_padded_frames_change_nothing():
    torch.manual_seed(0)
    model = build_model(ToySettings(3)).eval()
    frames = torch.randint(0, 256, (2, 3, 3, 40, 32), dtype=torch.uint8)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    whole = model(frames, valid)
    for row, count in ((0, 2), (1, 1)):
        alone = model(frames[row : row + 1, :count], valid[row : row + 1, :count])
        torch.testing.assert_close(whole.logits[row, :count], alone.logits[0])
        torch.testing.assert_close(whole.embedding[row], alone.embedding[0])

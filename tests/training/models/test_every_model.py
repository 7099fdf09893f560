"""What every model offers: raw pixels in, images of any height and width, parts that training finds by itself."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from agnet.training.answers.predict import with_evidence
from agnet.training.loop.optimizer import build_optimizer, rest_frozen
from agnet.training.models.backbones.backbone import Backbone, Preprocessing, build_backbone
from agnet.training.models.build import assemble
from agnet.training.models.contract import ModelSpec, Needs, Output, Settings, Stream
from agnet.training.models.model import BACKBONE, CLASSIFIER, HEAD, Model, kind_of, path_of
from agnet.training.models.registry import MODELS, ModelSettings
from agnet.training.recipes import RECIPES
from agnet.training.runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from factories import CPU, EYES, batch_of, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)


class Pair(Model):
    """Two backbones, whose last maps are averaged and put side by side, and a gate of its own."""

    def __init__(self, first, second, classes=3):
        super().__init__()
        self.coarse, self.fine = first, second
        channels = first.channels + second.channels
        self.scale = nn.Parameter(torch.ones(()))
        self.mixing_layer = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images):
        averages = [backbone(images).mean(dim=(2, 3)) for backbone in (self.coarse, self.fine)]
        embedding = self.scale * self.mixing_layer(torch.cat(averages, dim=1))
        return Output(self.classifier(self.dropout(embedding)), embedding=embedding)


@dataclass(frozen=True)
class PairSettings(Settings):
    model: ClassVar[str] = "pair"

    @property
    def streams(self):
        return Stream("two"), Stream("three")


def build_pair(settings, backbones):
    return Pair(*backbones, settings.classes)


def body(*channels):
    """A convolution, a batch norm and a stride of 2 for each of the channels: as many stages."""
    layers = []
    for inputs, outputs in zip((3, *channels), channels, strict=False):
        layers += [nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs))]
    return nn.Sequential(*layers)


def pair():
    torch.manual_seed(0)
    return Pair(Backbone(body(4, 6), 6, Preprocessing(32, MEAN, STD)), Backbone(body(4, 6, 8), 8))


# Pixels


def test_a_backbone_normalises_pixels_as_its_weights_want_them():
    backbone = Backbone(nn.Identity(), 3, Preprocessing(4, MEAN, STD))
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = backbone(pixels)
    assert found.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        wanted = (pixels[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(found[:, channel].double(), wanted, rtol=0, atol=1e-5)
    for other in (pixels.float(), pixels.contiguous(memory_format=torch.channels_last), pixels.double()):
        assert torch.equal(backbone(other), found)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(backbone(pixels), found)
    assert not backbone.state_dict()


def test_other_preprocessing_is_another_normalisation():
    backbone = Backbone(nn.Identity(), 3)
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    backbone.preprocessing = Preprocessing(8, (0.5, 0.5, 0.5), (0.5, 0.25, 0.125))
    assert backbone(pixels)[0, :, 0, 0].tolist() == [1, 2, 4]
    assert backbone.double()(pixels).dtype == torch.float64


def test_each_of_two_backbones_normalises_for_itself():
    model, batch = pair().eval(), batch_of(2)
    seen = []
    for backbone in model.backbones:
        backbone.body.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(batch.images)
    for images, (mean, std) in zip(seen, ((MEAN, STD), (Preprocessing().mean, Preprocessing().std)), strict=True):
        wanted = (batch.images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(images, wanted)


# Height and width


@pytest.mark.parametrize("model", ["agnet", "plain"])
def test_height_and_width_may_differ(model):
    network = tiny(model, norm=True).eval()
    assert network.size_hw == (EYES.size, EYES.size)
    images = torch.randint(0, 256, (2, 3, 40, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    regions = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(1)).sort(dim=2).values
    inputs = [images, regions][: len(network.inputs)]
    with torch.no_grad():
        output = network(*inputs)
        alone = [network(*(value[row : row + 1] for value in inputs)).logits for row in range(2)]
    torch.testing.assert_close(output.logits, torch.cat(alone))
    assert output.attention_map is None or output.attention_map.shape == (2, 7, 7)
    _, places = with_evidence(network, *inputs)
    assert places.shape == (2, 7, 7)  # as the head is given the map, whose own places are 9 × 17


def test_stages_are_numbered_though_height_and_width_differ():
    recipe = RECIPES["modern"].override(frozen_stages=1)
    torch.manual_seed(0)
    square, oblong = (assemble(ModelSettings(classes=3, model="plain"), Backbone(body(4, 8), 8)) for _ in range(2))
    oblong.size_hw = (32, 64)
    frozen = []
    for model in (square, oblong):
        build_optimizer(model, recipe)
        frozen.append({name for name, parameter in model.named_parameters() if not parameter.requires_grad})
    assert frozen[0] == frozen[1] and len(frozen[0]) == 4


@pytest.mark.parametrize("size_hw", [(48, 48), (48, 96)])
def test_a_checkpoint_keeps_height_and_width(tmp_path, size_hw):
    torch.manual_seed(0)
    settings = ModelSettings(classes=3, model="plain", backbone="mobilenet-v3-small")
    model = assemble(settings, build_backbone("mobilenet-v3-small"))
    model.size_hw = size_hw
    made = Checkpoint(settings, ("a", "b", "c"), {}, "", 1, None, model=model)
    path = save_checkpoint(tmp_path / "best.safetensors", made)
    loaded = load_checkpoint(path)
    assert loaded.size_hw == loaded.model.size_hw == size_hw
    assert loaded.model.backbone.preprocessing == model.backbone.preprocessing
    assert (b'"size": 48, "mean"' if size_hw == (48, 48) else b'"size": [48, 96], "mean"') in (
        path.read_bytes().replace(b"\\", b"")
    )


# Parts


def test_parts_are_found_by_themselves():
    model = pair()
    assert model.inputs == ("images",)
    assert model.backbones == (model.coarse, model.fine) and model.map_layer is model.coarse
    assert list(model.parts().items()) == [
        ("coarse", BACKBONE),
        ("fine", BACKBONE),
        ("mixing_layer", HEAD),
        ("classifier", CLASSIFIER),
        ("scale", HEAD),
    ]
    assert model.title("mixing_layer") == "mixing-layer"


def test_every_weight_is_of_one_part():
    for model in (tiny("agnet"), tiny("plain"), pair()):
        parts = model.parts()
        assert all(path_of(parts, name) for name in model.state_dict())
        assert {kind_of(parts, name) for name in model.classifier.state_dict(prefix="classifier.")} == {CLASSIFIER}


def test_a_longer_path_goes_first():
    parts = {"net": HEAD, "net.body": BACKBONE}
    assert [kind_of(parts, name) for name in ("net.body.weight", "net.bodyguard", "net.gate")] == [BACKBONE, HEAD, HEAD]


def rates(model, **changes):
    recipe = RECIPES["modern"].override(**{"lr": 1.0, "backbone_lr": 0.1, "classifier_lr": 2.0} | changes)
    groups = build_optimizer(model, recipe).param_groups
    found = {id(parameter): group["highest_lr"] for group in groups for parameter in group["params"]}
    return {name: found.get(id(parameter)) for name, parameter in model.named_parameters()}


def test_both_backbones_learn_at_their_rate():
    for name, rate in rates(pair()).items():
        kind = name.partition(".")[0]
        assert rate == pytest.approx({"coarse": 0.1, "fine": 0.1, "classifier": 2.0}.get(kind, 1.0)), name


def test_stages_are_counted_for_each_backbone():
    found = rates(pair(), frozen_stages=1, layer_decay=0.5)
    by_stage = {name.removesuffix(".0.weight"): rate for name, rate in found.items() if name.endswith(".0.weight")}
    wanted = {"coarse.body.0": None, "coarse.body.1": 0.1}
    wanted |= {"fine.body.0": None, "fine.body.1": 0.05, "fine.body.2": 0.1}
    assert by_stage == pytest.approx(wanted)


def test_a_backbone_of_fewer_stages_may_be_frozen_whole():
    found = rates(pair(), frozen_stages=2)
    assert {name.partition(".")[0] for name, rate in found.items() if rate is None} == {"coarse", "fine"}
    assert all(rate is None for name, rate in found.items() if name.startswith("coarse."))
    assert found["fine.body.2.0.weight"] == pytest.approx(0.1)


def test_norms_of_both_backbones_rest():
    model = pair().train()
    rest_frozen(model, norms=True)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 5 and not any(norm.training for norm in norms) and model.mixing_layer.training


# Checkpoints of several backbones


@pytest.fixture
def _pair_is_known(monkeypatch):
    spec = ModelSpec("two backbones", PairSettings, lambda settings: Needs(), f"{__name__}:build_pair")
    monkeypatch.setitem(MODELS, "pair", spec)

    def build_model(settings):
        fresh = pair()
        return assemble(settings, fresh.coarse, fresh.fine)

    monkeypatch.setattr("agnet.training.runs.checkpoints.build_model", build_model)


@pytest.mark.usefixtures("_pair_is_known")
def test_a_checkpoint_keeps_what_each_backbone_normalises_with(tmp_path):
    model = pair().eval()
    model.coarse.preprocessing = EYES
    model.size_hw = (24, 40)
    made = Checkpoint(PairSettings(3), ("a", "b", "c"), {}, "", 1, None, model=model)
    loaded = load_checkpoint(save_checkpoint(tmp_path / "best.safetensors", made))
    images = batch_of(2).images
    with torch.no_grad():
        assert torch.equal(loaded.model(images).logits, model(images).logits)
    assert [(one.preprocessing.mean, one.preprocessing.std) for one in loaded.model.backbones] == [
        (EYES.mean, EYES.std),
        (Preprocessing().mean, Preprocessing().std),
    ]
    assert loaded.size_hw == (24, 40)


def test_a_batch_gives_a_model_what_it_names():
    batch = batch_of(4).cut(slice(1, 3)).on(CPU)
    images, regions = batch.inputs(("images", "regions"))
    assert torch.equal(images, batch_of(4).frames[1:3, 0]) and images.is_contiguous(memory_format=torch.channels_last)
    assert regions.shape == (2, 6, 4) and torch.equal(regions, batch.regions[:, 0])
    regions, frames, valid = batch.inputs(("regions", "frames", "valid"))
    assert regions.shape == (2, 1, 6, 4) and frames.shape == (2, 1, 3, 16, 16) and valid.all()
    assert batch._replace(regions=None).inputs(("images", "regions"))[1] is None

"""Regions pooled from more than one stage of the backbone, which the paper proposes for future work."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import roi_align

from agnet.data.errors import ConfigurationError
from agnet.training.answers.predict import with_evidence
from agnet.training.loop.preparation import build_network
from agnet.training.measure.complexity import network_cost
from agnet.training.models.backbones.backbone import Backbone, backbone_entry, build_backbone
from agnet.training.models.blocks.region_pooling import region_pooling
from agnet.training.models.build import assemble, build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import load_checkpoint
from factories import RAW

pytestmark = pytest.mark.usefixtures("one_thread")

# name -> channels and sides of its maps at its own image size
MAPS = {
    "resnet50": ((64, 256, 512, 1024, 2048), (112, 56, 28, 14, 7)),
    "densenet121": ((64, 128, 256, 512, 1024), (112, 56, 28, 14, 7)),
    "inception-v3": ((64, 192, 288, 768, 2048), (109, 52, 25, 12, 5)),
    "nasnet-mobile": ((32, 44, 264, 528, 1056), (111, 56, 28, 14, 7)),
    "vgg16": ((64, 128, 256, 512, 512, 512), (224, 112, 56, 28, 14, 7)),
    "vgg16-conv5": ((64, 128, 256, 512, 512), (224, 112, 56, 28, 14)),
    "vgg11-conv5": ((64, 128, 256, 512, 512), (224, 112, 56, 28, 14)),
    "mobilenet-v3-small": ((16, 72, 96, 288, 576), (112, 56, 28, 14, 7)),
    "efficientnet-lite0": ((16, 24, 40, 112, 1280), (112, 56, 28, 14, 7)),
    "torchvision:resnet18": ((64, 64, 128, 256, 512), (112, 56, 28, 14, 7)),
    "torchvision:swin_t": ((96, 192, 384, 768), (56, 28, 14, 7)),
    "torchvision:shufflenet_v2_x0_5": ((24, 24, 48, 96, 1024), (112, 56, 28, 14, 7)),
    "timm:test_resnet": ((32, 32, 48, 192, 96), (80, 40, 20, 10, 5)),
}


def skip_without_timm(name):
    if name.startswith(("timm:", "efficientnet-lite0")):
        pytest.importorskip("timm")


class TwoMaps(nn.Module):
    """Two convolutions: maps of 14 × 14 and 7 × 7 at 56 × 56, as they come or under names."""

    def __init__(self, named=False):
        super().__init__()
        self.first, self.second, self.named = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 16, 2, stride=2), named

    def forward(self, images):
        shallow = self.first(images)
        deep = self.second(shallow.relu())
        return {"shallow": shallow, "deep": deep} if self.named else [shallow, deep]


def two_stage_model(seed=0, **changes):
    """In double precision, away from its start: δ = 0 would hide the self-attention."""
    torch.manual_seed(seed)
    model = assemble(
        ModelSettings(classes=5, regions=6, units=4, se_ratio=4, **changes), Backbone(TwoMaps(), (8, 16), RAW)
    )
    if getattr(model, "self_attention", None):
        nn.init.constant_(model.self_attention.delta, 0.7)
    if getattr(model, "se_residual", None):
        nn.init.normal_(model.se_residual.excite)  # even gates would hide the squeezing
    return model.double().eval()


def batch(images=3, side=56, seed=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, side, side, generator=generator, dtype=torch.float64)
    corners = torch.rand(images, 6, 2, 2, generator=generator, dtype=torch.float64)
    return pixels, corners.sort(dim=2).values.flatten(2)


# Maps


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_the_last_ones_of_sizes_that_halve(name):
    skip_without_timm(name)
    channels, sides = MAPS[name]
    with torch.device("meta"):
        single = build_backbone(name)
        several = build_backbone(name, stages=len(sides))
        images = torch.empty(2, 3, single.preprocessing.size, single.preprocessing.size)
    assert several.channels_of_maps == channels
    assert several.channels == single.channels == channels[-1]
    for mode in (True, False):
        maps = several.train(mode).maps(images)
        assert [tuple(features.shape[:2]) for features in maps] == [(2, C) for C in channels]
        assert [tuple(features.shape[2:]) for features in maps] == [(side, side) for side in sides]
    assert single(images).shape == (2, channels[-1], sides[-1], sides[-1])
    assert several.state_dict().keys() == single.state_dict().keys()
    assert several.preprocessing == single.preprocessing


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("resnet50", "layer3", 64),
        ("resnet50-v1", "layer3", 64),
        ("densenet121", "features.transition3.conv", 64),
        ("inception-v3", "Mixed_6e", 96),
        ("mobilenet-v3-small", "features.9.block.0", 64),
        ("efficientnet-lite0", "blocks.4", 64),
        ("torchvision:swin_t", "features.5", 64),
        ("torchvision:googlenet", "inception4e", 64),
        ("timm:test_resnet", "layer3", 160),
    ],
)
def test_the_second_last_map_is_that_of_the_librarys_layer(name, layer, side):
    skip_without_timm(name)
    torch.manual_seed(0)
    entry = backbone_entry(name)
    classifier = entry.build().eval()
    seen = []
    classifier.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        classifier(images)
        alone = Backbone(entry.body(classifier).eval(), entry.channels, RAW)(images)
        stages = entry.stages()
        backbone = Backbone(stages.body(classifier, 2).eval(), stages.channels[-2:], RAW)
        (shallow, last), forward = backbone.maps(images), backbone(images)
    wanted = seen[0] if seen[0].shape[1] == shallow.shape[1] else seen[0].permute(0, 3, 1, 2)
    assert torch.equal(shallow, wanted)
    assert torch.equal(last, alone) and torch.equal(forward, alone)


@torch.no_grad()
def test_maps_of_nasnet_are_what_its_cells_hand_on_rectified():
    torch.manual_seed(0)
    entry = backbone_entry("nasnet-mobile")
    classifier = entry.build().eval()
    seen = []
    for number in (0, 5, 10, 15):  # the last cells before the map is halved, and of all
        classifier.features.cells[number].register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    images = torch.randn(1, 3, 64, 64)
    features = classifier.features(images)
    handed_on = list(seen)
    maps = entry.stages().body(classifier, 4).eval()(images)
    for found, wanted in zip(maps, handed_on, strict=True):
        assert torch.equal(found, wanted.clamp(min=0))
    assert torch.equal(maps[-1], features)


@pytest.mark.parametrize("name", ["mobilenet-v3-small", "nasnet-mobile", "torchvision:resnet18", "timm:test_resnet"])
def test_what_was_trained_with_one_stage_loads_with_two(name):
    skip_without_timm(name)
    torch.manual_seed(0)
    one, two = build_backbone(name), build_backbone(name, stages=2)
    two.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(one.eval()(images), two.eval()(images))


@torch.no_grad()
def test_a_body_of_ones_own_may_name_its_maps():
    torch.manual_seed(0)
    body = TwoMaps()
    named = TwoMaps(named=True)
    named.load_state_dict(body.state_dict())
    extracted = create_feature_extractor(body, {"first": "any", "second": "name"})
    images = torch.randn(2, 3, 56, 56)
    shallow, deep = body(images)
    for own in (body, named, extracted):
        backbone = Backbone(own, (8, 16), RAW)
        maps = backbone.maps(images)
        assert torch.equal(maps[0], shallow) and torch.equal(maps[1], deep) and torch.equal(backbone(images), deep)


@pytest.mark.parametrize(
    ("name", "stages", "message"),
    [
        ("resnet50", 6, "stages: wanted 1 to 5, got 6; resnet50 has feature maps of 5 sizes"),
        ("resnet50", 0, "stages: wanted 1 to 5, got 0; resnet50 has feature maps of 5 sizes"),
        ("nasnet-mobile", 6, "stages: wanted 1 to 5, got 6; nasnet-mobile has feature maps of 5 sizes"),
        ("torchvision:vit_b_32", 2, "stages: wanted 1, got 2; torchvision:vit_b_32 has .* of one size only"),
        ("timm:test_vit", 2, "stages: wanted 1, got 2; timm:test_vit has feature maps of one size only"),
    ],
)
def test_more_stages_than_there_are_is_one_line(name, stages, message):
    skip_without_timm(name)
    with pytest.raises(ConfigurationError, match=message) as error:
        build_network(ModelSettings(classes=3, backbone=name, stages=stages))
    assert "\n" not in str(error.value)


def test_a_network_that_gives_no_intermediate_maps_is_refused_in_one_line(monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.delattr(timm.models.resnet.ResNet, "forward_intermediates")
    with pytest.raises(ValueError, match=r"timm:resnet10t provides only its last map: .*forward_intermediates"):
        build_backbone("timm:resnet10t", stages=2)
    assert build_backbone("timm:resnet10t").channels == 512


# The network


@pytest.mark.parametrize("samples", [1, 2])
def test_tokens_are_the_regions_of_every_map_side_by_side(samples):
    model = two_stage_model(pooling_samples=samples)
    seen = []
    model.se_residual.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images, regions = batch()
    with torch.no_grad():
        output = model(images, regions)
        shallow = model.backbone.body.first(images)
        deep = model.backbone.body.second(shallow.relu())
        attended, attention = model.self_attention(deep)
    (tokens,) = seen
    assert tokens.shape == (3, 7, 49, 8 + 16)
    assert torch.equal(output.attention_map, attention)
    frame = torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64)
    for number in range(3):
        boxes = torch.cat([regions[number], frame])
        for features, side, part in ((shallow, 14, slice(0, 8)), (attended, 7, slice(8, 24))):
            wanted = roi_align(features[number : number + 1], [boxes * side], 7, sampling_ratio=samples, aligned=True)
            assert torch.allclose(tokens[number, :, :, part], wanted.flatten(2).transpose(1, 2), atol=1e-12)


def test_gradients_reach_both_maps_and_every_parameter():
    model = two_stage_model().train()
    images, regions = batch()
    maps = []
    model.backbone.body.register_forward_hook(
        lambda _, __, found: maps.extend(found) or ([features.retain_grad() for features in found] and None)
    )
    model(images, regions).logits.square().sum().backward()
    assert [features.grad.abs().amax(dim=(1, 2, 3)).gt(0).all().item() for features in maps] == [True, True]
    # A bias that shifts all the scores of one softmax alike gets a gradient of rounding errors.
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert still <= {"self_attention.f.bias", "inter_attention.weigh.bias", "fusion.score.bias"}


def test_the_shallow_map_reaches_the_heads_by_the_regions_alone():
    """Cut off what leads from it to the deep map: its own channels of the tokens still tell."""
    model = two_stage_model()
    images, regions = batch(1)
    shallow, deep = (features.detach().requires_grad_() for features in model.backbone.maps(images))
    model.backbone.maps = lambda _: (shallow, deep)
    model(images, regions).logits.sum().backward()
    assert shallow.grad.any() and deep.grad.any()


@torch.no_grad()
def test_with_one_stage_tokens_are_those_of_the_last_map_and_not_copied():
    """And a body that gives a list of one map is as good as one that gives the map."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(classes=5, regions=6, backbone="mobilenet-v3-small", stages=1)).eval()
    model.self_attention.delta.fill_(0.7)
    seen = []
    model.se_residual.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images, regions = (each.float() for each in batch(2, side=224))
    attended, _ = model.self_attention(model.backbone(images))
    whole = torch.tensor([0.0, 0, 1, 1]).expand(2, 1, 4)
    output = model(images, regions)
    assert torch.equal(seen[0], region_pooling(attended, torch.cat([regions, whole], dim=1)))
    body = model.backbone.body
    body.forward = lambda images: [nn.Sequential.forward(body, images)]
    assert torch.equal(model(images, regions).logits, output.logits)
    model.pool = lambda *_, **__: seen[0]
    assert model._pool([attended], regions) is seen[0]


def test_with_two_stages_only_the_heads_grow():
    with torch.device("meta"):
        one, two = (build_model(ModelSettings(classes=40, stages=stages)) for stages in (1, 2))
    before, after = one.state_dict(), two.state_dict()
    assert before.keys() == after.keys()
    grown = {name.split(".")[0] for name in before if before[name].shape != after[name].shape}
    assert grown == {"se_residual", "inter_attention", "fusion", "classifier"}
    C, N = 1024 + 2048, 37
    gates, inter = 2 * N * C * (C // 16), 49 * C * (2 * 32 + 1) + 32 + 32 + 1 + 1
    heads = {name: sum(p.numel() for p in getattr(two, name).parameters()) for name in grown}
    assert heads == {"se_residual": gates, "inter_attention": inter, "fusion": C + 1, "classifier": 40 * C + 40}


@torch.no_grad()
def test_the_plain_network_looks_at_the_last_map_alone():
    model = two_stage_model(model="plain")
    images, _ = batch()
    deep = model.backbone.body(images)[1]
    assert torch.equal(model(images).embedding, deep.mean(dim=(2, 3)))


def test_evidence_is_of_the_last_map():
    model = two_stage_model()
    images, regions = batch(1)
    output, evidence = with_evidence(model, images, regions)
    assert evidence.shape == (1, 7, 7)
    with torch.no_grad():
        shallow, deep = model.backbone.maps(images)
        winner = output.logits.argmax()
        model.backbone.maps = lambda _: (shallow, moved)
        for y, x in ((0, 0), (3, 4), (6, 2)):
            logits = []
            for step in (1e-5, -1e-5):
                moved = deep.clone()
                moved[:, :, y, x] *= 1 + step
                logits.append(model(images, regions).logits[0, winner])
            wanted = float(logits[0] - logits[1]) / 2e-5
            assert float(evidence[0, y, x]) == pytest.approx(wanted, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:test_resnet"])
@torch.no_grad()
def test_an_exported_network_gives_the_same(name):
    skip_without_timm(name)
    torch.manual_seed(0)
    model = build_model(ModelSettings(classes=3, regions=6, backbone=name, stages=2)).double().eval()
    inputs = batch(2, side=64)
    exported = torch.export.export(model, inputs).module()
    assert torch.allclose(exported(*inputs).logits, model(*inputs).logits)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:test_resnet"])
@torch.no_grad()
def test_the_maps_are_compiled_without_a_break(name):
    skip_without_timm(name)
    torch.manual_seed(0)
    backbone = build_backbone(name, stages=3).eval()
    images = torch.randn(1, 3, 64, 64)
    compiled = torch.compile(backbone.maps, backend="eager", fullgraph=True)
    for found, wanted in zip(compiled(images), backbone.maps(images), strict=True):
        assert torch.equal(found, wanted)


# The commands

TRAIN = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", 0, "--device", "cpu", "--stages", 2]


@pytest.fixture
def run(agnet, boxes_file, folder, tmp_path):
    """A run of one epoch with two stages."""
    agnet("train", "--boxes", boxes_file, "--root", folder, "--run", "run", "--epochs", 2, "--stop-after", 1, *TRAIN)
    return tmp_path / "run"


def test_two_stages_are_trained_measured_and_used(agnet, run, boxes_file, folder, tmp_path):
    assert json.loads((run / "config.json").read_text())["model"]["stages"] == 2
    weights = load_file(run / "best.safetensors")
    assert weights["classifier.weight"].shape == (3, 288 + 576)
    assert weights["self_attention.h.weight"].shape == (576, 576, 1, 1)
    measured = json.loads(
        agnet("evaluate", "--run", "run", "--root", folder, "--workers", 0, "--device", "cpu", "--json").stdout
    )
    assert measured["images"] == 6
    photograph = folder / "val" / "ant" / "0.png"
    told = agnet("predict", "--run", "run", photograph, "--json", "--save", "pictures", "--device", "cpu").stdout
    assert sum(json.loads(told)["probabilities"].values()) == pytest.approx(1)
    assert len(list((tmp_path / "pictures").iterdir())) == 1
    agnet("train", "--boxes", boxes_file, "--root", folder, "--run", "run", "--epochs", 2, "--resume", *TRAIN)
    assert len((run / "log.jsonl").read_text().splitlines()) == 2


def test_a_run_is_resumed_with_as_many_stages(agnet, run, boxes_file, folder):
    again = ["train", "--boxes", boxes_file, "--root", folder, "--run", "run", "--epochs", 2, "--resume", *TRAIN]
    refused = agnet(*again, "--stages", 1, code=1).stderr.strip().splitlines()[-1]
    assert "was started with stages = 2, now it is 1" in refused


@pytest.fixture
def old_run(agnet, boxes_file, folder, tmp_path):
    """A run of one epoch from before there were stages, and the command that goes on with it."""
    common = ["train", "--boxes", boxes_file, "--root", folder, "--run", "run", "--epochs", 2, *TRAIN[:-2]]
    agnet(*common, "--stop-after", 1)
    run = tmp_path / "run"
    config = json.loads((run / "config.json").read_text())
    assert config["model"].pop("stages") == 1
    (run / "config.json").write_text(json.dumps(config))
    with safe_open(run / "best.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["agnet"])
    assert header["model"].pop("stages") == 1 and header.pop("blake2b")
    best = load_file(run / "best.safetensors")
    save_file(best, run / "best.safetensors", metadata={"agnet": json.dumps(header)})
    return run, common


def test_a_run_from_before_there_were_stages_has_one(agnet, old_run, boxes_file):
    run, common = old_run
    assert load_checkpoint(run / "best.safetensors").settings.stages == 1
    refused = agnet(*common, "--resume", "--stages", 2, code=1).stderr.strip().splitlines()[-1]
    assert "was started with stages = 1, now it is 2" in refused
    agnet(*common, "--resume")
    assert len((run / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("command", ["train", "complexity"])
def test_a_command_refuses_stages_that_are_not_there_in_one_line(agnet, boxes_file, folder, command):
    where = ["--boxes", boxes_file, "--root", folder, *TRAIN] if command == "train" else []
    result = agnet(command, *where, "--backbone", "mobilenet-v3-small", "--stages", 9, code=1)
    assert result.stderr.strip().splitlines()[-1] == (
        "Error: stages: wanted 1 to 5, got 9; mobilenet-v3-small has feature maps of 5 sizes"
    )


def test_complexity_tells_what_stages_cost(agnet):
    options = ["complexity", "--backbone", "mobilenet-v3-small", "--classes", 3, "--json"]
    one, two = (
        {cost["variant"]: cost for cost in json.loads(agnet(*options, "--stages", stages).stdout)} for stages in (1, 2)
    )
    settings = ModelSettings(classes=3, backbone="mobilenet-v3-small", stages=2)
    assert two["+Attn"]["parameters"] == network_cost(settings, "+Attn").parameters
    assert two["baseline"] == one["baseline"]
    gates = 2 * 37 * ((288 + 576) * ((288 + 576) // 16) - 576 * (576 // 16))
    assert two["-Attn"]["parameters"] - one["-Attn"]["parameters"] == gates + 3 * 288
    assert two["+Attn"]["gflops"] > one["+Attn"]["gflops"]

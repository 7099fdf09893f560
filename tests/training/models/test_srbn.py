"""SRBN and B-CNN as whole networks."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agnet.data.errors import CheckpointError
from agnet.training.answers.predict import with_evidence
from agnet.training.loop.ema import WeightAverage
from agnet.training.models.backbones.backbone import Backbone, build_backbone
from agnet.training.models.build import assemble, build_model
from agnet.training.models.model import BACKBONE, CLASSIFIER, HEAD
from agnet.training.models.settings import BCNNSettings, PlainSettings, SRBNSettings
from agnet.training.runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from factories import EYES, RAW

pytestmark = pytest.mark.usefixtures("one_thread")


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def stream(channels, stride=4):
    body = nn.Sequential(nn.Conv2d(3, channels, stride + 1, stride=stride, padding=1), nn.ReLU())
    return Backbone(body, channels, EYES)


SRBN = SRBNSettings(3, "one", "two", bilinear_channels=8, units=4, sketch=32)
BCNN = BCNNSettings(3, "one", "two", bilinear_channels=8, sketch=32)


def changed(settings, **changes):
    return type(settings)(**{**vars(settings), **changes})


VARIANTS = [
    SRBN,
    changed(SRBN, directions=1, readout="last", stable=True, rank=2),
    changed(SRBN, bilinear="compact", grid=3),
    changed(SRBN, attention="recurrent", coverage=0.5),
    changed(SRBN, second_backbone="one"),
    BCNN,
    changed(BCNN, bilinear="compact"),
    changed(BCNN, bilinear="lowrank", rank=2, grid=2),
    changed(BCNN, second_backbone="one"),
]
NAMES = [
    f"{each.model}-{each.bilinear}-{getattr(each, 'attention', '')}-{len(each.streams)}-{place}"
    for place, each in enumerate(VARIANTS)
]


def network(settings, seed=0):
    torch.manual_seed(seed)
    streams = [stream(6), stream(5, stride=8)][: len(settings.streams)]
    return assemble(settings, *streams)


def pixels(count=2, h=16, w=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, h, w), dtype=torch.uint8, generator=generator)


# Counts


@pytest.mark.parametrize(("directions", "head"), [(4, 6_043_081), (1, 1_953_481)])
def test_srbn_has_the_parameters_of_its_formulas(directions, head):
    with torch.device("meta"):
        model = build_model(SRBNSettings(200, directions=directions))
    assert count(model.bilinear) == (512 + 512) * 512 == 524_288
    assert count(model.attention) == 512 * 128 + 128 + 128 + 1 == 65_793
    assert count(model.spatial_lstm) == directions * 5 * 256 * (512 + 2 * 256 + 1) == directions * 1_312_000
    assert count(model.classifier) == (directions * 256 + 1) * 200
    assert (count(model.backbone), count(model.second_backbone)) == (14_714_688, 9_220_480)
    assert count(model) == head + 14_714_688 + 9_220_480


@pytest.mark.parametrize(
    ("size_hw", "streams", "four", "one"),
    [
        ((112, 112), 45.7 / 4, 0.57, 0.19),
        ((224, 224), 30.7 + 15.0, 2.29, 0.75),
        ((448, 448), 122.8 + 59.9, 9.15, 2.98),
        ((256, 128), 45.7 * 128 / 196, 1.49, 0.49),
    ],
)
def test_srbn_costs_what_its_formulas_say_on_squares_and_on_upright_images(size_hw, streams, four, one):
    for directions, head in ((4, four), (1, one)):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = build_model(SRBNSettings(200, directions=directions)).eval()(torch.empty(1, 3, *size_hw))
        counts = {name.partition(".")[2]: sum(each.values()) / 1e9 for name, each in counter.get_flop_counts().items()}
        assert output.attention_map.shape[1:] == (size_hw[0] // 16, size_hw[1] // 16)
        found = counts["backbone"] + counts["second_backbone"]
        assert found == pytest.approx(streams, abs=0.1)
        assert counter.get_total_flops() / 1e9 - found == pytest.approx(head, abs=0.006)


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({}, 512 * 512 * 200 + 200),
        ({"bilinear": "compact"}, 8192 * 200 + 200),
        ({"bilinear": "lowrank"}, 1024 * 512 + 512 * 200 + 200),
    ],
)
def test_bcnn_has_a_linear_layer_on_its_products(changes, head):
    with torch.device("meta"):
        model = build_model(BCNNSettings(200, **changes))
    assert count(model) - count(model.backbone) - count(model.second_backbone) == head


@pytest.mark.parametrize(("name", "last_conv"), [("vgg16-conv5", "28"), ("vgg11-conv5", "18")])
def test_vgg_ends_with_a_rectified_map_before_its_last_pool(name, last_conv):
    with torch.device("meta"):
        backbone, whole = build_backbone(name), build_backbone(name, stages=2)
        for side, places in ((224, 14), (448, 28)):
            assert backbone(torch.empty(1, 3, side, side)).shape == (1, 512, places, places)
        assert [tuple(each.shape) for each in whole.maps(torch.empty(1, 3, 224, 224))][-1] == (1, 512, 14, 14)
    *_, conv, relu = backbone.body
    assert isinstance(relu, nn.ReLU) and backbone.body.get_submodule(last_conv) is conv
    assert [key for key in backbone.state_dict() if key.startswith(f"body.{last_conv}.")]


# Answers


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_a_batch_is_its_images_and_height_and_width_may_differ(settings):
    model, images = network(settings).double().eval(), pixels(3, 16, 24)
    with torch.no_grad():
        output = model(images)
        alone = [model(images[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(output.logits, torch.cat([one.logits for one in alone]))
    assert output.logits.shape == (3, 3) and output.embedding.shape[0] == 3
    torch.testing.assert_close(model.classifier(output.embedding), output.logits)
    if settings.model == "srbn":
        grid = (settings.grid,) * 2 if settings.grid else (4, 6)
        assert output.attention_map.shape == (3, *grid)
        assert (output.attention_map >= 0).all()
        torch.testing.assert_close(output.attention_map.sum(dim=(1, 2)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_gradients_reach_every_parameter_of_both_streams(settings):
    model = network(settings)
    output = model(pixels())
    loss = output.logits.square().sum() + sum(value.sum() for value in (output.losses or {}).values())
    loss.backward()
    cancelled = {"attention.score.bias"}  # by the softmax
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert name in cancelled or parameter.grad.abs().max() > 0, name


def test_coverage_is_a_loss_of_each_image_where_it_is_asked_for():
    assert network(changed(SRBN, attention="recurrent"))(pixels()).losses is None
    half, whole = (
        network(changed(SRBN, attention="recurrent", coverage=weight))(pixels()).losses for weight in (0.5, 1.0)
    )
    assert half["coverage"].shape == (2,) and (half["coverage"] > 0).all()
    torch.testing.assert_close(2 * half["coverage"], whole["coverage"])


@pytest.mark.parametrize("settings", [SRBN, BCNN], ids=["srbn", "bcnn"])
def test_one_name_twice_is_one_stream_computed_once(settings):
    shared = changed(settings, second_backbone="one")
    assert len(shared.streams) == 1 and len(settings.streams) == 2
    model, seen = network(shared), []
    model.backbone.body.register_forward_hook(lambda *given: seen.append(given[2]))
    model(pixels())
    assert len(seen) == 1 and model.backbones == (model.backbone,)
    two = network(settings)
    assert two.backbones == (two.backbone, two.second_backbone)
    kinds = set(two.parts().values())
    assert kinds == ({BACKBONE, CLASSIFIER} if settings is BCNN else {BACKBONE, HEAD, CLASSIFIER})


def test_recurrent_attention_keeps_to_the_places_that_memory_allows():
    settings = changed(SRBN, attention="recurrent")
    with torch.no_grad():
        assert network(settings)(pixels(1, 64, 64)).attention_map.shape == (1, 14, 14)
        assert network(SRBN)(pixels(1, 64, 64)).attention_map.shape == (1, 16, 16)
    with pytest.raises(ValueError, match="recurrent attention takes a grid of up to 14 x 14, got 15"):
        network(changed(settings, grid=15))
    with pytest.raises(ValueError, match="bilinear_channels 4 or more, got 3"):
        network(changed(SRBN, bilinear_channels=3))


@pytest.mark.parametrize("settings", [SRBN, BCNN], ids=["srbn", "bcnn"])
def test_a_grid_that_no_memory_holds_is_refused(settings):
    with pytest.raises(ValueError, match="grid: wanted 0 to 64, got 100000"):
        network(changed(settings, grid=100_000))


def test_images_of_448_give_a_grid_of_28():
    model = assemble(changed(SRBN, directions=1), stream(6, stride=16), stream(5, stride=32)).eval()
    with torch.no_grad():
        assert model(pixels(1, 448, 448)).attention_map.shape == (1, 28, 28)


@pytest.mark.parametrize("settings", VARIANTS[1:4], ids=NAMES[1:4])
def test_evidence_is_not_nothing_at_its_map_layer(settings):
    model, seen = network(settings).double(), []
    model.map_layer.register_forward_hook(lambda *given: seen.append(given[2]))
    logits = model(pixels()).logits
    (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), seen)
    evidence = (gradient * seen[0]).sum(dim=1)
    assert evidence.shape[1:] == model(pixels()).attention_map.shape[1:] and evidence.abs().max() > 1e-6


@pytest.mark.parametrize("settings", VARIANTS[5:], ids=NAMES[5:])
def test_the_evidence_of_bcnn_and_the_bias_add_up_to_the_logit(settings):
    model, images = network(settings).double().eval(), pixels()
    output, evidence = with_evidence(model, images)
    grid = (settings.grid,) * 2 if settings.grid else (4, 4)
    assert evidence.shape == (2, *grid)
    logits, winners = output.logits.max(dim=1)
    torch.testing.assert_close(evidence.sum(dim=(1, 2)) + model.classifier.bias[winners], logits, rtol=0, atol=1e-3)
    assert (logits - model.classifier.bias[winners]).abs().max() > 1e-2
    assert torch.equal(model(images).logits, output.logits)
    assert not model.unit_root.constant_scale


def test_evidence_keeps_no_graph_of_either_stream():
    model, graphs = network(BCNN).eval(), []
    model.second_backbone.register_forward_hook(lambda *given: graphs.append(given[2].grad_fn))
    model.backbone.requires_grad_(False)
    with_evidence(model, pixels())
    assert graphs == [None]
    learns = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == {"second_backbone", "classifier"}


# Training and files


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_the_running_mean_and_a_checkpoint_keep_all_of_it(settings, tmp_path, monkeypatch):
    model = network(settings).train()
    average = WeightAverage(model, 0.5, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    average.update(model, 20)
    mean = average.model.eval()
    monkeypatch.setattr("agnet.training.runs.checkpoints.build_model", lambda settings: network(settings, seed=1))
    made = Checkpoint(settings, ("a", "b", "c"), {}, "", 1, None, model=mean)
    loaded = load_checkpoint(save_checkpoint(tmp_path / "best.safetensors", made))
    assert loaded.settings == settings
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.eval()(pixels()).logits, mean(pixels()).logits)
        assert not torch.allclose(mean(pixels()).logits, model.eval()(pixels()).logits, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("bins_first", 32, "bins_first of a tensor sketch must be 0 to 31"), ("bins_second", -1, "must be 0 to 31")]
    + [("signs_second", value, "signs_second of a tensor sketch must be 1 or -1") for value in (0.0, float("nan"))],
)
def test_a_checkpoint_with_hashes_out_of_range_is_refused(name, value, expected, tmp_path, monkeypatch):
    settings = changed(BCNN, bilinear="compact")
    model = network(settings)
    model.bilinear.sketch.get_buffer(name)[2] = value
    made = Checkpoint(settings, ("a", "b", "c"), {}, "", 1, None, model=model)
    path = save_checkpoint(tmp_path / "best.safetensors", made)
    monkeypatch.setattr("agnet.training.runs.checkpoints.build_model", network)
    with pytest.raises(CheckpointError, match=f"is damaged or foreign: .*{expected}"):
        load_checkpoint(path)


def far_patches(count, generator):
    """Two coloured patches in opposite corners of 32 × 32 and the XOR of their colours: no cell sees both."""
    colours = torch.randint(0, 2, (count, 2), generator=generator)
    images = 0.1 * torch.randn(count, 3, 32, 32, generator=generator)
    for place, (row, column) in enumerate([(2, 2), (24, 24)]):
        for colour in (0, 1):
            images[colours[:, place] == colour, 2 * colour, row : row + 6, column : column + 6] += 1
    return images, colours[:, 0] ^ colours[:, 1]


def small_stream():
    layers = [
        nn.Sequential(nn.Conv2d(inputs, outputs, 2, stride=2), nn.ReLU())
        for inputs, outputs in ((3, 16), (16, 16), (16, 16))
    ]
    backbone = Backbone(nn.Sequential(*layers), 16, RAW)
    backbone.std.fill_(1)  # these pixels are floats of their own
    return backbone


def accuracy_on_xor(settings, steps):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = assemble(settings, *(small_stream() for _ in settings.streams)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        images, labels = far_patches(32, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images).logits, labels).backward()
        optimizer.step()
    images, labels = far_patches(512, generator)
    with torch.no_grad():
        return (model.eval()(images).logits.argmax(dim=1) == labels).float().mean().item()


def test_only_a_network_that_relates_places_learns_the_xor_of_two():
    srbn = SRBNSettings(2, "one", "two", bilinear_channels=32, units=32, directions=1, readout="last")
    assert accuracy_on_xor(srbn, 250) >= 0.95
    assert accuracy_on_xor(PlainSettings(2, "one"), 250) <= 0.6

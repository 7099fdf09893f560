import math

import pytest
import torch
from torch import nn
from torchvision.ops import roi_align

from agnet.training.models.agnet import AGNet
from agnet.training.models.backbones import backbone as backbones
from agnet.training.models.backbones.backbone import Backbone, BackboneEntry
from agnet.training.models.blocks.fusion import PoolingFusion
from agnet.training.models.blocks.inter_attention import InterAttention
from agnet.training.models.blocks.region_pooling import region_pooling
from agnet.training.models.blocks.se_residual import SEResidual
from agnet.training.models.blocks.self_attention import SelfAttention
from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from factories import RAW, call, images_and_regions

CHANNELS = 32
TINY = {"classes": 5, "regions": 6, "backbone": "tiny", "units": 4, "se_ratio": 4}

# A bias that shifts all the scores of one softmax alike: it is counted in the paper's Table VI, but cannot matter.
CANCELLED = {"self_attention.f.bias", "inter_attention.weigh.bias", "fusion.score.bias"}


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    """A backbone of one convolution, 7 × 7 at 224 × 224, under the name ``tiny``."""

    def build():
        return nn.Conv2d(3, CHANNELS, 32, stride=32)

    entry = BackboneEntry(build, lambda net: net, CHANNELS, "head.", dict, RAW)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", lambda: entry)


def tiny_model(seed=0, **changes):
    """In double precision and evaluation mode, away from its start: δ = 0 would hide the self-attention, and even
    gates the SE-Residuals."""
    torch.manual_seed(seed)
    model = build_model(ModelSettings(**(TINY | changes))).double().eval()
    if isinstance(model, AGNet):
        with torch.no_grad():
            if model.self_attention:
                model.self_attention.delta.fill_(0.7)
            if model.se_residual:
                nn.init.normal_(model.se_residual.excite)
            if isinstance(model.inter_attention, InterAttention):
                model.inter_attention.match.bias.zero_()
    return model


def batch(images=3, regions=6, seed=1):
    return images_and_regions(images, regions, 224, seed=seed)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("channels", "se", "self_attention", "inter_attention", "weighting", "fusion"),
    [
        (2048, 19_398_656, 5_245_441, 6_422_593, 100_353, 2_049),
        (1024, 4_849_664, 1_312_001, 3_211_329, 50_177, 1_025),
        (1056, 5_157_504, 1_395_241, 3_311_681, 51_745, 1_057),
        (512, 1_212_416, 328_321, 1_605_697, 25_089, 513),
    ],
)
def test_parts_have_the_parameters_of_table_6(channels, se, self_attention, inter_attention, weighting, fusion):
    with torch.device("meta"):
        attention = InterAttention(37, 7 * 7 * channels)
        assert count(SEResidual(37, channels)) == se
        assert count(SelfAttention(channels)) == count(SelfAttention(channels, spectral=True)) == self_attention
        assert count(attention.weigh) == weighting
        assert count(attention) - count(attention.weigh) == inter_attention
        assert count(PoolingFusion(channels)) == fusion


@pytest.mark.parametrize(
    ("model", "backbone", "parameters"),
    [
        ("agnet", "resnet50", 54_759_084),
        ("agnet", "resnet50-v1", 54_759_084),
        ("plain", "resnet50", 23_508_032 + 2048 * 40 + 40),
    ],
)
def test_whole_networks_have_the_parameters_of_table_6(model, backbone, parameters):
    with torch.device("meta"):
        assert count(build_model(ModelSettings(classes=40, model=model, backbone=backbone))) == parameters


def slow_agnet(net, image, boxes_xyxy, softmax):
    """Figure 1 for one image, with loops over positions and tokens; everything but the backbone written out."""
    C = CHANNELS
    x = net.backbone(image[None])[0].flatten(1)  # (C, 49)
    convolutions = net.self_attention.f, net.self_attention.g, net.self_attention.h
    f, g, h = (conv.weight[:, :, 0, 0] @ x + conv.bias[:, None] for conv in convolutions)
    attended = torch.empty_like(x)
    received = torch.zeros(49, dtype=x.dtype)
    for j in range(49):
        t = torch.exp(torch.stack([f[:, i] @ g[:, j] for i in range(49)]))
        t = t / t.sum()
        attended[:, j] = net.self_attention.delta * sum(t[i] * h[:, i] for i in range(49)) + x[:, j]
        received += t / 49
    attended = attended.view(C, 7, 7)
    pooled = roi_align(attended[None], [boxes_xyxy * 7], 7, sampling_ratio=1, aligned=True)  # (R, C, 7, 7)

    tokens = []
    for slot, token in enumerate([*pooled, attended]):
        hidden = (token.mean(dim=(1, 2)) @ net.se_residual.squeeze[slot]).clamp(min=0)
        s = 1 / (1 + torch.exp(-(hidden @ net.se_residual.excite[slot])))
        tokens.append((token * s[:, None, None] + token).permute(1, 2, 0).flatten())

    inter = net.inter_attention
    alphas, matches = [], []
    for this in tokens:
        m = []
        for other in tokens:
            u = torch.tanh(inter.query.weight @ this + inter.key.weight @ other + inter.query.bias)
            m.append(1 / (1 + torch.exp(-(inter.match.weight[0] @ u + inter.match.bias))))
        if softmax:
            total = sum(map(torch.exp, m))
            m = [torch.exp(value) / total for value in m]
        matches.append(m)
        alphas.append(sum(value * other for value, other in zip(m, tokens, strict=True)))
    scores = torch.exp(torch.cat([inter.weigh.weight[0] @ alpha + inter.weigh.bias for alpha in alphas]))
    weights = scores / scores.sum()
    joined = sum(weight * alpha for weight, alpha in zip(weights, alphas, strict=True)).view(49, C)

    pools = [joined.max(dim=0).values, joined.mean(dim=0)]
    best, mean = (math.exp(net.fusion.score.weight[0] @ pool + net.fusion.score.bias) for pool in pools)
    embedding = (best * pools[0] + mean * pools[1]) / (best + mean)
    logits = net.classifier.weight @ embedding + net.classifier.bias
    # How often each token's feature comes into what is joined, as a share of all.
    shares = torch.stack(
        [sum(w * m[slot] for w, m in zip(weights, matches, strict=True)) for slot in range(len(tokens))]
    )
    return logits, shares.flatten() / shares.sum(), received.view(7, 7), embedding


@torch.no_grad()
@pytest.mark.parametrize("softmax", [False, True])
def test_forward_is_figure_1(softmax):
    model = tiny_model(attention_softmax=softmax)
    images, regions = batch()
    output = model(images, regions)
    for number in range(len(images)):
        wanted = slow_agnet(model, images[number], regions[number], softmax)
        for got, slow in zip(output[:4], wanted, strict=True):
            assert torch.allclose(got[number], slow, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"attention_softmax": True}, {"spectral_norm": True}, {"model": "plain"}])
def test_an_image_does_not_depend_on_its_batch_mates(changes):
    model = tiny_model(**changes)
    images, regions = batch(images=4)
    together = call(model, images, regions)
    order = torch.tensor([2, 0, 3, 1])
    permuted = call(model, images[order], regions[order])
    for number in range(4):
        alone = call(model, images[number : number + 1], regions[number : number + 1])
        place = order.tolist().index(number)
        for single, many, moved in zip(alone, together, permuted, strict=True):
            if single is not None:
                assert single.shape == (1, *many.shape[1:])
                assert torch.allclose(single[0], many[number], rtol=0, atol=1e-12)
                assert torch.allclose(single[0], moved[place], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("images", [1, 3])
def test_outputs_have_their_shapes_and_shares_sum_to_one(images):
    logits, weights, attention, embedding, *_ = tiny_model()(*batch(images))
    assert logits.shape == (images, 5)
    assert embedding.shape == (images, CHANNELS)
    assert weights.shape == (images, 7)
    assert attention.shape == (images, 7, 7)
    for shares in (weights, attention):
        assert (shares >= 0).all()
        assert torch.allclose(shares.flatten(1).sum(dim=1), torch.ones(images).double(), rtol=0, atol=1e-12)


@torch.no_grad()
def test_regions_matter_and_so_does_their_order():
    model = tiny_model()
    images, regions = batch(1)
    moved = regions.clone()
    moved[0, 0] = torch.tensor([0.1, 0.2, 0.4, 0.9])
    for other in (moved, regions.flip(1)):
        assert (model(images, other).logits - model(images, regions).logits).abs().max() > 1e-6


@torch.no_grad()
def test_the_plain_network_is_pooling_and_one_layer():
    model = tiny_model(model="plain")
    images, regions = batch()
    output = model(images)
    features = model.backbone.body(images)
    for number in range(len(images)):
        mean = sum(features[number, :, row, column] for row in range(7) for column in range(7)) / 49
        assert torch.allclose(output.embedding[number], mean)
        assert torch.allclose(output.logits[number], model.classifier.weight @ mean + model.classifier.bias)
    with pytest.raises(TypeError):
        model(images, regions)  # it takes none
    assert output.region_weights is None
    assert output.attention_map is None


@pytest.mark.parametrize("changes", [{}, {"attention_softmax": True}, {"spectral_norm": True}])
def test_gradients_reach_every_parameter(changes):
    model = tiny_model(**changes)
    images, regions = batch(4)
    nn.functional.cross_entropy(model(images, regions).logits, torch.arange(4)).backward()
    largest = {name: parameter.grad.abs().max().item() for name, parameter in model.named_parameters()}
    assert set(largest) > CANCELLED
    for name, gradient in largest.items():
        if name in CANCELLED:
            assert gradient < 1e-12, name
        else:
            assert gradient > 1e-9, name
    for weight in (model.se_residual.squeeze, model.se_residual.excite):
        assert (weight.grad.flatten(1).abs().amax(dim=1) > 1e-9).all()  # in every token's slot


def test_delta_begins_at_zero_and_passes_the_map_on_untouched():
    torch.manual_seed(0)
    model = build_model(ModelSettings(**TINY))
    features = torch.randn(2, CHANNELS, 7, 7)
    attended, _ = model.self_attention(features)
    assert torch.equal(attended, features)
    images, regions = batch(2)
    nn.functional.cross_entropy(model(images.float(), regions.float()).logits, torch.arange(2)).backward()
    assert model.self_attention.delta.grad.abs() > 1e-9
    for name in ("f", "g", "h"):
        assert not getattr(model.self_attention, name).weight.grad.any()


BLOCKS = {
    "self_attention": (lambda: SelfAttention(8), (2, 8, 2, 3)),
    "se_residual": (lambda: SEResidual(3, 8, 4), (2, 3, 4, 8)),
    "inter_attention": (lambda: InterAttention(3, 8, 2), (2, 3, 4, 2)),
    "inter_attention_softmax": (lambda: InterAttention(3, 8, 2, softmax=True), (2, 3, 4, 2)),
    "fusion": (lambda: PoolingFusion(6), (2, 4, 6)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_blocks_are_the_numerical_ones(name):
    build, shape = BLOCKS[name]
    torch.manual_seed(0)
    block = build().double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    names, parameters = zip(*block.named_parameters(), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(run, (torch.randn(shape, dtype=torch.float64, requires_grad=True), *parameters))


def test_gradients_of_region_pooling_are_the_numerical_ones():
    _, regions = batch(2, regions=3)
    features = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: region_pooling(x, regions, 3), features.requires_grad_())


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"spectral_norm": True}, {"model": "plain"}])
def test_a_seed_decides_the_network_and_the_network_its_output(changes):
    first, same, other = (tiny_model(seed, **changes) for seed in (3, 3, 4))
    assert first.state_dict().keys() == same.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    images, regions = batch()
    logits = call(first, images, regions).logits
    assert torch.equal(call(first, images, regions).logits, logits)
    assert torch.equal(call(same, images, regions).logits, logits)
    assert not torch.allclose(call(other, images, regions).logits, logits)


@torch.no_grad()
def test_no_regions_leave_the_whole_image():
    images, regions = batch(2, regions=0)
    assert tiny_model(regions=0)(images, regions).region_weights.tolist() == [[1], [1]]


@pytest.mark.parametrize(
    "shape",
    [
        (3, 5, 4),
        (3, 7, 4),
        (3, 0, 4),  # would be broadcast to every token
        (2, 6, 4),
        (1, 6, 4),
        (3, 6, 5),
        (6, 4),
    ],
)
def test_regions_of_another_shape_are_refused(shape):
    images, _ = batch(3)
    with pytest.raises(ValueError, match=r"regions must have shape \(3, 6, 4\)"):
        tiny_model()(images, torch.zeros(shape, dtype=torch.float64))


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"regions": 0}, {"use_regions": False}])
def test_a_network_without_regions_does_not_look_at_them(changes):
    model = tiny_model(**changes)
    images, some = batch(3, 6)
    alone = model(images, torch.zeros(3, 0, 4, dtype=torch.float64))
    assert alone.region_weights.tolist() == [[1.0]] * 3
    assert torch.equal(model(images, some).logits, alone.logits)


# The paper's Table VII, from + SRs to GAP & GMP; the base is the plain model.
TABLE_7 = {
    "+ SRs": {"self_attention": False, "inter_attention": False, "fusion": "mean"},
    "+ self-attention": {"inter_attention": False, "fusion": "mean"},
    "+ inter-attention": {"fusion": "mean"},
    "GMP only": {"fusion": "max"},
    "GAP & GMP": {},
}


@pytest.mark.parametrize("row", TABLE_7)
def test_the_rows_of_table_7_are_figure_1_with_parts_taken_away(row):
    """Each part from its own slow or library version, put together here in the order of Figure 1."""
    changes = TABLE_7[row]
    model = tiny_model(**changes)
    images, regions = batch()
    with torch.no_grad():
        output = model(images, regions)
        x = model.backbone(images)
        if changes.get("self_attention", True):
            x, _ = model.self_attention(x)
        whole = torch.tensor([0.0, 0, 1, 1], dtype=x.dtype).expand(3, 1, 4)
        boxes = [7 * each for each in torch.cat([regions, whole], dim=1)]
        tokens = roi_align(x, boxes, 7, sampling_ratio=1, aligned=True).unflatten(0, (3, 7))  # (B, N, C, 7, 7)
        hidden = torch.einsum("bnc,nch->bnh", tokens.mean(dim=(3, 4)), model.se_residual.squeeze).relu()
        gates = torch.einsum("bnh,nhc->bnc", hidden, model.se_residual.excite).sigmoid()
        tokens = (tokens * (1 + gates[..., None, None])).flatten(3).transpose(2, 3)  # (B, N, 49, C)
        if changes.get("inter_attention", True):
            joined, weights = model.inter_attention(tokens)
        else:
            joined, weights = tokens.mean(dim=1), torch.full((3, 7), 1 / 7, dtype=x.dtype)
        pool = {"max": lambda p: p.max(dim=1).values, "mean": lambda p: p.mean(dim=1), "learned": model.fusion}
        logits = model.classifier(pool[changes.get("fusion", "learned")](joined))
    assert torch.allclose(output.logits, logits, atol=1e-10)
    assert torch.allclose(output.region_weights, weights, atol=1e-12)
    assert (output.attention_map is None) == (row == "+ SRs")


def test_one_shared_gate_is_as_many_equal_ones():
    shared, own = tiny_model(se="shared"), tiny_model()
    assert count(shared.se_residual) * 7 == count(own.se_residual)
    own.load_state_dict(
        {
            name: value.expand(7, -1, -1) if name.startswith("se_residual") else value
            for name, value in shared.state_dict().items()
        }
    )
    inputs = batch()
    assert torch.allclose(shared(*inputs).logits, own(*inputs).logits, atol=1e-12)


@torch.no_grad()
def test_without_gates_tokens_stay_as_they_are():
    averaging = {"self_attention": False, "inter_attention": False, "fusion": "mean"}
    without, gated = tiny_model(se="none", **averaging), tiny_model(**averaging)
    gated.load_state_dict(without.state_dict(), strict=False)
    gated.se_residual.excite.zero_()  # σ(0) = ½: every token 1.5 times itself, which means pass on
    inputs = batch()
    assert without.se_residual is None
    assert torch.allclose(gated(*inputs).embedding, 1.5 * without(*inputs).embedding, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [*TABLE_7.values(), {"se": "shared"}, {"use_regions": False}, {"pooling_samples": 2}, {"pooling": "crop"}],
)
def test_whatever_is_taken_away_every_parameter_left_learns(changes):
    model = tiny_model(**changes)
    output = model(*batch())
    output.logits.square().sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # With one token there is nothing to weigh: Eq. 3's softmax is over a single score.
    alone = {"inter_attention.weigh.weight"} if changes == {"use_regions": False} else set()
    assert idle <= CANCELLED | alone


@pytest.mark.parametrize(
    ("name", "value"),
    [("fusion", "sum"), ("se", "some"), ("pooling", "max"), ("pooling_samples", 0), ("pooling_samples", 17)],
)
def test_an_unknown_switch_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        tiny_model(**{name: value})


def test_minus_attention_has_the_parameters_of_table_6():
    """Backbone + 37 SE blocks + merging without parameters + classifier: 43.02 M with Keras' ResNet-50."""
    with torch.device("meta"):
        model = build_model(ModelSettings(classes=40, **TABLE_7["+ SRs"]))
    assert count(model) == 42_988_648  # 26,560 convolution biases fewer than Keras'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "agnett"}, r"unknown model 'agnett'; known: agnet, plain"),
        ({"backbone": "resnet"}, r"unknown backbone 'resnet'; known: resnet50, resnet50-v1, .*timm:NAME"),
        ({"classes": 0}, r"classes: wanted 1 or more, got 0"),
        ({"regions": -1}, r"regions: wanted 0 or above, got -1"),
        ({"units": 0}, r"units: wanted 1 or more, got 0"),
        ({"se_ratio": 0}, r"se_ratio: wanted 1 or more, got 0"),
        ({"se_ratio": 33}, r"se_ratio 1 to 32"),
    ],
)
def test_settings_no_network_can_be_built_from(changes, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelSettings(**(TINY | changes)))


def test_settings_decide_the_widths():
    with torch.device("meta"):
        model = build_model(ModelSettings(**(TINY | {"classes": 9, "regions": 10, "units": 3, "se_ratio": 8})))
    assert model.classifier.weight.shape == (9, CHANNELS)
    assert model.se_residual.squeeze.shape == (11, CHANNELS, 4)
    assert model.inter_attention.match.weight.shape == (1, 3)


@torch.no_grad()
def test_spectral_norm_is_on_the_three_projections_only_when_asked_for():
    def largest_singular_values(model):
        attention = model.self_attention
        return [torch.linalg.svdvals(conv.weight[:, :, 0, 0])[0] for conv in (attention.f, attention.g, attention.h)]

    # 15 power iterations at the start bring each near 1; PyTorch's own start of a convolution is elsewhere.
    assert all(abs(value - 1) < 0.1 for value in largest_singular_values(tiny_model(spectral_norm=True)))
    assert all(abs(value - 1) > 0.01 for value in largest_singular_values(tiny_model()))


def test_a_backbone_is_any_network_that_gives_a_map():
    body = nn.Conv2d(3, 8, 16, stride=16)
    assert Backbone(body, 8)(torch.zeros(2, 3, 224, 224)).shape == (2, 8, 14, 14)


def test_with_the_shortcut_a_network_begins_as_its_plain_backbone_and_leaves_it():
    images, regions = batch()
    model, plain = tiny_model(shortcut=True), tiny_model(model="plain")
    plain.backbone.load_state_dict(model.backbone.state_dict())
    plain.classifier.load_state_dict(model.classifier.state_dict())
    assert torch.equal(model(images, regions).logits, plain(images).logits)
    model(images, regions).logits.square().sum().backward()
    assert model.shortcut.grad != 0
    with torch.no_grad():
        model.shortcut.fill_(0.5)
    without = tiny_model()
    without.load_state_dict({name: value for name, value in model.state_dict().items() if name != "shortcut"})
    wanted = plain(images).embedding + 0.5 * without(images, regions).embedding
    torch.testing.assert_close(model(images, regions).embedding, wanted)

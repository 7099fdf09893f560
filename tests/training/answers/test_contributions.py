import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.errors import ConfigurationError
from agnet.data.regions import Layout
from agnet.training.answers.contributions import Explained, contributions, lay_back, why_not
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from factories import RAW, images_and_regions

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = 16
SIDE = 60  # maps of 15 × 15 and 7 × 7


class Maps(nn.Module):
    """Maps of a quarter and of an eighth of the image's sides; with one stage, the last alone."""

    def __init__(self, stages):
        super().__init__()
        self.first, self.second, self.stages = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, CHANNELS, 2, stride=2), stages

    def forward(self, images):
        shallow = self.first(images)
        return [shallow, self.second(shallow.relu())][-self.stages :]


def network(dtype=torch.float64, stages=1, **changes):
    """A network with random weights, none of them at a start that would hide a part of it."""
    torch.manual_seed(0)
    settings = ModelSettings(classes=5, regions=6, units=4, se_ratio=4, stages=stages, **changes)
    model = assemble(settings, Backbone(Maps(stages), (8, CHANNELS)[-stages:], RAW)).to(dtype).eval()
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            nn.init.uniform_(values, 0.5, 2)
        elif values.is_floating_point() and not name.startswith("backbone") and "parametrizations" not in name:
            nn.init.normal_(values, std=1 if values.ndim < 2 else values.shape[-1] ** -0.5)
    return model


SWITCHES = [
    {},
    {"shortcut": True},
    {"stages": 2},
    {"stages": 2, "shortcut": True, "fusion": "max"},
    {"se": "none", "fusion": "mean"},
    {"se": "shared", "fusion": "max"},
    {"inter_attention": False},
    {"use_regions": False, "shortcut": True},
    {"self_attention": False, "attention_softmax": True},
    {"spectral_norm": True, "pooling": "crop"},
    {"pooling_samples": 2, "neck": "batch-norm"},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_parts_and_bias_add_up_to_the_logit_whatever_is_switched(changes):
    for dtype, error in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        model = network(dtype, **changes)
        images, regions = images_and_regions(3, 6, SIDE, dtype)
        found = contributions(model, images, regions)
        assert found.parts.shape == (3, 5, (6 if changes.get("use_regions", True) else 0) + 1, 7, 7)
        assert torch.equal(found.output.logits, model(images, regions).logits)
        total = found.parts.sum(dim=(2, 3, 4)) + found.bias
        torch.testing.assert_close(total, found.output.logits, rtol=0, atol=error)
        assert found.parts.abs().sum(dim=(2, 3, 4)).min() > 0.1  # there was something to add up


@torch.no_grad()
def test_each_part_is_what_its_token_and_place_bring():
    # With the softmax, the region weights are the coefficients themselves.
    model = network(attention_softmax=True)
    images, regions = images_and_regions(1, 6, SIDE)
    seen = []
    model.inter_attention.register_forward_hook(lambda _, inputs, outputs: seen.extend([inputs[0][0], outputs[0][0]]))
    found = contributions(model, images, regions)
    tokens, joined = seen[:2]
    highest, mean = joined.max(dim=0), joined.mean(dim=0)
    scores = [model.fusion.score(pooled).item() for pooled in (highest.values, mean)]
    share = 1 / (1 + np.exp(scores[1] - scores[0]))
    weights, classifier = found.output.region_weights[0], model.classifier.weight
    for token, place in ((0, 0), (3, 24), (6, 48), (6, int(highest.indices[0]))):
        factors = share * (highest.indices == place).double() + (1 - share) / 49
        wanted = classifier @ (weights[token] * factors * tokens[token, place])
        torch.testing.assert_close(found.parts[0, :, token].flatten(1)[:, place], wanted, rtol=0, atol=1e-9)


class Brightness(nn.Module):
    """Channels that are all the brightness of 8 × 8 pixels."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 8).mean(dim=1, keepdim=True).expand(-1, CHANNELS, -1, -1)


def test_a_network_that_sees_one_corner_points_there():
    torch.manual_seed(0)
    model = assemble(ModelSettings(classes=2, regions=3, units=4, se_ratio=4), Backbone(Brightness(), CHANNELS, RAW))
    nn.init.ones_(model.eval().classifier.weight)
    images = torch.zeros(1, 3, 56, 56)
    images[:, :, :8, -8:] = 255
    boxes = torch.tensor([[[0.8, 0, 1, 0.2], [0, 0, 0.5, 0.5], [0.2, 0.5, 0.8, 1]]])
    found = contributions(model, images, boxes).of(0, this=0)
    assert found.tokens[0] > 0 and found.tokens[3] > 0 and np.abs(found.tokens[1:3]).max() == 0
    assert found.strongest() == ([0], [])
    where = found.laid_back((28, 28))
    assert where[:6, -6:].sum() == pytest.approx(where.sum()) and where.sum() > 0
    assert where.sum() + found.bias == pytest.approx(found.total)


def test_another_classifier_gives_another_map():
    model = network()
    images, regions = images_and_regions(1, 6, SIDE)
    before = contributions(model, images, regions).of(0, this=1).laid_back((14, 14))
    nn.init.normal_(model.classifier.weight)
    after = contributions(model, images, regions).of(0, this=1).laid_back((14, 14))
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.7


def test_a_comparison_of_classes_is_the_difference_of_their_logits():
    model = network(neck="batch-norm")
    images, regions = images_and_regions(2, 6, SIDE)
    found = contributions(model, images, regions)
    logits = found.output.logits[1]
    explained = found.of(1, this=3, against=0)
    assert explained.total == pytest.approx(float(logits[3] - logits[0]), abs=1e-9)
    tokens, sums = explained.tokens, explained.subtotals(Layout(3))
    assert [sums.primary, sums.pairs, sums.whole] == pytest.approx([tokens[:3].sum(), tokens[3:6].sum(), tokens[6]])
    assert sums.primary + sums.pairs + sums.whole + explained.bias == pytest.approx(explained.total)
    assert explained.subtotals(Layout(4, "secondary")).primary == 0
    with pytest.raises(ValueError, match="36 regions"):
        explained.subtotals(Layout(8))


def test_the_strongest_speak_for_and_against():
    parts = np.zeros((5, 7, 7))
    parts[:, 0, 0] = [2, -1, 0, 3, -9]  # the last is the whole image
    found = Explained(parts, 0.5, np.zeros((5, 4)))
    assert found.strongest() == ([3, 0], [1]) and found.total == -4.5


# Laid back


def test_each_place_is_laid_on_its_part_of_the_box():
    parts = torch.randn(1, 2, 7, 7, dtype=torch.float64)
    boxes = torch.tensor([[[0.25, 0.5, 0.75, 1], [0, 0, 1, 1]]], dtype=torch.float64)
    wanted = np.kron(parts[0, 1], np.full((8, 8), 1 / 64))
    wanted[28:, 14:42] += np.kron(parts[0, 0], np.full((4, 4), 1 / 16))
    np.testing.assert_allclose(lay_back(parts, boxes, (56, 56))[0], wanted, rtol=0, atol=1e-12)


def test_places_that_cells_cut_are_divided_by_area():
    parts = torch.ones(1, 1, 7, 7, dtype=torch.float64)
    laid = lay_back(parts, torch.tensor([[[0, 0, 0.3, 1]]], dtype=torch.float64), (1, 5))[0, 0]
    np.testing.assert_allclose(laid, [49 * 2 / 3, 49 / 3, 0, 0, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size_hw", [(3, 2), (56, 56), (61, 203)])
def test_nothing_is_lost_by_laying_back(size_hw):
    parts = torch.randn(2, 3, 5, 7, 7, generator=torch.Generator().manual_seed(0))
    boxes = images_and_regions(2, 5, 8, torch.float32)[1]
    boxes[0, 0] = torch.tensor([1, 1, 1, 1])  # empty, at the last corner
    boxes[0, 1] = torch.tensor([0.4, 0.4, 0.4, 0.9])
    boxes[1, 2] = torch.tensor([-0.5, 0.2, 1.5, 0.4])
    laid = lay_back(parts, boxes, size_hw)
    assert laid.shape == (2, 3, *size_hw)
    torch.testing.assert_close(laid.sum(dim=(2, 3)), parts.sum(dim=(2, 3, 4)), rtol=0, atol=1e-4)


# Refused


def test_what_does_not_come_apart_is_refused_with_the_reason():
    plain = network(model="plain")
    images, regions = images_and_regions(1, 6, SIDE)
    with pytest.raises(ConfigurationError, match="HiResCAM is for every network"):
        contributions(plain, images)
    clips = network(temporal="alstm", lstm_units=8)
    assert "LSTM over the frames" in why_not(clips)
    for name, block in (("fusion", nn.Identity()), ("classifier", nn.Identity()), ("neck", nn.Identity())):
        model = network()
        assert why_not(model) is None
        setattr(model, name, block)
        assert name in why_not(model)
    with pytest.raises(ValueError, match=r"model\.eval"):
        contributions(network().train(), images, regions)

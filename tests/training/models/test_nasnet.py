from math import ceil

import pytest
import torch
from torch import nn

from agnet.data.errors import CheckpointError
from agnet.training.models.backbones.backbone import Preprocessing, backbone_entry, build_backbone, fits
from agnet.training.models.backbones.nasnet import Halved, NASNetFeatures, NASNetMobile, NormalCell, ReductionCell
from agnet.training.runs.weights import find_weights

# Figure 4 of Zoph et al., as Keras has it: what is added to what, of the cell's own map h and the one before, p.
NORMAL = [
    ("p",),
    ("left1 5 h", "right1 3 p"),
    ("left2 5 p", "right2 3 p"),
    ("average h", "p"),
    ("average p", "average p"),
    ("left5 3 h", "h"),
]
REDUCTION = [
    ("largest h", "right2 7 p"),
    ("halved h", "right3 5 p"),
    ("average first", "largest h", "right2 7 p"),
    ("left5 3 first", "largest h"),
]
FIRST = ("left1 5 h", "right1 7 p")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def features():
    with torch.device("meta"):
        return NASNetFeatures()


def test_parameters_are_those_of_keras(features):
    trainable = sum(parameter.numel() for parameter in features.parameters())
    moving = sum(value.numel() for name, value in features.named_buffers() if "running_" in name)
    assert all(parameter.requires_grad for parameter in features.parameters())
    assert (trainable, trainable + moving) == (4_232_978, 4_269_716)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in NASNetMobile().parameters()) == 4_232_978 + 1_057_000


def test_maps_of_the_cells_are_those_of_keras(features):
    seen = []
    hooks = [
        cell.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:]))) for cell in features.cells
    ]
    features(torch.empty(1, 3, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    stages = [[(264, 28, 28)] * 4, [(352, 14, 14)] + [(528, 14, 14)] * 4, [(704, 7, 7)] + [(1056, 7, 7)] * 4]
    assert seen == [(44, 56, 56), (88, 28, 28), *stages[0], *stages[1], *stages[2]]


@pytest.mark.parametrize("size_hw", [(224, 224), (331, 331), (225, 226), (64, 97), (75, 32)])
def test_any_image_size_is_halved_five_times(features, size_hw):
    H, W = (ceil(ceil(ceil(ceil(((side - 3) // 2 + 1) / 2) / 2) / 2) / 2) for side in size_hw)
    assert features(torch.empty(2, 3, *size_hw, device="meta")).shape == (2, 1056, H, W)


def test_norms_are_those_of_keras(features):
    norms = [module for module in features.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    for norm in norms:
        assert norm.momentum == pytest.approx(1 - 0.9997)


def shaken(module, seed=0):
    """In double precision and evaluation mode, its norms away from their start."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.2 - 0.7 * (value.ndim > 1))
    return module.double().eval()


def around(x, kernel, stride):
    """Zeros around ``x`` where TensorFlow's ``same`` puts them, and as many windows as they make room for."""
    pads = []
    for side in reversed(x.shape[2:]):
        total = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return nn.functional.pad(x, pads).unfold(2, kernel, stride).unfold(3, kernel, stride)  # (B, C, H, W, k, k)


def normed(x, norm):
    scale = norm.weight / (norm.running_var + 1e-3).sqrt()
    return x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]


def slow_separable(x, block, kernel, stride):
    for number, step in (("1", stride), ("2", 1)):
        deep, wide = (getattr(block, f"{name}{number}").weight for name in ("depthwise", "pointwise"))
        assert deep.shape[1:] == (1, kernel, kernel)
        x = torch.einsum("bchwij,cij->bchw", around(x.clamp(min=0), kernel, step), deep[:, 0])
        x = normed(torch.einsum("bchw,oc->bohw", x, wide[:, :, 0, 0]), getattr(block, f"norm{number}"))
    return x


def slow_average(x):
    """Of the real pixels in every 3 × 3."""
    return around(x, 3, 1).sum(dim=(4, 5)) / around(torch.ones_like(x), 3, 1).sum(dim=(4, 5))


def slow_part(what, maps, cell, stride):
    *operation, name = what.split()
    x = maps[name]
    if not operation:
        return x
    if operation[0] == "average":
        return slow_average(x)
    if operation[0] in ("largest", "halved"):  # Keras pads first, with zeros, and then pools
        windows = around(x, 3, 2)
        return windows.amax(dim=(4, 5)) if operation[0] == "largest" else windows.mean(dim=(4, 5))
    return slow_separable(x, getattr(cell, operation[0]), int(operation[1]), 1 if name == "first" else stride)


def projected(x, sequence):
    return normed(torch.einsum("bchw,oc->bohw", x.clamp(min=0), sequence[1].weight[:, :, 0, 0]), sequence[2])


@torch.no_grad()
@pytest.mark.parametrize("size_hw", [(6, 6), (7, 7), (5, 8)])
@pytest.mark.parametrize(("kind", "table"), [(NormalCell, NORMAL), (ReductionCell, REDUCTION)])
def test_a_cell_is_figure_4(kind, table, size_hw):
    adjust = nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 1, bias=False), nn.BatchNorm2d(4, eps=1e-3))
    cell = shaken(kind(6, adjust, 4, 4))
    x, before = torch.randn(2, 6, *size_hw).double(), torch.randn(2, 5, *size_hw).double()
    maps = {"p": projected(before, cell.adjust), "h": projected(x, cell.enter)}
    stride = 1
    if kind is ReductionCell:
        stride = 2
        maps["first"] = sum(slow_part(what, maps, cell, stride) for what in FIRST)
    wanted = torch.cat([sum(slow_part(what, maps, cell, stride) for what in part) for part in table], dim=1)
    got = cell(x, before)
    assert got.shape == (2, cell.channels, *(ceil(side / stride) for side in size_hw))
    assert torch.allclose(got, wanted, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("size_hw", [(6, 6), (7, 7), (5, 8)])
def test_halving_takes_even_and_odd_positions(size_hw):
    halved = shaken(Halved(3, 4))
    x = torch.randn(2, 3, *size_hw).double()
    H, W = (ceil(side / 2) for side in size_hw)
    wanted = torch.zeros(2, 4, H, W).double()
    for row in range(H):
        for column in range(W):
            wanted[:, :2, row, column] = x[:, :, 2 * row, 2 * column].clamp(min=0) @ halved.even.weight[:, :, 0, 0].T
            if 2 * row + 1 < size_hw[0] and 2 * column + 1 < size_hw[1]:
                odd = x[:, :, 2 * row + 1, 2 * column + 1].clamp(min=0)
                wanted[:, 2:, row, column] = odd @ halved.odd.weight[:, :, 0, 0].T
    assert torch.allclose(halved(x), normed(wanted, halved.norm), rtol=0, atol=1e-12)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    net = NASNetMobile(5)
    logits = net(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 5)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_it_is_a_backbone_whose_weights_come_from_a_file(tmp_path):
    torch.manual_seed(0)
    state = NASNetMobile().state_dict()
    torch.save(state, tmp_path / "weights.pth")
    found = find_weights(str(tmp_path / "weights.pth"), "nasnet-mobile")
    backbone = build_backbone("nasnet-mobile", found)
    for name, value in backbone.body.state_dict().items():
        assert torch.equal(value, state[f"features.{name}"])
    assert backbone.channels == 1056
    assert backbone.preprocessing == Preprocessing(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert fits("nasnet-mobile", {name: value for name, value in state.items() if not name.startswith("classifier")})
    assert not fits("nasnet-mobile", {name: value for name, value in state.items() if "cells.3." not in name})


def test_it_has_no_imagenet_weights_to_download():
    with pytest.raises(CheckpointError, match=r"no ImageNet weights for nasnet-mobile: .*--weights FILE"):
        find_weights("imagenet", "nasnet-mobile")
    with pytest.raises(ValueError, match="no library has ImageNet weights"):
        backbone_entry("nasnet-mobile").imagenet()

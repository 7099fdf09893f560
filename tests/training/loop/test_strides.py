"""Weights of a ResNet whose strides are in the other convolution are noticed by what its batch norms remember."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from agnet.data.boxes.reader import read_boxes
from agnet.training.loop.preparation import doubt_of_strides
from agnet.training.loop.strides import are_misplaced, stride_blocks
from agnet.training.machine.devices import Device
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")


def photographs(seed, count=12):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 10, 10, generator=generator) * 4 - 2
    return (
        nn.functional.interpolate(coarse, size=64, mode="bicubic")
        + torch.randn(count, 3, 64, 64, generator=generator) * 0.3
    )


def place(backbone, original):
    for stage in ("layer2", "layer3", "layer4"):
        block = backbone.body.get_submodule(stage)[0]
        block.conv1.stride, block.conv2.stride = ((2, 2), (1, 1)) if original else ((1, 1), (2, 2))


@pytest.fixture(params=[True, False], ids=["original", "torchvision"])
def trained(request):
    """A ResNet whose batch norms have seen images with its strides there, and where that is."""
    torch.manual_seed(0)
    network = ResNet(Bottleneck, [1, 1, 1, 1])
    parts = [(name, part) for name, part in network.named_children() if name not in ("avgpool", "fc")]
    backbone = Backbone(nn.Sequential(OrderedDict(parts)), 2048)
    place(backbone, request.param)
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        for seed in range(3):
            backbone.train()(photographs(seed))
    return backbone, request.param


def test_strides_in_the_other_convolution_are_noticed_and_put_back(trained):
    backbone, original = trained
    images, before = photographs(9), {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not are_misplaced(backbone, images)
    place(backbone, not original)
    assert are_misplaced(backbone, images)
    assert {block.conv1.stride for block in stride_blocks(backbone)} == {(1, 1) if original else (2, 2)}
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_other_networks_have_no_such_strides():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert not stride_blocks(Backbone(body, 8)) and not are_misplaced(Backbone(body, 8), torch.zeros(2, 3, 8, 8))
    assert not stride_blocks(Backbone(ResNet(BasicBlock, [1, 1, 1, 1]), 512))


def test_a_doubt_names_the_backbone_to_take(trained, boxes_file, folder, monkeypatch):
    backbone, _ = trained
    settings, boxes = ModelSettings(classes=3, model="plain"), read_boxes(boxes_file)
    model = assemble(settings, backbone)
    model.size_hw = (64, 64)
    seen = []
    for found in (True, False):
        monkeypatch.setattr(
            "agnet.training.loop.preparation.are_misplaced",
            lambda _, images, found=found: (seen.append(images.shape), found)[1],
        )
        said = doubt_of_strides(model, settings, boxes, folder, Device(torch.device("cpu")))
        assert said.endswith("use --backbone resnet50-v1") and "\n" not in said if found else said == ""
    assert seen == [(9, 3, 64, 64)] * 2

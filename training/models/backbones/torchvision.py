"""Backbones from torchvision: those with names of their own, and any image classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from .entries import (
    HALVES,
    BackboneEntry,
    Preprocessing,
    Stages,
    StateDict,
    as_map,
    last_of_each_size,
    nowhere,
    on_meta,
)
from .names import WITHOUT_IMAGENET, no_classifier, no_such_model

# Torchvision's ImageNet weights for these networks come from TensorFlow and expect RGB in −1..1; `transform_input`
# would convert images normalised as for the other networks. Their own initialisation takes seconds and is overwritten
# by weights.
INCEPTION = {"aux_logits": False, "transform_input": False, "init_weights": False}

HEADS = ("classifier.", "fc.", "head.", "heads.", "AuxLogits.", "aux1.", "aux2.")


# Backbones with names of their own


def resnet50_entry() -> BackboneEntry:
    """ResNet-50 with the weights closest to the paper's Keras weights."""
    imagenet = _download(tv.ResNet50_Weights.IMAGENET1K_V1)
    return _named(tv.resnet50, _children_but("avgpool", "fc"), 2048, "fc.", imagenet)


def resnet50_v1_entry() -> BackboneEntry:
    """The original ResNet-50, without published weights for PyTorch."""
    return _named(_resnet50_v1, _children_but("avgpool", "fc"), 2048, "fc.", nowhere(WITHOUT_IMAGENET["resnet50-v1"]))


def densenet121_entry() -> BackboneEntry:
    """DenseNet-121; a ReLU follows its last map, as in its own classifier."""

    def body(net: tv.DenseNet) -> nn.Module:
        return nn.Sequential(OrderedDict(features=net.features, relu=nn.ReLU(inplace=True)))

    imagenet = _download(tv.DenseNet121_Weights.IMAGENET1K_V1)
    return _named(tv.densenet121, body, 1024, "classifier.", imagenet)


def inception_v3_entry() -> BackboneEntry:
    """Inception-v3 at the paper's image size, 224; the weights were trained at 299."""
    return _named(
        partial(tv.inception_v3, **INCEPTION),
        _children_but("avgpool", "dropout", "fc"),
        2048,
        ("fc.", "AuxLogits."),
        _download(tv.Inception_V3_Weights.IMAGENET1K_V1),
        Preprocessing(224, *HALVES),
    )


def vgg16_entry() -> BackboneEntry:
    """VGG-16 up to its last pooling layer."""
    imagenet = _download(tv.VGG16_Weights.IMAGENET1K_V1)
    return _named(tv.vgg16, lambda net: net.features, 512, "classifier.", imagenet)


def vgg16_conv5_entry() -> BackboneEntry:
    """Up to conv5_3 and its ReLU, without the last pool: 14 × 14 at 224."""
    imagenet = _download(tv.VGG16_Weights.IMAGENET1K_V1)
    return _named(tv.vgg16, lambda net: net.features[:-1], 512, "classifier.", imagenet)


def vgg11_conv5_entry() -> BackboneEntry:
    """Up to conv5_2 and its ReLU, without the last pool: 14 × 14 at 224."""
    imagenet = _download(tv.VGG11_Weights.IMAGENET1K_V1)
    return _named(tv.vgg11, lambda net: net.features[:-1], 512, "classifier.", imagenet)


def mobilenet_v3_small_entry() -> BackboneEntry:
    """MobileNetV3-Small, for trials on a laptop."""
    imagenet = _download(tv.MobileNet_V3_Small_Weights.IMAGENET1K_V1)
    return _named(tv.mobilenet_v3_small, lambda net: net.features, 576, "classifier.", imagenet)


def _named(
    build: Callable[[], nn.Module],
    body: Callable[[Any], nn.Module],
    channels: int,
    head: str | tuple[str, ...],
    imagenet: Callable[[], StateDict],
    preprocessing: Preprocessing | None = None,
) -> BackboneEntry:
    preprocessing = preprocessing or Preprocessing()

    def stages() -> Stages:
        cuts = _cuts(body(on_meta(build)), preprocessing.size)
        return Stages(
            channels=tuple(cut.channels for cut in cuts),
            body=lambda net, count: _extractor(body(net), [cut.node for cut in cuts[-count:]]),
        )

    return BackboneEntry(build, body, channels, head, imagenet, preprocessing, stages)


def _download(weights: tv.WeightsEnum) -> Callable[[], StateDict]:
    return lambda: weights.get_state_dict(progress=True, check_hash=True)


def _children_but(*names: str) -> Callable[[nn.Module], nn.Module]:
    """Chain the children of a network in order, without those named."""
    return lambda net: nn.Sequential(
        OrderedDict((name, part) for name, part in net.named_children() if name not in names)
    )


def _resnet50_v1() -> tv.ResNet:
    """The original ResNet-50: the stride of a stage is in its first 1×1 convolution; torchvision has it in the 3×3.

    The weights of one network are wrong in the other, although all keys and shapes fit. The paper's (Keras) network is
    this one.
    """
    net = tv.resnet50()
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return net


# Any classifier


def torchvision_entry(name: str) -> BackboneEntry:
    """Describe any torchvision classifier as a backbone. Raises: `ValueError` for any other name."""
    if name not in tv.list_models(module=tv):
        if name in tv.list_models():
            raise ValueError(no_classifier(name))
        raise ValueError(no_such_model("torchvision", name, tv.list_models(module=tv)))
    weights = tv.get_model_weights(name).DEFAULT
    last = _last_cut(name)
    return BackboneEntry(
        build=_build(name),
        body=lambda net: _Body(net, last),
        channels=last.channels,
        head=HEADS,
        imagenet=_download(weights),
        preprocessing=_preprocessing(name),
        stages=lambda: _stages(name),
    )


def _build(name: str) -> Callable[[], nn.Module]:
    if name.startswith("vit_"):  # its position embeddings depend on the image size
        return partial(tv.get_model, name, image_size=_preprocessing(name).size)
    return partial(tv.get_model, name, **(INCEPTION if name in ("inception_v3", "googlenet") else {}))


def _preprocessing(name: str) -> Preprocessing:
    preset = tv.get_model_weights(name).DEFAULT.transforms()
    mean, std = HALVES if name in ("inception_v3", "googlenet") else (tuple(preset.mean), tuple(preset.std))
    return Preprocessing(preset.crop_size[0], mean, std)


@dataclass(frozen=True)
class _Cut:
    """A feature map at a node of a network's graph."""

    node: str
    channels: int
    side: int


@cache
def _last_cut(name: str) -> _Cut:
    try:
        return _last(_values(on_meta(_build(name)), _preprocessing(name).size)[1])
    except LookupError:
        raise ValueError(f"torchvision:{name} has no feature map") from None


@cache
def _stages(name: str) -> Stages:
    cuts = _cuts(on_meta(_build(name)), _preprocessing(name).size)
    return Stages(
        channels=tuple(cut.channels for cut in cuts),
        body=lambda net, count: _Maps(net, cuts[-count:]),
    )


def _values(net: nn.Module, side: int) -> tuple[fx.GraphModule, dict[str, Any]]:
    """Graph of a network on the meta device, and the output of each node for one image, in graph order."""
    nodes = get_graph_node_names(net, suppress_diff_warning=True)[1]
    graph = create_feature_extractor(net, nodes, suppress_diff_warning=True).eval()
    with torch.no_grad():
        return graph, graph(torch.empty(1, 3, side, side, device="meta"))


def _last(values: dict[str, Any]) -> _Cut:
    """The last map, possibly of tokens. Raises: `LookupError` if there is none."""
    outside = {node: value for node, value in values.items() if not node.startswith((*HEADS, "avgpool"))}
    for node, value in reversed(outside.items()):
        if isinstance(value, Tensor) and value.ndim == 4 and min(value.shape[2:]) > 1:
            return _Cut(node, value.shape[1], value.shape[2])
        if isinstance(value, Tensor) and value.ndim == 3:  # tokens
            return _Cut(node, value.shape[2], as_map(value, value.shape[2]).shape[2])
    raise LookupError("no feature map")


def _cuts(net: nn.Module, side: int) -> list[_Cut]:
    """The last map of each size, shallow to deep, among those through which all later nodes depend on the image."""
    graph, values = _values(net, side)
    last = _last(values)
    before = list(values)[: list(values).index(last.node)]
    necks = _necks(graph, values)
    maps = [*(cut for node in before if node in necks and (cut := _square(node, values[node]))), last]
    return [maps[place] for place in last_of_each_size([cut.side for cut in maps])]


def _square(node: str, value: Tensor) -> _Cut | None:
    """The cut at a node whose output is a square map, channels first or last; None for other nodes."""
    if value.ndim == 4 and value.shape[2] == value.shape[3]:
        return _Cut(node, value.shape[1], value.shape[2])
    if value.ndim == 4 and value.shape[1] == value.shape[2]:
        return _Cut(node, value.shape[3], value.shape[1])
    return None


def _necks(graph: fx.GraphModule, values: dict[str, Any]) -> set[str]:
    """The nodes through which all later nodes depend on the image: no branch bypasses them, as it does within a block.

    Thus the last map of a size in a ResNet is a layer's output, not the output of the next layer's first convolution.
    """
    *nodes, output = graph.graph.nodes
    names = {node: name for name, node in output.args[0].items()}
    place = {node: number for number, node in enumerate(nodes)}
    necks, needed_until = set(), 0
    for node in nodes:
        if node.op == "get_attr" or not isinstance(values.get(names.get(node, "")), Tensor):
            continue  # weights and sizes bypass blocks, too
        if needed_until <= place[node] and node.op != "placeholder":
            necks.add(names[node])
        needed_until = max([needed_until, *(place[user] for user in node.users if user is not output)])
    return necks


def _extractor(net: nn.Module, nodes: list[str]) -> fx.GraphModule:
    """Module, images -> outputs of the nodes, in order, as a dict. It has the network's keys up to the last node."""
    return create_feature_extractor(net, {node: f"map{n}" for n, node in enumerate(nodes)}, suppress_diff_warning=True)


class _Body(nn.Module):
    """The part of a network's graph that leads to a node; other layers are dropped."""

    def __init__(self, net: nn.Module, cut: _Cut) -> None:
        super().__init__()
        self.channels = cut.channels
        self.net = _extractor(net, [cut.node])

    def forward(self, images: Tensor) -> Tensor:
        return as_map(self.net(images)["map0"], self.channels)


class _Maps(nn.Module):
    """The part of a network's graph that leads to several nodes, with the keys of the last node's `_Body`."""

    def __init__(self, net: nn.Module, cuts: list[_Cut]) -> None:
        super().__init__()
        self.channels = [cut.channels for cut in cuts]
        self.net = _extractor(net, [cut.node for cut in cuts])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(as_map(*pair) for pair in zip(self.net(images).values(), self.channels, strict=True))

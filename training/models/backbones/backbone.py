"""Backbones: well-kept classifiers cut at their last feature map, or at the last map of several sizes.

To add one, add an entry to `BACKBONES` and its name to `names`; to use any classifier of torchvision or timm,
say ``torchvision:NAME`` or ``timm:NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from . import nasnet
from .entries import HALVES, BackboneEntry, Preprocessing, Stages, StateDict, nowhere, on_meta
from .names import WITHOUT_IMAGENET, check_backbone_name
from .timm import efficientnet_lite0_entry, timm_entry
from .torchvision import (
    densenet121_entry,
    inception_v3_entry,
    mobilenet_v3_small_entry,
    resnet50_entry,
    resnet50_v1_entry,
    torchvision_entry,
    vgg11_conv5_entry,
    vgg16_conv5_entry,
    vgg16_entry,
)

IMAGENET = Preprocessing()


class Backbone(nn.Module):
    """Images ``(B, 3, H, W)``, uint8 or floats 0..255 -> last feature map ``(B, C, h, w)``.

    It normalises the pixels itself, as its weights want them.

    Args:
        body: normalised images -> map ``(B, channels, h, w)``; or several of them, shallow to deep, as a sequence or a
            dict.
        channels: C; or the channels of each.
        preprocessing: what its weights were trained on.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, channels: int | Sequence[int], preprocessing: Preprocessing = IMAGENET) -> None:
        super().__init__()
        self.body = body
        self.channels_of_maps = (channels,) if isinstance(channels, int) else tuple(channels)
        self.channels = self.channels_of_maps[-1]
        for name in ("mean", "std"):  # of pixels 0..255; not in the state dict: a checkpoint's header has them
            self.register_buffer(name, torch.empty(1, 3, 1, 1), persistent=False)
        self.preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        """What its weights were trained on; set, its pixels are normalised that way from then on."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        with torch.no_grad():
            self.mean.copy_(torch.tensor(preprocessing.mean, device="cpu").view(1, 3, 1, 1) * 255)
            self.std.copy_(torch.tensor(preprocessing.std, device="cpu").view(1, 3, 1, 1) * 255)

    def normalised(self, images: Tensor) -> Tensor:
        """Pixels 0..255 as the body wants them. Computed in float32 at least, also under autocast."""
        precise = torch.promote_types(self.mean.dtype, torch.float32)
        images = (images.to(precise) - self.mean.to(precise)) / self.std.to(precise)
        return images.to(self.mean.dtype)

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """All maps as the body gives them, shallow to deep: ``(B, C_k, h_k, w_k)``.

        Raises: `ValueError` when the body gives anything else than maps of the channels promised.
        """
        found = self.body(self.normalised(images))
        maps = (found,) if isinstance(found, Tensor) else tuple(found.values() if isinstance(found, dict) else found)
        channels = tuple(features.shape[1] if features.ndim == 4 else None for features in maps)
        if channels != self.channels_of_maps:
            shapes = ", ".join(str(tuple(features.shape)) for features in maps)
            raise ValueError(f"the body gives {shapes}; wanted maps (B, C, h, w) with C {self.channels_of_maps}")
        return maps


def backbone_entry(name: str) -> BackboneEntry:
    """The entry of a name. Raises: `ValueError` for an unknown one, `ImportError` where timm is needed and absent."""
    if name in BACKBONES:
        return BACKBONES[name]()
    check_backbone_name(name)
    library, _, network = name.partition(":")
    return LIBRARIES[library](network)


def build_backbone(name: str, weights: StateDict | None = None, stages: int = 1) -> Backbone:
    """The backbone, with random weights or those of a whole classifier's state dict.

    Args:
        name: one of `BACKBONES`, or a library's.
        weights: for the classifier that the backbone is cut from.
        stages: how many maps it gives: the last ones of that many sizes. Its keys are the same for any number.

    Raises: `ValueError` as `backbone_entry`, for more stages than the network has, or listing the keys when
    ``weights`` do not fit.
    """
    entry = backbone_entry(name)
    several = _stages(name, entry, stages) if stages != 1 else None
    classifier = entry.build()
    if weights is not None:
        _load(classifier, entry, weights)
    if several is None:
        return Backbone(entry.body(classifier), entry.channels, entry.preprocessing)
    return Backbone(several.body(classifier, stages), several.channels[-stages:], entry.preprocessing)


def _stages(name: str, entry: BackboneEntry, wanted: int) -> Stages:
    found = entry.stages() if entry.stages else None
    there = len(found.channels) if found else 1
    if found is None or not 1 <= wanted <= there:
        range_, sizes = (f"1 to {there}", f"{there} sizes") if there > 1 else ("1", "one size only")
        raise ValueError(f"stages: wanted {range_}, got {wanted}; {name} has feature maps of {sizes}")
    return found


def fits(name: str, weights: StateDict) -> bool:
    """Whether a state dict has this backbone's keys and shapes, its classifier's aside."""
    entry = backbone_entry(name)
    return not any(_differences(on_meta(entry.build).state_dict(), _modern(weights), entry.head))


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


def _nasnet_mobile_entry() -> BackboneEntry:
    return BackboneEntry(
        build=nasnet.NASNetMobile,
        body=lambda net: net.features,
        channels=nasnet.CHANNELS,
        head="classifier.",
        imagenet=nowhere(WITHOUT_IMAGENET["nasnet-mobile"]),
        preprocessing=Preprocessing(224, *HALVES),
        stages=lambda: Stages(nasnet.CHANNELS_OF_STAGES, lambda net, count: nasnet.NASNetMaps(net.features, count)),
    )


LIBRARIES: dict[str, Callable[[str], BackboneEntry]] = {"torchvision": torchvision_entry, "timm": timm_entry}

BACKBONES: dict[str, Callable[[], BackboneEntry]] = {
    "resnet50": resnet50_entry,
    "resnet50-v1": resnet50_v1_entry,
    "densenet121": densenet121_entry,
    "inception-v3": inception_v3_entry,
    "nasnet-mobile": _nasnet_mobile_entry,
    "vgg16": vgg16_entry,
    "vgg16-conv5": vgg16_conv5_entry,
    "vgg11-conv5": vgg11_conv5_entry,
    "mobilenet-v3-small": mobilenet_v3_small_entry,
    "efficientnet-lite0": efficientnet_lite0_entry,
}

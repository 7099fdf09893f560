"""Backbones: image classifiers cut at their last feature map, or at the last map of each of several sizes.

To add a backbone, add an entry to `BACKBONES` and its name to `names`. Any classifier of torchvision or timm is
available as ``torchvision:NAME`` or ``timm:NAME``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..blocks.precision import precise, precise_dtype
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


class PackedMaps(NamedTuple):
    """Place of a backbone's maps in the packed features of an image ``(L,)``, which hold the maps of all backbones."""

    first: int  #: index of the first number
    shapes: tuple[tuple[int, int, int], ...]  #: (C, h, w) of each map, stored one after the other as h × w × C

    @property
    def size(self) -> int:
        """Number of numbers."""
        return sum(math.prod(shape) for shape in self.shapes)

    def unpack(self, features: Tensor) -> tuple[Tensor, ...]:
        """Unpack ``(B, L)`` to maps ``(B, C, h, w)`` of single or higher precision, channels last in memory."""
        at, maps = self.first, []
        for channels, height, width in self.shapes:
            end = at + channels * height * width
            values = features[:, at:end].unflatten(1, (height, width, channels))
            maps.append(precise(values).permute(0, 3, 1, 2))
            at = end
        return tuple(maps)


class Backbone(nn.Module):
    """Images ``(B, 3, H, W)``, uint8 or floats in 0..255 -> last feature map ``(B, C, h, w)``.

    The backbone normalises the pixels itself, as its weights require.

    Args:
        body: Module, normalised images -> map ``(B, channels, h, w)``, or several maps, shallow to deep, as a sequence
            or dict.
        channels: Number of channels, C; a sequence if there are several maps.
        preprocessing: Image size and normalisation with which the weights were trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, channels: int | Sequence[int], preprocessing: Preprocessing = IMAGENET) -> None:
        super().__init__()
        self.body = body
        #: with it, the input is not images but their packed features ``(B, L)``, computed before by this backbone; the
        #: place of the maps in them, by L
        self.packed: Mapping[int, PackedMaps] | None = None
        self.channels_of_maps = (channels,) if isinstance(channels, int) else tuple(channels)
        self.channels = self.channels_of_maps[-1]
        for name in ("mean", "std"):  # for 0..255; not in the state dict: a checkpoint's header contains them
            self.register_buffer(name, torch.empty(1, 3, 1, 1), persistent=False)
        self.preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        """Image size and normalisation with which the weights were trained. Setting it changes the normalisation."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        with torch.no_grad():
            self.mean.copy_(torch.tensor(preprocessing.mean, device="cpu").view(1, 3, 1, 1) * 255)
            self.std.copy_(torch.tensor(preprocessing.std, device="cpu").view(1, 3, 1, 1) * 255)

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise pixels in 0..255 for the body. Computed in float32 or higher precision, also under autocast."""
        images = (images.to(precise_dtype(self.mean.dtype)) - precise(self.mean)) / precise(self.std)
        return images.to(self.mean.dtype)

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute all maps of the body, shallow to deep: ``(B, C_k, h_k, w_k)``.

        Raises: `ValueError` if the body does not return maps with the declared numbers of channels.
        """
        if self.packed is not None:
            return self.packed[images.shape[1]].unpack(images)
        found = self.body(self.normalised(images))
        maps = (found,) if isinstance(found, Tensor) else tuple(found.values() if isinstance(found, dict) else found)
        channels = tuple(features.shape[1] if features.ndim == 4 else None for features in maps)
        if channels != self.channels_of_maps:
            shapes = ", ".join(str(tuple(features.shape)) for features in maps)
            raise ValueError(f"the body returns {shapes}; wanted maps (B, C, h, w) with C {self.channels_of_maps}")
        return maps


def backbone_entry(name: str) -> BackboneEntry:
    """Look up a backbone by name.

    Raises: `ValueError` for an unknown name, `ImportError` if timm is needed but not installed.
    """
    if name in BACKBONES:
        return BACKBONES[name]()
    check_backbone_name(name)
    library, _, network = name.partition(":")
    return LIBRARIES[library](network)


def build_backbone(name: str, weights: StateDict | None = None, stages: int = 1) -> Backbone:
    """Build a backbone, with random weights or those of a whole classifier's state dict.

    Args:
        name: Name in `BACKBONES`, ``torchvision:NAME`` or ``timm:NAME``.
        weights: State dict of the classifier from which the backbone is cut.
        stages: Number of maps to return: the last map of each of the last ``stages`` sizes. The keys of the backbone's
            state dict do not depend on it.

    Raises: `ValueError` as `backbone_entry`, for more stages than the network has, or, listing the keys, if
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
    """Whether a state dict has the keys and shapes of a backbone, apart from the classifier's own layers."""
    entry = backbone_entry(name)
    return not any(_differences(on_meta(entry.build).state_dict(), _modern(weights), entry.head))


def _load(classifier: nn.Module, entry: BackboneEntry, weights: StateDict) -> None:
    state, weights = classifier.state_dict(), _modern(weights)
    missing, unexpected, misshapen = _differences(state, weights, entry.head)
    if missing or unexpected or misshapen:
        found = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
        raise ValueError("; ".join(f"{what}: {_some(keys)}" for what, keys in found if keys))
    # Updated in place: some networks need the version metadata of their own state dict. Files may be in half precision.
    state.update((key, value) for key, value in weights.items() if not key.startswith(entry.head))
    classifier.load_state_dict(state)


def _modern(weights: StateDict) -> StateDict:
    """Rename the keys of torchvision's DenseNet files: ``norm.1`` in a file is ``norm1`` in the current network."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in weights.items()}


def _differences(
    wanted: StateDict, got: StateDict, head: str | tuple[str, ...]
) -> tuple[list[str], list[str], list[str]]:
    """Missing, unexpected and misshapen keys. Old files lack BatchNorm's counters, which are not used."""
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

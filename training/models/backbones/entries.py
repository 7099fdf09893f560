"""What backbones are cut from: a classifier, where in it its maps are, and what its weights were trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .names import nobody_has

StateDict = dict[str, Tensor]

HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  #: mean and standard deviation: RGB in −1..1

HALF = 1.5  #: a map is of another stage when its side is so many times another's: borders make 109 of 224, not 112


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone's weights were trained on: RGB in 0..1, squashed to ``size`` × ``size``, then normalised."""

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Stages:
    """The last map of each size that a classifier has, shallow to deep; a transformer of one size has one."""

    channels: tuple[int, ...]  #: of each
    body: Callable[[Any, int], nn.Module]  #: (classifier, n) -> the part that gives the last n, with `body`'s own keys


@dataclass(frozen=True)
class BackboneEntry:
    """How to build a classifier, where its maps are, and where its ImageNet weights come from."""

    build: Callable[[], nn.Module]  #: the whole classifier, as its weight files know it
    body: Callable[[Any], nn.Module]  #: the part that gives the last map
    channels: int  #: C of that map
    head: str | tuple[str, ...]  #: key prefixes of the classifier's own layers, which are not used
    imagenet: Callable[[], StateDict]  #: a state dict of the whole classifier
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    stages: Callable[[], Stages] | None = None  #: found when more than the last map is wanted; None: there is no more


def nowhere(who_has: str) -> Callable[[], StateDict]:
    """The source of ImageNet weights that are to be had from nobody."""

    def imagenet() -> StateDict:
        raise ValueError(nobody_has(who_has))

    return imagenet


def on_meta(build: Callable[[], nn.Module]) -> Any:
    """The network's shapes, without its numbers."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # torchvision's RegNets compute their widths with tensors
        return build().to("meta")


def as_map(features: Any, channels: int) -> Tensor:
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


def last_of_each_size(sides: list[int]) -> list[int]:
    """Which of the maps a network makes, by their sides in its order, are stages: places in ``sides``, ascending."""
    found = [len(sides) - 1]
    for place in reversed(range(len(sides) - 1)):
        if sides[place] >= HALF * sides[found[-1]]:
            found.append(place)
    return found[::-1]

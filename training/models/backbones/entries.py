"""Descriptions of backbones: the classifier, where its maps are, and how its weights were trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .names import nobody_has

StateDict = dict[str, Tensor]

HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  #: mean and standard deviation that scale RGB to −1..1

#: Maps whose sides differ by this factor or more belong to different stages. Not 2: borders turn 224 into 109, not 112.
HALF = 1.5


@dataclass(frozen=True)
class Preprocessing:
    """How images were prepared for a backbone's weights: RGB in 0..1, squashed to ``size`` × ``size``, normalised."""

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Stages:
    """The last map of each size in a classifier, shallow to deep. A transformer with maps of one size has one stage."""

    channels: tuple[int, ...]  #: number of channels of each map
    #: (classifier, n) -> module that returns the last n maps, with the keys of `BackboneEntry.body`
    body: Callable[[Any, int], nn.Module]


@dataclass(frozen=True)
class BackboneEntry:
    """How to build a classifier, where its maps are, and where its ImageNet weights come from."""

    build: Callable[[], nn.Module]  #: the whole classifier, with the keys of its weight files
    body: Callable[[Any], nn.Module]  #: classifier -> module that returns the last map
    channels: int  #: C of that map
    head: str | tuple[str, ...]  #: key prefixes of the classifier's own layers, which are not used
    imagenet: Callable[[], StateDict]  #: a state dict of the whole classifier
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    stages: Callable[[], Stages] | None = None  #: called if more maps are needed; None: no more exist


def nowhere(who_has: str) -> Callable[[], StateDict]:
    """Source for a backbone with no published ImageNet weights: calling it raises `ValueError`."""

    def imagenet() -> StateDict:
        raise ValueError(nobody_has(who_has))

    return imagenet


def on_meta(build: Callable[[], nn.Module]) -> Any:
    """Build a network on the meta device: shapes without values."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # torchvision's RegNets compute their widths with tensors
        return build().to("meta")


def as_map(features: Any, channels: int) -> Tensor:
    """Convert features to a map ``(B, C, H, W)``.

    They have channels first or last, or are tokens, the last H·H of which form a square in row-major order.

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
    raise ValueError(f"its features, {found}, are not a map of {channels} channels × height × width")


def last_of_each_size(sides: list[int]) -> list[int]:
    """Indices of the maps that are the last of their size, ascending, from the sides of all maps in network order."""
    found = [len(sides) - 1]
    for place in reversed(range(len(sides) - 1)):
        if sides[place] >= HALF * sides[found[-1]]:
            found.append(place)
    return found[::-1]

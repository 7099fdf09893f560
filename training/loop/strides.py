"""Detect ResNet weights that were trained with strides in other convolutions, which names and shapes do not show.

The original network has the stride of a stage in the first 1×1 convolution, torchvision's in the 3×3. The batch norms
reveal it: their running statistics are those of the feature maps in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models.backbones.backbone import Backbone

IMAGES = 16
# Threshold on the distance of the statistics divided by that with the strides elsewhere. Original weights with
# torchvision's strides: 1.5 to 2.3 in eight draws of 16 photographs from four data sets, 1.0 on noise; 4 images were
# too few (1.1).
MISPLACED = 1.25

_PLACES = ((2, 2), (1, 1))


def stride_blocks(backbone: Backbone) -> list[Any]:
    """Return the bottlenecks whose stride may be in either of two convolutions; empty for other networks."""
    named = dict(backbone.named_modules())
    found = [block for name, block in named.items() if name.endswith(("layer2.0", "layer3.0", "layer4.0"))]
    strides = [{getattr(getattr(block, name, None), "stride", None) for name in ("conv1", "conv2")} for block in found]
    bottlenecks = len(found) == 3 and all(hasattr(block, "conv3") for block in found)
    return found if bottlenecks and all(pair == set(_PLACES) for pair in strides) else []


def are_misplaced(backbone: Backbone, images: Tensor) -> bool:
    """Whether the weights fit clearly better with the strides in the other convolution.

    Args:
        backbone: Network with the weights in question.
        images: About `IMAGES` images ``(B, 3, H, W)``, in the backbone's input format.
    """
    blocks = stride_blocks(backbone)
    if not blocks:
        return False
    here = _distance(backbone, images)
    with _elsewhere(blocks):
        there = _distance(backbone, images)
    return here > MISPLACED * there


@contextmanager
def _elsewhere(blocks: list[Any]) -> Iterator[None]:
    def swap() -> None:
        for block in blocks:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride

    swap()
    try:
        yield
    finally:
        swap()


@torch.no_grad()
def _distance(backbone: Backbone, images: Tensor) -> float:
    """Distance between the statistics of the maps and those of the batch norms: the Kullback-Leibler divergence of two
    normal distributions, its median over channels, averaged over the batch norms.
    """
    found: list[float] = []

    def watch(norm: Any, given: tuple[Tensor, ...]) -> None:
        mean, variance = given[0].mean(dim=(0, 2, 3)), given[0].var(dim=(0, 2, 3)) + norm.eps
        theirs = norm.running_var + norm.eps
        divergence = (variance + (mean - norm.running_mean) ** 2) / theirs - 1 - (variance / theirs).log()
        found.append(float(divergence.median() / 2))

    norms = [part for name, part in backbone.named_modules() if ".layer" in name and isinstance(part, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(watch) for norm in norms]
    training = [part for part in backbone.modules() if part.training]
    try:
        backbone.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
        for part in training:
            part.training = True
    return sum(found) / len(found)

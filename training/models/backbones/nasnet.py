"""NASNet-A (4 @ 1056), "NASNet-Mobile" (Zoph et al., CVPR 2018), with the arithmetic of the Keras implementation.

No maintained library provides it for PyTorch. Where its paper is silent, this follows Keras: operations with stride 2
pad with zeros, more of them at the bottom and right if the side is even, and these zeros count in maximum and average
pooling; average pooling with stride 1 excludes the padding. Weights converted from Keras therefore compute the same
here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM = 32  #: channels of the first convolution
FILTERS = 44  #: 1056 / 24: channels of each part of a cell in the first stage, doubled in each later stage
CHANNELS = 1056
CHANNELS_OF_STAGES = STEM, FILTERS, 6 * FILTERS, 12 * FILTERS, CHANNELS  #: channels of the last map of each size


class NASNetMobile(nn.Module):
    """Complete classifier: images ``(B, 3, H, W)`` -> logits ``(B, classes)``."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = NASNetFeatures()
        self.classifier = nn.Linear(CHANNELS, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class NASNetFeatures(nn.Module):
    """Images ``(B, 3, H, W)`` -> ``(B, 1056, H/32, W/32)``, rounded; 7 × 7 at 224 × 224."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, STEM, 3, stride=2, bias=False), _norm(STEM))
        # Both inputs of the first cell are the stem's map; as ``before`` it is not adjusted.
        cells: list[NormalCell | ReductionCell] = [ReductionCell(STEM, nn.Identity(), STEM, FILTERS // 4)]
        before = STEM
        for kind, filters in PLAN:
            last = cells[-1]
            adjust = Halved if isinstance(last, ReductionCell) else _projection
            cells.append(kind(last.channels, adjust(before, filters), filters, filters))
            before = last.channels
        self.cells = nn.ModuleList(cells)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(_last_of_each_size(self.stem, self.cells, images)[-1])


class NASNetMaps(nn.Module):
    """Images -> the last map of each of the last ``stages`` sizes, shallow to deep, after ReLU as in the next cells.

    The modules and their keys are those of ``features``.
    """

    def __init__(self, features: NASNetFeatures, stages: int) -> None:
        super().__init__()
        self.stem, self.cells = features.stem, features.cells
        self.stages = stages

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = _last_of_each_size(self.stem, self.cells, images)
        return tuple(F.relu(x) for x in maps[-self.stages :])


def _last_of_each_size(stem: nn.Module, cells: nn.ModuleList, images: Tensor) -> list[Tensor]:
    maps = []
    x = before = stem(images)
    for cell in cells:
        if isinstance(cell, ReductionCell):
            maps.append(x)
        x, before = cell(x, before), x
    return [*maps, x]


class NormalCell(nn.Module):
    """Normal cell (Figure 4, left): five sums and the adjusted map, concatenated. The size stays the same.

    Args:
        inputs: Number of channels of ``x``, the previous cell's map.
        adjust: Module that adjusts ``before``, the map one cell earlier, to the size of ``x``.
        adjusted: Number of channels after ``adjust``.
        filters: Number of channels of each part; the attribute ``channels`` is that of the output.
    """

    def __init__(self, inputs: int, adjust: nn.Module, adjusted: int, filters: int) -> None:
        super().__init__()
        self.channels = adjusted + 5 * filters
        self.adjust = adjust
        self.enter = _projection(inputs, filters)
        self.left1 = Separable(filters, filters, 5)
        self.right1 = Separable(adjusted, filters, 3)
        self.left2 = Separable(adjusted, filters, 5)
        self.right2 = Separable(adjusted, filters, 3)
        self.left5 = Separable(filters, filters, 3)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        p, h = self.adjust(before), self.enter(x)
        parts = [
            p,
            self.left1(h) + self.right1(p),
            self.left2(p) + self.right2(p),
            _average(h) + p,
            2 * _average(p),  # both branches are equal
            self.left5(h) + h,
        ]
        return torch.cat(parts, dim=1)


class ReductionCell(nn.Module):
    """Reduction cell (Figure 4, right): four sums, concatenated. The size is halved. Arguments as for `NormalCell`."""

    def __init__(self, inputs: int, adjust: nn.Module, adjusted: int, filters: int) -> None:
        super().__init__()
        self.channels = 4 * filters
        self.adjust = adjust
        self.enter = _projection(inputs, filters)
        self.left1 = Separable(filters, filters, 5, stride=2)
        self.right1 = Separable(adjusted, filters, 7, stride=2)
        self.right2 = Separable(adjusted, filters, 7, stride=2)
        self.right3 = Separable(adjusted, filters, 5, stride=2)
        self.left5 = Separable(filters, filters, 3)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        p, h = self.adjust(before), self.enter(x)
        padded = _padded(h, 3)
        largest = F.max_pool2d(padded, 3, stride=2)
        first = self.left1(h) + self.right1(p)
        second = largest + self.right2(p)
        third = F.avg_pool2d(padded, 3, stride=2) + self.right3(p)
        return torch.cat([second, third, second + _average(first), self.left5(first) + largest], dim=1)


class Separable(nn.Module):
    """ReLU, separable convolution and batch norm, twice; the stride is in the first convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        first = 0 if stride == 2 else kernel // 2
        self.depthwise1 = nn.Conv2d(inputs, inputs, kernel, stride, first, groups=inputs, bias=False)
        self.pointwise1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm1 = _norm(outputs)
        self.depthwise2 = nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, groups=outputs, bias=False)
        self.pointwise2 = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.norm2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if self.stride == 2:
            x = _padded(x, self.kernel)
        x = F.relu(self.norm1(self.pointwise1(self.depthwise1(x))))
        return self.norm2(self.pointwise2(self.depthwise2(x)))


class Halved(nn.Module):
    """Halving of a map: its even and its odd positions, each projected to half the filters, concatenated."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, filters // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, filters // 2, 1, bias=False)
        self.norm = _norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(shifted[:, :, ::2, ::2])], dim=1))


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), _norm(outputs))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=1 - 0.9997)  # Keras' momentum is the fraction that is kept


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _padded(x: Tensor, kernel: int) -> Tensor:
    """Pad ``x`` with zeros such that ``kernel`` with stride 2 returns ⌈H/2⌉ × ⌈W/2⌉."""
    H, W = x.shape[-2:]
    far = kernel // 2
    return F.pad(x, (far - 1 + W % 2, far, far - 1 + H % 2, far))


PLAN: tuple[tuple[type[NormalCell] | type[ReductionCell], int], ...] = (
    (ReductionCell, FILTERS // 2),
    *[(NormalCell, FILTERS)] * 4,
    (ReductionCell, 2 * FILTERS),
    *[(NormalCell, 2 * FILTERS)] * 4,
    (ReductionCell, 4 * FILTERS),
    *[(NormalCell, 4 * FILTERS)] * 4,
)  #: kind and filters of every cell after the first

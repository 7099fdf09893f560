"""MobileNetV3-Small with four of its eleven blocks, for tests of what happens around a backbone, whichever it is.

Most of the time of such a small training is spent per layer and per tensor, not on their numbers.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3


def mobilenet_v3_small(**options: object) -> nn.Module:
    """Build the network: the same kinds of layers, five halvings, 576 channels at the end, fewer weights."""
    blocks = [  # input channels, kernel, expanded, output, squeeze-and-excitation, activation, stride, dilation, width
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        InvertedResidualConfig(16, 3, 32, 24, False, "RE", 2, 1, 1.0),
        InvertedResidualConfig(24, 5, 48, 40, True, "HS", 2, 1, 1.0),
        InvertedResidualConfig(40, 5, 80, 96, True, "HS", 2, 1, 1.0),
    ]
    return MobileNetV3(blocks, last_channel=16, **options)

"""What training and answers ask of every network, beside its ``forward``."""

from __future__ import annotations

from torch import nn

from .backbones.backbone import Backbone


class Model(nn.Module):
    """A network that recognises images: ``forward(images, regions)`` gives an `Output`."""

    backbone: Backbone
    dropout: nn.Dropout  #: of what the classifier sees; its share is training's to set
    classifier: nn.Module

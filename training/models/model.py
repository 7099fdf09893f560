"""What training and answers ask of every network, beside its ``forward``."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from .backbones.backbone import Backbone


class Model(nn.Module):
    """A network that recognises images: ``forward`` takes what `inputs` names and gives an `Output`.

    A family sets its backbones, ``dropout`` and ``classifier`` as attributes; the rest is found.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images",)  #: fields of a batch that ``forward`` takes, in order
    dropout: nn.Dropout  #: before the classifier; training sets its probability
    classifier: nn.Module
    _size_hw: tuple[int, int] | None = None

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """Every backbone once, in the order of the attributes."""
        return tuple(module for module in self.modules() if isinstance(module, Backbone))

    @property
    def map_layer(self) -> nn.Module:
        """The module whose output ``(B, C, h, w)`` explanations differentiate: the last map as the head is given it.
        The first backbone, where the head calls that as a module.
        """
        return self.backbones[0]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the images it takes: the first backbone's own square until set."""
        side = self.backbones[0].preprocessing.size
        return self._size_hw or (side, side)

    @size_hw.setter
    def size_hw(self, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw

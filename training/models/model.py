"""What training and answers ask of every network, beside its ``forward``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from .backbones.backbone import Backbone

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"  #: what a part of a network is


class Model(nn.Module):
    """A network that recognises images: ``forward`` takes what `inputs` names and gives an `Output`.

    A family sets its backbones, ``dropout`` and ``classifier`` as attributes; the rest is found.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images",)  #: fields of a batch that ``forward`` takes, in order
    titles: ClassVar[dict[str, str]] = {}  #: names of parts for people, where hyphens for underscores do not do
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
        The first backbone, unless the family says otherwise; the head then has to call it, not its ``maps``.
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

    def parts(self) -> dict[str, str]:
        """Its parts: the path of a module or of a single parameter -> `BACKBONE`, `HEAD` or `CLASSIFIER`.

        Every name of the state dict is of the part that `path_of` finds. Each attribute is a part of the head, but for
        the backbones and ``classifier``.
        """
        backbones = {
            path: BACKBONE
            for path, module in self.named_modules(remove_duplicate=False)
            if isinstance(module, Backbone)
        }
        others = [name.partition(".")[0] for name in self.state_dict() if path_of(backbones, name) is None]
        modules = dict(self.named_children())
        others.sort(key=lambda name: name not in modules)  # single parameters last
        return backbones | {name: CLASSIFIER if name == "classifier" else HEAD for name in others}

    def title(self, path: str) -> str:
        """What people call a part."""
        return self.titles.get(path, path.replace("_", "-"))


def path_of(parts: Mapping[str, str], name: str) -> str | None:
    """The path of the part that a parameter or buffer of that name belongs to: the longest one that the name begins
    with; None where it belongs to none.
    """
    return max((path for path in parts if f"{name}.".startswith(f"{path}.")), key=len, default=None)


def kind_of(parts: Mapping[str, str], name: str) -> str:
    """`BACKBONE`, `HEAD` or `CLASSIFIER`: what the part is that a parameter or buffer of that name belongs to."""
    path = path_of(parts, name)
    return HEAD if path is None else parts[path]

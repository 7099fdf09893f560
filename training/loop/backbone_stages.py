"""Assign each parameter of a backbone to a stage, found from the map sizes in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..models.backbones.backbone import Backbone
from ..models.backbones.entries import HALF


def stages_of_parameters(backbone: Backbone, side: int | None = None) -> dict[str, int]:
    """Map the name of every parameter within the backbone to its stage, where 0 is the stage next to the image.

    A stage consists of the layers whose maps have the same size: ResNet-50 has five, the stem and ``layer1`` to
    ``layer4``. If all maps have one size (a vision transformer), every block is a stage. A block is not divided: all
    its parameters belong to the stage of its output.

    Args:
        backbone: The network, in any mode; its mode is restored.
        side: Side in pixels of the square image that is passed through; None for the backbone's own size. (A map is
            recognised by its equal sides.)
    """
    units = list(_units(backbone.body, "body"))
    called: dict[str, int | None] = {}  # unit -> side of its last map, in order of the first call

    def watch(unit: str, output: object) -> None:
        found = _side(output)
        called[unit] = called.get(unit) if found is None else found

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, unit=unit: watch(unit, output))
        for unit in units
        for module in backbone.get_submodule(unit).modules()
    ]
    training = [module for module in backbone.modules() if module.training]
    side, weight = side or backbone.preprocessing.size, next(backbone.parameters())
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    stages = _number(called)
    return {
        name: max((stages[unit] for unit in stages if f"{name}.".startswith(f"{unit}.")), default=0)
        for name, _ in backbone.named_parameters()
    }


def _number(called: dict[str, int | None]) -> dict[str, int]:
    """Map each unit to its stage, given the sides of the units' maps in execution order."""
    stages, stage, last = {}, 0, None
    for unit, side in called.items():
        if side is not None and last is not None and last >= HALF * side:
            stage += 1
        if side is not None and (last is None or last >= HALF * side):
            last = side
        stages[unit] = stage
    return stages if stage else {unit: number for number, unit in enumerate(called)}


def _units(module: nn.Module, path: str) -> Iterator[str]:
    """Yield the paths of the units in order: the children of a network, or the members of a numbered sequence."""
    children = {name: child for name, child in module.named_children() if any(True for _ in child.parameters())}
    while len(children) == 1 and next(iter(children)) in ("net", "features", "body"):
        ((name, module),) = children.items()
        path = f"{path}.{name}"
        children = {name: child for name, child in module.named_children() if any(True for _ in child.parameters())}
    for name, child in children.items():
        yield from _members(child, f"{path}.{name}")


def _members(module: nn.Module, path: str) -> Iterator[str]:
    children = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
    if children and all(name.isdecimal() for name in children):
        for name in children:
            yield from _members(module.get_submodule(name), f"{path}.{name}")
    else:
        yield path


def _side(output: object) -> int | None:
    """Return the side of a square map, channels first or last; None for anything else, such as attention heads."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return None
    _, first, height, last = output.shape
    return height if height in (first, last) else None

"""Build the optimiser of a recipe: learning rates, weight decay and frozen parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ...data.errors import ConfigurationError
from ..models.backbones.backbone import Backbone
from ..models.model import BACKBONE, CLASSIFIER, HEAD, Model, kind_of
from ..recipes import Recipe
from .backbone_stages import stages_of_parameters

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fan_in(weight: Tensor) -> int:
    """Number of inputs per output of a weight ``(outputs, inputs, …)`` or ``(slots, inputs, outputs)``.

    AdamW changes every weight by about the learning rate, so the change of an output grows with the number of its
    inputs. With 49·C inputs, one step at a customary rate saturates the layers that follow; rates proportional to
    1 / inputs do not (Yang et al., 2021).
    """
    return weight.shape[1] if weight.ndim == 3 else weight[0].numel()


def build_optimizer(model: Model, recipe: Recipe) -> torch.optim.Optimizer:
    """Build SGD or AdamW with parameter groups by learning rate and weight decay.

    The learning rate depends on the part of the network and the stage of the backbone. The schedule multiplies a
    group's ``highest_lr``. Frozen parameters are in no group and get ``requires_grad = False``.

    Raises: `ConfigurationError` if more stages are to be frozen than a backbone has.
    """
    parts = model.parts()
    stages = _stages(model, parts, recipe)
    last = max((stage.last for stage in stages.values()), default=0)  # of the deepest of several backbones
    if recipe.frozen_stages > last + 1:
        raise ConfigurationError(
            f"training setting 'frozen_stages': wanted 0 to {last + 1}, the backbone's stages, "
            f"got {recipe.frozen_stages}"
        )
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kind = kind_of(parts, name)
        scale = {BACKBONE: recipe.backbone_lr, CLASSIFIER: recipe.classifier_lr, HEAD: 1.0}[kind]
        if recipe.fan_in and parameter.ndim > 1 and kind == HEAD:
            scale *= min(1.0, recipe.fan_in / fan_in(parameter))
        if name in stages:
            stage = stages[name]
            scale *= 0 if stage.number < recipe.frozen_stages else recipe.layer_decay ** (stage.last - stage.number)
        if scale == 0:
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            groups.setdefault((scale, parameter.ndim > 1), []).append(parameter)
    parameter_groups = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "highest_lr": recipe.lr * scale,
        }
        for (scale, decays), parameters in groups.items()
    ]
    # A fused optimiser reads and writes parameters and moments once per step instead of ten times; the head has 31
    # million parameters. On a GPU only the fused one skips a step with infinite gradients (fp16) without a host sync.
    fused = {parameter.device.type for parameter in model.parameters()} <= {"cpu", "cuda"} or None
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameter_groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused
        )
    return torch.optim.AdamW(parameter_groups, lr=recipe.lr, betas=(recipe.momentum, recipe.beta2), fused=fused)


def rest_frozen(model: Model, norms: bool = False) -> None:
    """Put frozen modules into evaluation mode, which also freezes their running statistics.

    Args:
        model: Network to change in place.
        norms: Whether to do the same with all batch norms of the backbones; scales and shifts that require a gradient
            are still trained.
    """
    for module in model.modules():
        asks = [parameter.requires_grad for parameter in module.parameters()]
        if asks and not any(asks):
            module.eval()
    for backbone in model.backbones if norms else ():
        for module in backbone.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()


class _Stage(NamedTuple):
    """A stage of a backbone; stages are counted from 0, next to the image."""

    number: int
    last: int  #: number of the last stage of this backbone


def _stages(model: Model, parts: Mapping[str, str], recipe: Recipe) -> dict[str, _Stage]:
    """Return the stage of each backbone parameter by name; empty if the recipe does not use stages."""
    if recipe.frozen_stages == 0 and recipe.layer_decay == 1:
        return {}
    found: dict[str, _Stage] = {}
    for path, kind in parts.items():
        if kind == BACKBONE:
            numbers = stages_of_parameters(cast(Backbone, model.get_submodule(path)), max(model.size_hw))
            last = max(numbers.values())
            found |= {f"{path}.{name}": _Stage(number, last) for name, number in numbers.items()}
    return found

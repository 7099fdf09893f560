"""What a recipe means for a network's parameters."""

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
    """How many inputs each output of a weight sums over: of ``(outputs, inputs, …)``, or ``(slots, inputs, outputs)``.

    AdamW moves every number by about its rate, so that an output moves with the number of its inputs. Of 49·C inputs
    one step at a customary rate saturates what follows; rates in proportion to 1 / inputs do not (Yang et al., 2021).
    """
    return weight.shape[1] if weight.ndim == 3 else weight[0].numel()


def build_optimizer(model: Model, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW in groups: of a part of the network and a stage of a backbone, with and without weight decay.

    A group's ``highest_lr`` is what the schedule multiplies. What is frozen is in no group and asks for no gradient.

    Raises: `ConfigurationError` when more stages are to be frozen than a backbone has.
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
    # Fused, it reads and writes parameters and moments once a step instead of ten times: the head has 31 million. On a
    # GPU no other one passes over a step with infinite gradients (fp16) without asking the host.
    fused = {parameter.device.type for parameter in model.parameters()} <= {"cpu", "cuda"} or None
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameter_groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused
        )
    return torch.optim.AdamW(parameter_groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)


def rest_frozen(model: Model, norms: bool = False) -> None:
    """Put what does not learn into evaluation mode: its running statistics stay as they are, too.

    Args:
        norms: all batch norms of the backbones, too; their scales and shifts learn if they ask for a gradient.
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
    """A stage of a backbone, by numbers counted from the one next to the image."""

    number: int
    last: int  #: of this backbone


def _stages(model: Model, parts: Mapping[str, str], recipe: Recipe) -> dict[str, _Stage]:
    """The stage of each of the backbones' parameters by its name; empty where the recipe does not ask."""
    if recipe.frozen_stages == 0 and recipe.layer_decay == 1:
        return {}
    found: dict[str, _Stage] = {}
    for path, kind in parts.items():
        if kind == BACKBONE:
            numbers = stages_of_parameters(cast(Backbone, model.get_submodule(path)), max(model.size_hw))
            last = max(numbers.values())
            found |= {f"{path}.{name}": _Stage(number, last) for name, number in numbers.items()}
    return found

"""What a recipe means for a network's parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...data.errors import ConfigurationError
from ..models.model import Model
from ..recipes import Recipe
from .backbone_stages import stages_of_parameters

BACKBONE, CLASSIFIER = "backbone.", "classifier."
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to, by its name: backbone, classifier or head."""
    return next((prefix[:-1] for prefix in (BACKBONE, CLASSIFIER) if name.startswith(prefix)), "head")


def fan_in(weight: Tensor) -> int:
    """How many inputs each output of a weight sums over: of ``(outputs, inputs, …)``, or ``(slots, inputs, outputs)``.

    AdamW moves every number by about its rate, so that an output moves with the number of its inputs. Of 49·C inputs
    one step at a customary rate saturates what follows; rates in proportion to 1 / inputs do not (Yang et al., 2021).
    """
    return weight.shape[1] if weight.ndim == 3 else weight[0].numel()


def build_optimizer(model: Model, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW in groups: of a part of the network and a stage of its backbone, with and without weight decay.

    A group's ``highest_lr`` is what the schedule multiplies. What is frozen is in no group and asks for no gradient.

    Raises: `ConfigurationError` when more stages are to be frozen than the backbone has.
    """
    stages = _stages(model, recipe)
    last = max(stages.values(), default=0)
    if recipe.frozen_stages > last + 1:
        raise ConfigurationError(
            f"training setting 'frozen_stages': wanted 0 to {last + 1}, the backbone's stages, "
            f"got {recipe.frozen_stages}"
        )
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = {"backbone": recipe.backbone_lr, "classifier": recipe.classifier_lr, "head": 1.0}[part_of(name)]
        if recipe.fan_in and parameter.ndim > 1 and part_of(name) == "head":
            scale *= min(1.0, recipe.fan_in / fan_in(parameter))
        if name in stages:
            scale *= 0 if stages[name] < recipe.frozen_stages else recipe.layer_decay ** (last - stages[name])
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


def _stages(model: Model, recipe: Recipe) -> dict[str, int]:
    """The stage of each of the backbone's parameters by its name; empty where the recipe does not ask."""
    if recipe.frozen_stages == 0 and recipe.layer_decay == 1:
        return {}
    return {
        BACKBONE + name: stage for name, stage in stages_of_parameters(model.backbones[0], max(model.size_hw)).items()
    }

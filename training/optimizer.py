"""What a recipe means for a network's parameters."""

from __future__ import annotations

import torch
from torch import nn

from .recipes import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW in groups: head and backbone, each with and without weight decay.

    A group's ``highest_lr`` is what the schedule multiplies. A frozen backbone's parameters are in no group and
    ask for no gradient.
    """
    frozen = recipe.backbone_lr == 0
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_backbone = name.startswith("backbone.")
        if in_backbone and frozen:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((in_backbone, parameter.ndim > 1), []).append(parameter)
    parameter_groups = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "highest_lr": recipe.lr * (recipe.backbone_lr if in_backbone else 1.0),
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameter_groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    # Fused, it reads and writes parameters and moments once a step instead of ten times: the head has 31 million.
    fused = {parameter.device.type for parameter in model.parameters()} <= {"cpu", "cuda"}
    return torch.optim.AdamW(parameter_groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused or None)

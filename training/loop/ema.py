"""A running mean of a network's weights, which is often better than the last of them."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from ..machine.torch_internals import move_towards
from ..models.model import Model

# Statistics of BatchNorm belong to the weights they were gathered with, so they are averaged alike. Other buffers
# (counters, the vectors of a spectral norm) mean nothing in between two values.
AVERAGED_BUFFERS = ("running_mean", "running_var")


class WeightAverage:
    """The exponential moving average of what a network learns (Polyak and Juditsky, 1992), in a network of its own.

    Args:
        model: where it begins.
        decay: share of the mean that stays at a step.
        warmup: w; at step k the share is min(decay, (1 + k) / (w + k)), so that a short run is not the mean of its
            beginning.
    """

    def __init__(self, model: Model, decay: float, warmup: int) -> None:
        self.decay, self.warmup = decay, warmup
        self.model = deepcopy(model).requires_grad_(False).eval()  #: the mean; its ``state_dict`` is all there is

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards ``model`` after the optimiser's step number ``step`` of the run, from 0."""
        share = 1 - min(self.decay, (1 + step) / (self.warmup + step))
        learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        mine, theirs = dict(self.model.named_parameters()), dict(model.named_parameters())
        means: list[Tensor] = [mine[name].data for name in learning]
        values: list[Tensor] = [theirs[name].data for name in learning]
        for (name, mean), value in zip(self.model.named_buffers(), model.buffers(), strict=True):
            if name.endswith(AVERAGED_BUFFERS):
                means.append(mean)
                values.append(value)
            else:
                mean.copy_(value)
        move_towards(means, values, share)

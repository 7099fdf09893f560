"""An exponential moving average of a network's weights, which often generalises better than the last weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from ..machine.torch_internals import move_towards
from ..models.model import Model

# BatchNorm statistics belong to the weights they were computed with, so they are averaged in the same way. For other
# buffers (counters, the vectors of a spectral norm) an average has no meaning.
AVERAGED_BUFFERS = ("running_mean", "running_var")


class WeightAverage:
    """Exponential moving average of a network's weights (Polyak and Juditsky, 1992), kept in a copy.

    Args:
        model: Network whose weights initialise the average.
        decay: Fraction of the average that is kept at each step.
        warmup: Warm-up w: at step k the fraction is min(decay, (1 + k) / (w + k)), so that the average of a short run
            is not dominated by its initial weights.
    """

    def __init__(self, model: Model, decay: float, warmup: int) -> None:
        self.decay, self.warmup = decay, warmup
        #: The averaged network; its ``state_dict`` is the complete state.
        self.model = deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights of ``model`` after optimiser step ``step`` of the run, counted from 0."""
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

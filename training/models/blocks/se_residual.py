"""SE-Residual: every token's channels reweighted by its own squeeze-and-excitation block (AG-Net Fig. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .token_products import scale


class SEResidual(nn.Module):
    """out = x·s + x with s = σ(W₂ relu(W₁ GAP(x))), without biases, weights unshared between token slots.

    One block for each of the N tokens: that, and nothing else, gives the parameter counts of the paper's
    Table VI. The blocks are kept side by side in two tensors, so that one batched product applies them all.

    Args:
        tokens: N, or 1 for one block that all tokens share. channels: C. ratio: C to ⌊C/ratio⌋ in between.
    """

    def __init__(self, tokens: int, channels: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = channels // ratio
        self.squeeze = nn.Parameter(torch.empty(tokens, channels, hidden))
        self.excite = nn.Parameter(torch.empty(tokens, hidden, channels))
        nn.init.uniform_(self.squeeze, -(channels**-0.5), channels**-0.5)  # as nn.Linear's
        nn.init.zeros_(self.excite)  # every gate begins even: out = 1.5 x

    def forward(self, x: Tensor, means: Tensor | None = None, inplace: bool = False) -> Tensor:
        """``(B, N, P, C)``, P positions a token -> same shape.

        Args:
            means: GAP(x), ``(B, N, C)``, if known: reading all of x for it costs as much as the rest.
            inplace: x may be overwritten (it is where there is no gradient to compute).
        """
        if means is None:
            means = x.mean(dim=2)
        hidden = torch.relu(torch.einsum("bnc,nch->bnh", means, self.squeeze))
        gates = 1 + torch.sigmoid(torch.einsum("bnh,nhc->bnc", hidden, self.excite))
        return scale(x, gates, inplace)

"""SE-Residual: a squeeze-and-excitation block with a residual connection for each token (AG-Net Fig. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .token_products import scale


class SEResidual(nn.Module):
    """out = x·s + x with s = σ(W₂ relu(W₁ GAP(x))), without biases; the weights are not shared between token slots.

    There is one block for each of the N tokens: only this yields the parameter counts of the paper's Table VI. The
    blocks are stacked in two tensors, so that one batched product applies all of them.

    Args:
        tokens: Number of tokens, N; 1 for a single block that all tokens share.
        channels: Number of channels, C.
        ratio: Reduction ratio; the hidden layer has ⌊C/ratio⌋ channels.
    """

    def __init__(self, tokens: int, channels: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = channels // ratio
        self.squeeze = nn.Parameter(torch.empty(tokens, channels, hidden))
        self.excite = nn.Parameter(torch.empty(tokens, hidden, channels))
        nn.init.uniform_(self.squeeze, -(channels**-0.5), channels**-0.5)  # as in nn.Linear
        nn.init.zeros_(self.excite)  # every gate starts at σ(0) = ½: out = 1.5 x

    def forward(self, x: Tensor, means: Tensor | None = None, inplace: bool = False) -> Tensor:
        """``(B, N, P, C)``, N tokens of P positions -> same shape.

        Args:
            x: Tokens ``(B, N, P, C)``.
            means: GAP(x), ``(B, N, C)``, if already known: computing it here reads all of x, which costs as much as the
                rest.
            inplace: Whether x may be overwritten; this happens only while gradients are disabled.
        """
        if means is None:
            means = x.mean(dim=2)
        return scale(x, self.gates(means), inplace)

    def gates(self, means: Tensor) -> Tensor:
        """Factors of the channels, 1 + s: GAP(x) ``(B, N, C)`` -> ``(B, N, C)``."""
        hidden = torch.relu(torch.einsum("bnc,nch->bnh", means, self.squeeze))  # (B, N, ⌊C/ratio⌋)
        return 1 + torch.sigmoid(torch.einsum("bnh,nhc->bnc", hidden, self.excite))

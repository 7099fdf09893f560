"""Inter-attention between the tokens, and the weighting of what comes of it (AG-Net Eqs. 2 and 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .token_products import project, weighted_sum


class TokenMean(nn.Module):
    """The merging without parameters that stands in for inter-attention ("-Attn" in the paper's Table VI): the mean."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, P, C)`` -> ``(B, P, C)`` and the even weights ``(B, N)``."""
        return tokens.mean(dim=1), tokens.new_full(tokens.shape[:2], 1 / tokens.shape[1])


class InterAttention(nn.Module):
    """Every token attends to every token; then the tokens are weighted and summed to one.

    Eq. 2, one layer for all pairs, ``units`` wide:
        u_rr' = tanh(W_u f_r + W_u' f_r' + b_u),  m_rr' = σ(W_m u_rr' + b_m),  α_r = Σ_r' m_rr' f_r'
    Eq. 3:
        w = softmax over r of (W_α α_r + b_α),  f̂ = Σ_r w_r α_r

    α is linear in the tokens, so it is never built: W_α α_r = Σ_r' m_rr' (W_α f_r') and
    f̂ = Σ_r' (Σ_r w_r m_rr') f_r'. The same numbers from one weighted sum over N tokens instead of an N×N×D
    product. (b_α shifts every score alike, so the softmax cancels it; the paper counts it.)

    Args:
        tokens: N. dimension: D = P·C, of a flattened token.
        units: width of u.
        softmax: normalise m over r' after the sigmoid (in the authors' sister code; the paper does not).
    """

    def __init__(self, tokens: int, dimension: int, units: int = 32, softmax: bool = False) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, units)  # W_u, b_u
        self.key = nn.Linear(dimension, units, bias=False)  # W_u'
        self.match = nn.Linear(units, 1)  # W_m, b_m
        self.weigh = nn.Linear(dimension, 1)  # W_α, b_α
        self.softmax = softmax
        if not softmax:
            # The paper names no start. σ(0) = ½ would begin with α at N/2 times a token's scale, which throws the
            # classifier off for an epoch; m near 1/N begins near the mean of the tokens. (Of one token: 0.98 of it.)
            nn.init.constant_(self.match.bias, -math.log(tokens - 1) if tokens > 1 else 4.0)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, P, C)``, tokens of P positions -> f̂ ``(B, P, C)`` and the region weights ``(B, N)``.

        A token's region weight is what its feature is multiplied by on its way to f̂, Σ_r w_r m_rr', as a share of all
        tokens' sum. (Eq. 3's w weighs α, in which every token is mixed: its order says nothing of the tokens.)
        """
        units = self.match.in_features
        # Three projections of the same large tensor: reading it once is what counts.
        weight = torch.cat([self.query.weight, self.key.weight, self.weigh.weight])
        projected, tokens = project(tokens, weight)
        query, key, weighed = projected.split([units, units, 1], dim=-1)  # (B, N, units or 1)
        u = torch.tanh(query[:, :, None] + key[:, None] + self.query.bias)  # (B, N r, N r', units)
        m = torch.sigmoid(self.match(u)).squeeze(-1)  # (B, N r, N r')
        if self.softmax:
            m = torch.softmax(m, dim=-1)
        scores = m @ weighed + self.weigh.bias  # (B, N, 1): W_α α + b_α
        w = torch.softmax(scores.squeeze(-1), dim=-1)  # (B, N)
        shares = torch.einsum("br,brs->bs", w, m)  # (B, N): what of each token reaches f̂
        precise = shares.to(torch.promote_types(shares.dtype, torch.float32))
        total = precise.sum(dim=1, keepdim=True).clamp(min=torch.finfo(precise.dtype).tiny)
        return weighted_sum(shares, tokens), precise / total

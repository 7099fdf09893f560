"""Inter-attention between the tokens, and region weighting (AG-Net Eqs. 2 and 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .precision import precise
from .token_products import project, weighted_sum


class TokenMean(nn.Module):
    """Mean of the tokens: the parameter-free merging in place of inter-attention ("−Attn" in the paper's Table VI)."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, P, C)`` -> ``(B, P, C)`` and uniform region weights ``(B, N)``."""
        return tokens.mean(dim=1), self.coefficients(tokens)[0]

    def coefficients(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficient of each token in what `forward` returns ``(B, N)``, and the tokens."""
        return tokens.new_full(tokens.shape[:2], 1 / tokens.shape[1]), tokens


class InterAttention(nn.Module):
    """Attention of every token to every token, followed by region weighting.

    Inter-attention (Eq. 2), with one layer of ``units`` units for all pairs:
        u_rr' = tanh(W_u f_r + W_u' f_r' + b_u),  m_rr' = σ(W_m u_rr' + b_m),  α_r = Σ_r' m_rr' f_r'
    Region weighting (Eq. 3):
        w = softmax over r of (W_α α_r + b_α),  f̂ = Σ_r w_r α_r

    α is linear in the tokens, so it is never computed: W_α α_r = Σ_r' m_rr' (W_α f_r') and
    f̂ = Σ_r' (Σ_r w_r m_rr') f_r'. This is exact, and takes one weighted sum over N tokens instead of an N × N × D
    product. (b_α shifts all scores equally, so the softmax cancels it; the paper counts it.)

    Args:
        tokens: Number of tokens, N.
        dimension: Size of a flattened token, D = P·C.
        units: Width of u.
        softmax: Whether to normalise m over r' after the sigmoid, as in the authors' related code, not in the paper.
    """

    def __init__(self, tokens: int, dimension: int, units: int = 32, softmax: bool = False) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, units)  # W_u, b_u
        self.key = nn.Linear(dimension, units, bias=False)  # W_u'
        self.match = nn.Linear(units, 1)  # W_m, b_m
        self.weigh = nn.Linear(dimension, 1)  # W_α, b_α
        self.softmax = softmax
        if not softmax:
            # The paper gives no initialisation. With m = σ(0) = ½, α would start at N/2 times the scale of a token,
            # which disrupts the classifier for an epoch. With m ≈ 1/N, it starts near the mean of the tokens. (A single
            # token starts at 0.98 of itself.)
            nn.init.constant_(self.match.bias, -math.log(tokens - 1) if tokens > 1 else 4.0)

    def forward(self, tokens: Tensor, bias: Tensor | None = None, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, N, P, C)``, N tokens of P positions -> f̂ ``(B, P, C)`` and region weights ``(B, N)``.

        Args:
            tokens: Tokens.
            bias: Term ``(B, N)`` added to the scores of Eq. 3; None: none.
            valid: bool ``(B, N)``, False for tokens to leave out, at most N − 1 of each sample; None: all are used.

        The region weight of token r' is its coefficient in f̂, Σ_r w_r m_rr', divided by the sum over all tokens. (The
        w_r of Eq. 3 weight the α_r, each a mixture of all tokens, so they do not rank the tokens.)
        """
        shares, tokens = self.coefficients(tokens, bias, valid)
        weights = precise(shares)
        total = weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return weighted_sum(shares, tokens), weights / total

    def coefficients(
        self, tokens: Tensor, bias: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Coefficient of each token in f̂, Σ_r w_r m_rr', ``(B, N)``, and the tokens, to be used downstream.

        Arguments are those of `forward`.
        """
        units = self.match.in_features
        # Three projections of the same large tensor in one product, since reading the tensor dominates the cost.
        weight = torch.cat([self.query.weight, self.key.weight, self.weigh.weight])  # (2·units + 1, D)
        projected, tokens = project(tokens, weight)  # (B, N, 2·units + 1), (B, N, P, C)
        query, key, weighed = projected.split([units, units, 1], dim=-1)  # (B, N, units or 1)
        u = torch.tanh(query[:, :, None] + key[:, None] + self.query.bias)  # (B, N r, N r', units)
        m = torch.sigmoid(self.match(u)).squeeze(-1)  # (B, N r, N r')
        if valid is not None:
            m = m.masked_fill(~valid[:, None], -math.inf if self.softmax else 0)
        if self.softmax:
            m = torch.softmax(m, dim=-1)
        scores = (m @ weighed + self.weigh.bias).squeeze(-1)  # (B, N): W_α α + b_α
        if bias is not None:
            scores = scores + bias
        if valid is not None:
            scores = scores.masked_fill(~valid, -math.inf)
        w = torch.softmax(scores, dim=-1)  # (B, N)
        return torch.einsum("br,brs->bs", w, m), tokens

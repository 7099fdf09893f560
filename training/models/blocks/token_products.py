"""Products with the tokens, the largest tensor of the head: N·49·C numbers per image, 15 MB with ResNet-50.

Reading and writing them dominates the cost. Plain autograd allocates two more such tensors per training step and keeps
one of them; and of PyTorch's two CPU libraries for matrix products, the one for convolutions is twice as fast on some
processors. Eager mode on CPUs therefore has implementations of its own here (`benchmarks/stage2.py` measures their
benefit); GPUs, compilers, exporters and the transforms of `torch.func` use the plain formulas. The CPU implementations
have no second derivatives: `plain_formulas` disables them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, embedding_bag

from ...machine.torch_internals import are_functions_transformed, gradients_of_convolution

_closed = ContextVar("closed", default=False)


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Context in which CPUs use the plain formulas, too: for second derivatives, and for comparison."""
    token = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(token)


def on_eager_cpu(x: Tensor) -> bool:
    """Whether the CPU implementations apply to ``x``: on a CPU, in single or double precision and without autocast.

    Neither the compiler nor a functorch transform nor `plain_formulas` may be active.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    watched = torch.compiler.is_compiling() or are_functions_transformed()
    return not (watched or torch.is_autocast_enabled("cpu") or _closed.get())


def gather(table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Weighted sums of rows, ``(shares[..., None] * table[rows]).sum(dim=-2)``, for few rows per sum and eager CPUs.

    Args:
        table: Table ``(M, C)``.
        rows: Row indices ``(..., K)``.
        shares: Weights ``(..., K)``.

    Returns: sums ``(..., C)``.
    """
    K = rows.shape[-1]
    sums = embedding_bag(rows.reshape(-1, K), table, per_sample_weights=shares.reshape(-1, K), mode="sum")
    return sums.view(*rows.shape[:-1], table.shape[1])


def scale(tokens: Tensor, gates: Tensor, inplace: bool = False) -> Tensor:
    """Multiply the channels of each token by its gates.

    Args:
        tokens: Tokens ``(B, N, P, C)``.
        gates: Factors ``(B, N, C)``, none of them 0.
        inplace: Whether the tokens may be overwritten; this happens only while gradients are disabled.
    """
    if inplace and not torch.is_grad_enabled():
        return tokens.mul_(gates[:, :, None])
    if not on_eager_cpu(tokens):
        return tokens * gates[:, :, None]
    scaled: Tensor = _Scale.apply(tokens, gates)
    return scaled


def project(tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the linear map ``weight`` ``(K, P·C)`` to the tokens ``(B, N, P, C)``.

    Returns: projections ``(B, N, K)``, and the tokens. Use the returned tokens downstream: this saves one gradient
        buffer of their size.
    """
    if not on_eager_cpu(tokens):
        return tokens.flatten(2) @ weight.T, tokens
    projected: tuple[Tensor, Tensor] = _Project.apply(tokens, weight)
    return projected


def weighted_sum(shares: Tensor, tokens: Tensor) -> Tensor:
    """Sum the tokens ``(B, N, P, C)`` with the weights ``shares`` ``(B, N)`` -> ``(B, P, C)``."""
    if not on_eager_cpu(tokens):
        return torch.einsum("bn,bnpc->bpc", shares, tokens)
    summed: Tensor = _WeightedSum.apply(shares, tokens)
    return summed


class _Scale(Function):
    """`scale` that saves its output, as the next operation does anyway, so that its input need not be kept."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, gates: Tensor) -> Tensor:
        scaled = tokens * gates[:, :, None]
        ctx.save_for_backward(scaled, gates)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        scaled, gates = ctx.saved_tensors
        to_tokens, to_gates = torch.empty_like(scaled), torch.empty_like(gates)
        for number, up in enumerate(upstream):  # one image at a time: its part of all three fits into the cache
            torch.mul(up, gates[number, :, None], out=to_tokens[number])
            torch.sum(up * scaled[number], dim=1, out=to_gates[number])
        return to_tokens, to_gates / gates


class _Project(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens, weight)
        image, kernel = _as_convolution(tokens, weight)
        return conv2d(image, kernel).reshape(*tokens.shape[:2], len(weight)), tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_projected: Tensor, to_tokens: Tensor) -> tuple[Tensor, Tensor]:
        tokens, weight = ctx.saved_tensors
        image, kernel = _as_convolution(tokens, weight)
        upstream = to_projected.reshape(len(image), -1, 1, 1)
        through, to_weight = gradients_of_convolution(upstream, image, kernel)
        through = through.permute(0, 2, 3, 1).reshape(tokens.shape)
        return through.add_(to_tokens), to_weight.permute(0, 2, 3, 1).reshape(weight.shape)


class _WeightedSum(Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(shares, tokens)
        return torch.bmm(shares[:, None], tokens.flatten(2)).view(len(tokens), *tokens.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        shares, tokens = ctx.saved_tensors
        to_shares = torch.bmm(upstream.reshape(len(tokens), 1, -1), tokens.flatten(2).transpose(1, 2))
        return to_shares[:, 0], shares[:, :, None, None] * upstream[:, None]


def _as_convolution(tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """View tokens as B·N images ``(C, P, 1)`` and weight as kernels of that size, channels last, without copies."""
    B, N, P, C = tokens.shape
    return tokens.view(B * N, P, 1, C).permute(0, 3, 1, 2), weight.view(-1, P, 1, C).permute(0, 3, 1, 2)

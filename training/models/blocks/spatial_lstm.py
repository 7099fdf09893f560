"""Spatial LSTM (Theis and Bethge, 2015): a recurrent layer over the positions of a map.

Each position has a left and an upper neighbour:

(g, o, i, f_l, f_t) = W z_ij + R_l h_{i,j−1} + R_t h_{i−1,j} + b
c_ij = tanh(g) ⊙ σ(i) + c_{i,j−1} ⊙ σ(f_l) + c_{i−1,j} ⊙ σ(f_t),  h_ij = tanh(c_ij ⊙ σ(o)),  zeros outside the map
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .precision import precise, precise_dtype

# Sides along which a direction's map is flipped before it is read, as dimensions of (h, w, …).
FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))
GATES = 5


class States(NamedTuple):
    """Output of a spatial LSTM for a map."""

    hidden: Tensor  #: h ``(B, directions, units, h, w)``
    shares: Tensor | None  #: ``(directions, steps, B, N)``: attention of each cell; None without


class SpatialLSTM(nn.Module):
    """A spatial LSTM that reads a map from one corner, or from all four, with weights of their own.

    All cells of a diagonal are computed at once, for all directions: h + w − 1 steps.

    Args:
        channels: Channels d of the map.
        units: Hidden units U, per direction.
        directions: 1, from the upper left to the lower right, or 4.
        stable: c = tanh(g) ⊙ σ(i) + (1 − σ(i)) ⊙ (mean of both neighbours, weighted by their forget gates), within
            ±1. The sum of both may grow with 2^(i + j).
    """

    def __init__(self, channels: int, units: int, directions: int = 4, stable: bool = False) -> None:
        super().__init__()
        self.units, self.directions, self.stable = units, directions, stable
        self.input = nn.Parameter(torch.empty(directions, channels, GATES * units))  # W
        self.recurrent = nn.Parameter(torch.empty(directions, 2 * units, GATES * units))  # R_l above R_t
        self.bias = nn.Parameter(torch.zeros(directions * GATES * units))  # one dimension: no weight decay
        nn.init.uniform_(self.input, -(channels**-0.5), channels**-0.5)  # as nn.Linear's
        for neighbour in self.recurrent.data.view(2 * directions, units, GATES, units):
            for matrix in neighbour.unbind(1):
                nn.init.orthogonal_(matrix)
        self.bias.data.view(directions, GATES, units)[:, 3:] = 1.0  # f_l, f_t

    def forward(self, z: Tensor, attend: Callable[[Tensor], Tensor] | None = None) -> States:
        """Read a map.

        Args:
            z: ``(B, d, h, w)``.
            attend: Attention over all positions, from the hidden states of n cells' neighbours ``(directions, n, B,
                2 · units)`` to shares ``(directions, B, n, N)``. Each cell then sees Σ_k α_k z_k instead of its own z.
        """
        h, w = z.shape[2:]
        cells = z.permute(2, 3, 0, 1)  # (h, w, B, d)
        # Cells diagonal by diagonal, from the top of each.
        row, column = (torch.arange(side, device=z.device) for side in (h, w))
        order = ((row[:, None] + column) * h + row[:, None]).flatten().argsort()
        if attend is None:
            flipped = torch.stack([cells.flip(flip) if flip else cells for flip in FLIPS[: self.directions]])
            inputs = self._project(flipped.flatten(1, 2).index_select(1, order))  # (directions, N, B, 5U)
        else:
            inputs = self._project(cells.flatten(0, 1).expand(self.directions, -1, -1, -1)).transpose(1, 2)
        hidden, shares = self._wavefront(inputs, (h, w), attend)
        grid = hidden.index_select(1, order.argsort()).unflatten(1, (h, w)).unbind(0)  # each (h, w, B, U)
        grid = [states.flip(flip) if flip else states for states, flip in zip(grid, FLIPS, strict=False)]
        return States(torch.stack(grid).permute(3, 0, 4, 1, 2), shares)

    def corners(self, hidden: Tensor) -> Tensor:
        """The state that each direction reaches last, of `States.hidden` -> ``(B, directions · units)``."""
        ends = [(0 if 0 in flip else -1, 0 if 1 in flip else -1) for flip in FLIPS[: self.directions]]
        return torch.cat([hidden[:, number, :, i, j] for number, (i, j) in enumerate(ends)], dim=1)

    def _project(self, cells: Tensor) -> Tensor:
        """W z + b of cells ``(directions, …, d)``."""
        biases = self.bias.view(self.directions, 1, GATES * self.units)
        return torch.baddbmm(biases, cells.flatten(1, 2), self.input).unflatten(1, cells.shape[1:3])

    def _wavefront(
        self, inputs: Tensor, size_hw: tuple[int, int], attend: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states ``(directions, N, B, U)`` in the order of the diagonals, and the attention of each cell.

        Args:
            inputs: ``(directions, N, B, 5U)`` in that order; with ``attend``, ``(directions, B, N, 5U)`` in the map's.
        """
        h, w = size_hw
        batch = inputs.shape[2] if attend is None else inputs.shape[1]
        dtype = precise_dtype(inputs.dtype)  # c grows beyond half precision's range
        # States of the previous diagonal, padded with zeros at both ends for neighbours outside the map.
        hidden = cell = inputs.new_zeros(self.directions, 2, batch, self.units, dtype=dtype)
        found, attended = [], []
        begin = first_before = 0
        for diagonal in range(h + w - 1):
            first, last = max(0, diagonal - w + 1), min(h - 1, diagonal)  # rows
            count, at = last - first + 1, first - first_before
            top, left = slice(at, at + count), slice(at + 1, at + 1 + count)
            neighbours = torch.cat([hidden[:, left], hidden[:, top]], dim=-1)  # (directions, count, B, 2U)
            if attend is None:
                seen = inputs[:, begin : begin + count]
            else:  # W is linear: the expectation of the projected map is the projected expectation
                shares = attend(neighbours)  # (directions, B, count, N)
                seen = (shares.to(inputs.dtype) @ inputs).transpose(1, 2)
                attended.append(shares.transpose(1, 2))
            gates = torch.baddbmm(seen.flatten(1, 2), neighbours.flatten(1, 2).to(seen.dtype), self.recurrent)
            gates = precise(gates).unflatten(1, (count, batch))
            new_hidden, new_cell = self._cell(gates, cell[:, left], cell[:, top])
            found.append(new_hidden)
            hidden, cell = (nn.functional.pad(values, (0, 0, 0, 0, 1, 1)) for values in (new_hidden, new_cell))
            begin, first_before = begin + count, first
        return torch.cat(found, dim=1), torch.cat(attended, dim=1) if attended else None

    def _cell(self, gates: Tensor, left: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """h and c of cells from their gates ``(…, 5U)`` and the neighbours' c ``(…, U)``."""
        g, o, i, forget_left, forget_top = gates.chunk(GATES, dim=-1)
        new = torch.tanh(g) * torch.sigmoid(i)
        if self.stable:
            # σ(f_l) / (σ(f_l) + σ(f_t)), without dividing 0 by 0
            share = torch.sigmoid(nn.functional.logsigmoid(forget_left) - nn.functional.logsigmoid(forget_top))
            cell = new + torch.sigmoid(-i) * torch.lerp(top, left, share)
        else:
            cell = new + left * torch.sigmoid(forget_left) + top * torch.sigmoid(forget_top)
        return torch.tanh(cell * torch.sigmoid(o)), cell

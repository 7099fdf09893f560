"""Bilinear features of two maps: outer products a ⊗ b of their channels, whole, of low rank, or sketched."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .precision import precise

# Bounds the gradient of the square root at 0 to 5,000; the root's step where the sign changes is 2e-4.
EPSILON = 1e-8


class LowRankBilinear(nn.Module):
    """z = Σ_r (U_r a) ⊙ (V_r b) at each position: the outer product a ⊗ b and a linear layer of rank r, without the
    product (Kim et al., 2017).

    Args:
        channels: Channels of the first and of the second map.
        outputs: Channels of z.
        rank: Rank r of each output.
    """

    def __init__(self, channels: tuple[int, int], outputs: int, rank: int = 1) -> None:
        super().__init__()
        self.rank = rank
        self.first = nn.Conv2d(channels[0], rank * outputs, 1, bias=False)  # U
        self.second = nn.Conv2d(channels[1], rank * outputs, 1, bias=False)  # V

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, C', h, w)`` -> ``(B, outputs, h, w)``."""
        product = precise(self.first(first)) * precise(self.second(second))
        return product.unflatten(1, (self.rank, -1)).sum(dim=1)


class TensorSketch(nn.Module):
    """Compact bilinear features (Gao et al., 2016): a random projection of a ⊗ b to ``size`` numbers, whose inner
    products approximate those of a ⊗ b.

    Channel c of a is added with its sign to bin h(c), and so is b; the circular convolution of the two sketches is the
    sketch of their outer product. The hashes are buffers: a checkpoint keeps them. On GPUs, the last bits of the result
    are not deterministic, since bins are filled by atomic additions (unless PyTorch's deterministic algorithms are on).

    Args:
        channels: Channels of the first and of the second map.
        size: Number of bins.
    """

    bins_first: Tensor
    signs_first: Tensor
    bins_second: Tensor
    signs_second: Tensor

    def __init__(self, channels: tuple[int, int], size: int) -> None:
        super().__init__()
        self.size = size
        for name, count in zip(("first", "second"), channels, strict=True):
            self.register_buffer(f"bins_{name}", torch.randint(0, size, (count,)))
            self.register_buffer(f"signs_{name}", torch.randint(0, 2, (count,)) * 2.0 - 1)
        self.register_load_state_dict_post_hook(_check_hashes)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, C', h, w)`` -> ``(B, size, h, w)``."""
        spectrum = torch.fft.rfft(self._count_sketch(first, self.bins_first, self.signs_first), dim=1)
        spectrum = spectrum * torch.fft.rfft(self._count_sketch(second, self.bins_second, self.signs_second), dim=1)
        return torch.fft.irfft(spectrum, n=self.size, dim=1)

    def of_sum(self, products: Tensor) -> Tensor:
        """Outer products ``(B, C, C')``, or any sum of them -> their sketch ``(B, size)``, without a convolution."""
        bins = (self.bins_first[:, None] + self.bins_second) % self.size
        signs = self.signs_first[:, None] * self.signs_second
        empty = products.new_zeros(products.shape[0], self.size)
        return empty.index_add(1, bins.flatten(), (products * signs).flatten(1))

    def _count_sketch(self, features: Tensor, bins: Tensor, signs: Tensor) -> Tensor:
        features = precise(features)
        empty = features.new_zeros(features.shape[0], self.size, *features.shape[2:])
        return empty.index_add(1, bins, features * signs[:, None, None])


def _check_hashes(sketch: TensorSketch, keys: object) -> None:
    """Raise `ValueError` if loaded hashes are not bins and signs: they are indices, which some kernels do not check."""
    for name in ("first", "second"):
        bins, signs = sketch.get_buffer(f"bins_{name}"), sketch.get_buffer(f"signs_{name}")
        if not ((bins >= 0) & (bins < sketch.size)).all():
            raise ValueError(f"bins_{name} of a tensor sketch must be 0 to {sketch.size - 1}")
        if not (signs.abs() == 1).all():
            raise ValueError(f"signs_{name} of a tensor sketch must be 1 or -1")


class CompactBilinear(nn.Module):
    """A tensor sketch at each position, and a 1 × 1 convolution to ``outputs`` channels."""

    def __init__(self, channels: tuple[int, int], outputs: int, size: int) -> None:
        super().__init__()
        self.sketch = TensorSketch(channels, size)
        self.project = nn.Conv2d(size, outputs, 1, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, C', h, w)`` -> ``(B, outputs, h, w)``."""
        return self.project(self.sketch(first, second))


class PositionNorm(nn.Module):
    """Signed square root, L2 norm over the channels, times √channels: the channels' mean square is 1 at each position.

    At unit norm each number would be about 1 / √channels, too little for a recurrent layer to start learning from.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``(B, d, h, w)`` -> same shape, float32 at least."""
        return unit_root(features) * features.shape[1] ** 0.5


class BilinearSum(nn.Module):
    """Σ a ⊗ b over all positions, as a vector.

    Args:
        sketch: Sketch of the sum; None for the whole of it.
    """

    def __init__(self, sketch: TensorSketch | None = None) -> None:
        super().__init__()
        self.sketch = sketch

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, C', h, w)`` -> ``(B, C · C')``, row by row, or ``(B, size)``."""
        device = first.device.type  # "meta" has no autocast
        with torch.autocast(device, enabled=False) if device != "meta" else nullcontext():
            # The sum exceeds half precision's range.
            products = precise(first).flatten(2) @ precise(second).flatten(2).transpose(1, 2)  # (B, C, C')
        return products.flatten(1) if self.sketch is None else self.sketch.of_sum(products)


class LowRankSum(nn.Module):
    """Σ over all positions of `LowRankBilinear`."""

    def __init__(self, bilinear: LowRankBilinear) -> None:
        super().__init__()
        self.bilinear = bilinear

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, C, h, w)`` and ``(B, C', h, w)`` -> ``(B, outputs)``."""
        return self.bilinear(first, second).sum(dim=(2, 3))


class UnitRoot(nn.Module):
    """`unit_root` as a module.

    With `constant_scale`, the values are the same, but each number's factor 1 / √(|x| + ε), divided by the norm, is a
    constant for gradients.
    """

    constant_scale = False

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` -> same shape, float32 at least."""
        root = unit_root(features)
        if not self.constant_scale:
            return root
        features = precise(features)
        scales = (features.abs() + EPSILON).rsqrt()
        norm = (features * scales).norm(dim=1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
        linear = features * (scales / norm).detach()
        return root.detach() + (linear - linear.detach())


def unit_root(features: Tensor) -> Tensor:
    """sign(x) · √(|x| + ε), divided by its L2 norm over the second dimension; float32 at least."""
    features = precise(features)
    root = features.sign() * (features.abs() + EPSILON).sqrt()
    return nn.functional.normalize(root, dim=1)

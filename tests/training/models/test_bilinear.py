import pytest
import torch
from torch import nn

from agnet.training.models.blocks.bilinear import (
    EPSILON,
    BilinearSum,
    CompactBilinear,
    LowRankBilinear,
    LowRankSum,
    PositionNorm,
    TensorSketch,
    unit_root,
)
from agnet.training.models.blocks.common_grid import CommonGrid, resize_map

pytestmark = pytest.mark.usefixtures("one_thread")


def two_maps(first=4, second=3, h=2, w=3, batch=2):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, h, w) for channels in (first, second)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def outer(a, b):
    """Every product of a channel of each at each place: ``(B, C, C', h, w)``."""
    return torch.stack([torch.stack([a[:, c] * b[:, e] for e in range(b.shape[1])], 1) for c in range(a.shape[1])], 1)


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_is_the_outer_product_and_a_linear_layer(rank):
    torch.manual_seed(0)
    (a, b), module = two_maps(), LowRankBilinear((4, 3), 5, rank).double()
    U = module.first.weight[:, :, 0, 0].view(rank, 5, 4)
    V = module.second.weight[:, :, 0, 0].view(rank, 5, 3)
    weight = torch.einsum("rkc,rke->kce", U, V)  # of rank r for each output k
    wanted = torch.einsum("kce,bceij->bkij", weight, outer(a, b))
    torch.testing.assert_close(module(a, b), wanted)
    torch.testing.assert_close(LowRankSum(module)(a, b), wanted.sum(dim=(2, 3)))


def test_a_sketch_is_the_circular_convolution_of_two_count_sketches():
    torch.manual_seed(0)
    (a, b), sketch = two_maps(), TensorSketch((4, 3), 7)
    wanted = a.new_zeros(2, 7, 2, 3)
    for c in range(4):
        for e in range(3):
            place = (int(sketch.bins_first[c]) + int(sketch.bins_second[e])) % 7
            wanted[:, place] += sketch.signs_first[c] * sketch.signs_second[e] * a[:, c] * b[:, e]
    torch.testing.assert_close(sketch(a, b), wanted)
    torch.testing.assert_close(BilinearSum(sketch)(a, b), wanted.sum(dim=(2, 3)))


def test_sketches_have_about_the_inner_products_of_what_they_sketch():
    torch.manual_seed(0)
    a, b = two_maps(20, 30, 1, 1, batch=6)
    full, sketched = BilinearSum()(a, b), BilinearSum(TensorSketch((20, 30), 8192))(a, b)
    scale = full.square().sum(dim=1).mean()
    torch.testing.assert_close(sketched @ sketched.T / scale, full @ full.T / scale, rtol=0, atol=0.1)


def test_a_state_dict_keeps_the_hashes():
    torch.manual_seed(0)
    (a, b), made = two_maps(), CompactBilinear((4, 3), 5, 16).double()
    torch.manual_seed(1)
    other = CompactBilinear((4, 3), 5, 16).double()
    assert not torch.equal(other(a, b), made(a, b))
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(a, b), made(a, b))
    assert made(a, b).shape == (2, 5, 2, 3)


def test_the_sum_of_outer_products_is_that_of_every_place():
    a, b = two_maps()
    torch.testing.assert_close(BilinearSum()(a, b), outer(a, b).sum(dim=(3, 4)).flatten(1))


def test_half_precision_does_not_bound_a_sum():
    a = torch.full((1, 2, 8, 8), 100.0, dtype=torch.float16)
    assert BilinearSum()(a, a).tolist() == [[640_000.0] * 4]
    a, b = (each.float() for each in two_maps())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = BilinearSum()(a, b)
    torch.testing.assert_close(rounded, BilinearSum()(a, b))


def test_a_root_has_its_sign_and_unit_norm():
    values = torch.tensor([[4.0, -9.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([[2.0, -3.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(unit_root(values), wanted / 14**0.5, rtol=0, atol=EPSILON)
    (gradient,) = torch.autograd.grad(unit_root(values)[0, 1], values)
    assert gradient.isfinite().all()
    assert torch.equal(unit_root(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_each_place_has_a_mean_square_of_one():
    a, _ = two_maps(6)
    torch.testing.assert_close(PositionNorm()(a).square().mean(dim=1), a.new_ones(2, 2, 3))
    assert PositionNorm()(a.half()).dtype == torch.float32


# Grids


@pytest.mark.parametrize("size_hw", [(3, 4), (2, 9), (5, 7), (11, 3)])
def test_a_map_is_averaged_where_it_shrinks_and_interpolated_where_it_grows(size_hw):
    features = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = features
    for side in (0, 1):  # one side after the other
        size = tuple(size_hw[k] if k == side else wanted.shape[2 + k] for k in (0, 1))
        if size_hw[side] > features.shape[2 + side]:
            wanted = nn.functional.interpolate(wanted, size, mode="bilinear")
        else:
            wanted = nn.functional.adaptive_avg_pool2d(wanted, size)
    torch.testing.assert_close(resize_map(features, size_hw), wanted)


def test_the_second_grid_follows_the_first():
    a, b = torch.randn(1, 2, 4, 6), torch.randn(1, 3, 2, 2)
    assert CommonGrid()(a, a)[1] is a
    assert [tuple(each.shape[2:]) for each in CommonGrid()(a, b)] == [(4, 6)] * 2
    assert [tuple(each.shape[2:]) for each in CommonGrid(3)(a, b)] == [(3, 3)] * 2
    assert [tuple(each.shape[2:]) for each in CommonGrid(most=24)(a, b)] == [(4, 6)] * 2
    assert [tuple(each.shape[2:]) for each in CommonGrid(most=9)(a, b)] == [(3, 3)] * 2
    shared = CommonGrid(3)(a, a)
    assert shared[0] is shared[1]

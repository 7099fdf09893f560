import math

import pytest
import torch

from agnet.training.models.blocks.fusion import PoolingFusion


def slow_fusion(weight, bias, x):
    """Eq. 4 with loops, for one image of P positions by C channels, in lists."""
    columns = list(zip(*x, strict=True))
    pooled = [[max(column) for column in columns], [sum(column) / len(column) for column in columns]]
    scores = [math.exp(sum(w * p for w, p in zip(weight, each, strict=True)) + bias) for each in pooled]
    return [
        sum(score / sum(scores) * each[c] for score, each in zip(scores, pooled, strict=True))
        for c in range(len(columns))
    ]


@pytest.mark.parametrize("shape", [(1, 49, 6), (3, 49, 6), (2, 1, 4)])
def test_it_is_equation_4(shape):
    torch.manual_seed(0)
    block = PoolingFusion(shape[-1]).double()
    x = torch.randn(shape, dtype=torch.float64)
    got = block(x)
    for image, fused in zip(x, got, strict=True):
        wanted = slow_fusion(block.score.weight[0].tolist(), block.score.bias.item(), image.tolist())
        assert fused.tolist() == pytest.approx(wanted, abs=1e-12)


def test_by_hand():
    # Two positions (0, 4) and (2, 0): maximum (2, 4), mean (1, 2); the scorer (ln 3, 0) prefers the maximum 3 : 1.
    block = PoolingFusion(2)
    with torch.no_grad():
        block.score.weight.copy_(torch.tensor([[math.log(3), 0]]))
    fused = block(torch.tensor([[[0.0, 4], [2, 0]]]))
    assert fused[0].tolist() == pytest.approx([0.75 * 2 + 0.25 * 1, 0.75 * 4 + 0.25 * 2])


@pytest.mark.parametrize(("scale", "pool"), [(1e4, torch.amax), (-1e4, torch.mean)])
def test_a_decided_scorer_takes_one_pooling_alone(scale, pool):
    block = PoolingFusion(5)
    with torch.no_grad():
        block.score.weight.fill_(scale)
    x = torch.rand(2, 49, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(block(x), pool(x, dim=1))


def test_the_scorers_bias_changes_nothing():
    torch.manual_seed(0)
    block, x = PoolingFusion(5).double(), torch.randn(2, 49, 5, dtype=torch.float64)
    before = block(x)
    with torch.no_grad():
        block.score.bias += 3
    assert torch.allclose(block(x), before, rtol=0, atol=1e-12)


def test_equal_positions_come_back():
    torch.manual_seed(0)
    position = torch.randn(2, 1, 5)
    assert torch.allclose(PoolingFusion(5)(position.expand(2, 49, 5)), position[:, 0])


def test_it_begins_near_the_mean_and_the_maximum_has_a_gradient():
    block = PoolingFusion(6).double()
    x = torch.rand(4, 49, 6, dtype=torch.float64) ** 3 * 4  # means of 1, maxima near 4, as of rectified features
    fused, mean, most = block(x), x.mean(dim=1), x.amax(dim=1)
    assert ((fused - mean) / (most - mean)).max() < 0.02
    fused.sum().backward()
    assert (block.score.weight.grad > 1e-3).all()

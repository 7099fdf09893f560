import math

import pytest
import torch

from agnet.training.models.blocks.inter_attention import InterAttention

SHAPES = [(1, 2, 3, 4), (2, 3, 2, 3), (7, 4, 6, 5), (37, 7, 7, 8)]  # tokens N, positions P, channels C, units


def slow_inter_attention(block, tokens, softmax):
    """Eqs. 2 and 3 with loops and α really built, for one image ``(N, P, C)`` -> f̂ ``(P, C)``, and by what factor each
    token comes into it ``(N,)``, as a share of 1.
    """
    N, P, C = tokens.shape
    tokens, D = tokens.flatten(1), P * C
    m = torch.empty(N, N, dtype=tokens.dtype)
    for r in range(N):
        for other in range(N):
            u = torch.tanh(block.query.weight @ tokens[r] + block.key.weight @ tokens[other] + block.query.bias)
            m[r, other] = 1 / (1 + torch.exp(-(block.match.weight[0] @ u + block.match.bias[0])))
        if softmax:
            m[r] = torch.exp(m[r]) / sum(torch.exp(value) for value in m[r])
    alpha = torch.zeros(N, D, dtype=tokens.dtype)
    for r in range(N):
        for other in range(N):
            alpha[r] = alpha[r] + m[r, other] * tokens[other]
    scores = [torch.exp(block.weigh.weight[0] @ alpha[r] + block.weigh.bias[0]) for r in range(N)]
    w = torch.stack([score / sum(scores) for score in scores])
    factors = torch.stack([sum(w[r] * m[r, other] for r in range(N)) for other in range(N)])
    return sum(w[r] * alpha[r] for r in range(N)).view(P, C), factors / sum(factors)


def block_and_tokens(shape, softmax, batch=2):
    torch.manual_seed(0)
    N, P, C, units = shape
    block = InterAttention(N, P * C, units, softmax).double()
    with torch.no_grad():  # away from the start, where all of m is alike
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    return block, torch.randn(batch, N, P, C, dtype=torch.float64)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_alpha_really_built(shape, softmax):
    block, tokens = block_and_tokens(shape, softmax)
    joined, weights = block(tokens)
    slow = [slow_inter_attention(block, image, softmax) for image in tokens]
    slow_joined, slow_weights = (torch.stack(each) for each in zip(*slow, strict=True))
    assert torch.allclose(joined, slow_joined, rtol=0, atol=1e-10)
    assert torch.allclose(weights, slow_weights, rtol=0, atol=1e-10)
    upstream = torch.randn_like(joined)
    got = torch.autograd.grad(joined, list(block.parameters()), upstream)
    wanted = torch.autograd.grad(slow_joined, list(block.parameters()), upstream)
    for ours, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_region_weights_are_the_shares_of_the_tokens_in_the_result():
    """Found without them: seven tokens of 24 numbers make f̂ in one way only."""
    block, tokens = block_and_tokens(SHAPES[2], softmax=False)
    joined, weights = block(tokens)
    mixed = torch.linalg.lstsq(tokens.flatten(2).transpose(1, 2), joined.flatten(1)[..., None]).solution.squeeze(2)
    assert torch.allclose(mixed / mixed.sum(dim=1, keepdim=True), weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("softmax", [False, True])
def test_weights_are_shares(softmax):
    block, tokens = block_and_tokens(SHAPES[2], softmax)
    weights = block(tokens)[1]
    assert weights.shape == (2, 7)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(2).double())


def test_the_bias_of_the_weighting_changes_nothing():
    block, tokens = block_and_tokens(SHAPES[2], softmax=False)
    before = block(tokens)
    with torch.no_grad():
        block.weigh.bias += 3
    for now, then in zip(block(tokens), before, strict=True):
        assert torch.allclose(now, then, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 2, 7, 37])
def test_it_begins_near_the_mean_of_the_tokens(tokens):
    # Whatever u is, |W_m u| stays below units · 1/√units: m within e^±√units of 1/N. With W_m = 0 it is 1/N.
    torch.manual_seed(0)
    block = InterAttention(tokens, 24, 4).double()
    with torch.no_grad():
        share = 1 / (1 + math.exp(-block.match.bias.item()))
        assert share == pytest.approx(1 / tokens, rel=0.02 if tokens == 1 else 1e-6)
        block.match.weight.zero_()
        x = torch.randn(2, tokens, 4, 6, dtype=torch.float64)
        assert torch.allclose(block(x)[0], share * x.sum(dim=1), rtol=0, atol=1e-12)


def test_order_of_tokens_does_not_matter():
    block, tokens = block_and_tokens(SHAPES[2], softmax=False)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    joined, weights = block(tokens)
    shuffled_joined, shuffled_weights = block(tokens[:, order])
    assert torch.allclose(shuffled_joined, joined, rtol=0, atol=1e-10)
    assert torch.allclose(shuffled_weights, weights[:, order], rtol=0, atol=1e-10)


def test_extreme_tokens_stay_finite():
    block = InterAttention(7, 24, 5)
    tokens = 1e4 * torch.randn(2, 7, 4, 6, generator=torch.Generator().manual_seed(0))
    tokens.requires_grad_()
    joined, weights = block(tokens)
    joined.sum().backward()
    assert joined.isfinite().all()
    assert weights.isfinite().all()
    assert tokens.grad.isfinite().all()

import math
from contextlib import nullcontext

import pytest
import torch

from agnet.training.models.blocks.self_attention import SelfAttention
from agnet.training.models.blocks.token_products import plain_formulas

CHANNELS, HEIGHT, WIDTH = 16, 3, 4


def project(weight, bias, x):
    """A 1×1 convolution at one position: lists in, list out."""
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def slow_self_attention(weights, delta, x):
    """Eq. 1 with loops, for one image. ``x`` (C, H, W) -> o (C, H, W), and t as a list of rows i of columns j."""
    C, H, W = x.shape
    positions = [x[:, row, column].tolist() for row in range(H) for column in range(W)]
    f, g, h = ([project(*weights[name], at) for at in positions] for name in "fgh")
    n = len(positions)
    t = [[0.0] * n for _ in range(n)]
    for j in range(n):
        likeness = [math.exp(sum(a * b for a, b in zip(f[i], g[j], strict=True))) for i in range(n)]
        for i in range(n):
            t[i][j] = likeness[i] / sum(likeness)
    o = torch.empty_like(x)
    for j in range(n):
        for c in range(C):
            attended = sum(h[i][c] * t[i][j] for i in range(n))
            o[c, j // W, j % W] = delta * attended + positions[j][c]
    return o, t


def block_and_input(spectral=False, seed=0):
    torch.manual_seed(seed)
    block = SelfAttention(CHANNELS, spectral).double()
    with torch.no_grad():
        block.delta.fill_(0.7)
    return block, torch.randn(2, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64)


def weights_of(block):
    convolutions = {"f": block.f, "g": block.g, "h": block.h}
    return {name: (conv.weight[:, :, 0, 0].tolist(), conv.bias.tolist()) for name, conv in convolutions.items()}


@pytest.mark.parametrize("route", [nullcontext, plain_formulas])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_equation_1(route, layout):
    block, x = block_and_input()
    with torch.no_grad(), route():
        got, attention = block(x.contiguous(memory_format=layout))
    for image in range(len(x)):
        wanted, t = slow_self_attention(weights_of(block), 0.7, x[image])
        assert torch.allclose(got[image], wanted, rtol=0, atol=1e-10)
        received = torch.tensor([sum(row) / len(row) for row in t]).view(HEIGHT, WIDTH)
        assert torch.allclose(attention[image].float(), received, rtol=0, atol=1e-6)


def test_an_eager_cpu_multiplies_all_positions_at_once_with_the_same_gradients():
    block, x = block_and_input()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn(x.shape, dtype=x.dtype)
    shapes = []
    block.h.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))

    def gradients():
        return torch.autograd.grad(block(x)[0], [x, *block.parameters()], upstream)

    got = gradients()
    with plain_formulas():
        wanted = gradients()
    assert shapes == [(1, CHANNELS, len(x) * HEIGHT, WIDTH), tuple(x.shape)]
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_attention_shares_sum_to_one():
    block, x = block_and_input()
    _, attention = block(x)
    assert (attention >= 0).all()
    assert torch.allclose(attention.sum(dim=(1, 2)), torch.ones(2).double())


def test_it_begins_as_the_identity_and_can_learn_its_way_out():
    torch.manual_seed(0)
    block = SelfAttention(CHANNELS)
    x = torch.randn(2, CHANNELS, HEIGHT, WIDTH)
    o, _ = block(x)
    assert torch.equal(o, x)
    (o * torch.randn(o.shape)).sum().backward()
    assert block.delta.grad != 0
    for conv in (block.f, block.g, block.h):
        assert not conv.weight.grad.any()


def test_permuted_positions_give_permuted_results():
    block, x = block_and_input()
    order = torch.randperm(HEIGHT * WIDTH)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    assert torch.allclose(block(shuffled)[0].flatten(2), block(x)[0].flatten(2)[:, :, order])


def test_spectral_norm_divides_by_the_largest_singular_value():
    block, x = block_and_input(spectral=True)
    raw = {name: getattr(block, name).parametrizations.weight.original.detach() for name in "fgh"}
    with torch.no_grad():
        for _ in range(300):  # one power iteration each
            block(x)
    block.eval()
    biases = {name: getattr(block, name).bias.tolist() for name in "fgh"}
    normalised = {
        name: ((weight[:, :, 0, 0] / torch.linalg.svdvals(weight[:, :, 0, 0])[0]).tolist(), biases[name])
        for name, weight in raw.items()
    }
    with torch.no_grad():
        got, _ = block(x)
        again, _ = block(x)
    assert torch.equal(got, again)
    assert torch.allclose(got[1], slow_self_attention(normalised, 0.7, x[1])[0], rtol=0, atol=1e-6)


def test_gradients_under_spectral_norm_are_the_numerical_ones():
    block, x = block_and_input(spectral=True)
    block.eval()
    names, parameters = zip(*block.named_parameters(), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), x)

    torch.manual_seed(1)
    assert torch.autograd.gradcheck(run, (x[:1, :, :2, :2].clone().requires_grad_(), *parameters), fast_mode=True)

"""An eager CPU's own routes against the plain formulas, which everything else takes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.blocks import region_pooling as pooling
from agnet.training.models.blocks.token_products import (
    gather,
    on_eager_cpu,
    plain_formulas,
    project,
    scale,
    weighted_sum,
)
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from factories import images_and_regions, small_model

B, N, P, C, K = 3, 5, 4, 6, 2


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


# name -> the route, the formula, the shapes of what goes in
PRODUCTS = {
    "scale": (scale, lambda x, g: x * g[:, :, None], [(B, N, P, C), (B, N, C)]),
    "project": (lambda x, w: project(x, w)[0], lambda x, w: x.flatten(2) @ w.T, [(B, N, P, C), (K, P * C)]),
    "weighted sum": (weighted_sum, lambda s, x: (s[:, :, None, None] * x).sum(dim=1), [(B, N), (B, N, P, C)]),
    "all three": (
        lambda x, g, w: (lambda p, t: weighted_sum(p.mean(dim=2), t))(*project(scale(x, g), w)),
        lambda x, g, w: torch.einsum(
            "bn,bnpc->bpc", ((x * g[:, :, None]).flatten(2) @ w.T).mean(dim=2), x * g[:, :, None]
        ),
        [(B, N, P, C), (B, N, C), (K, P * C)],
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_values_and_gradients_are_those_of_the_formula(name, dtype, tolerance):
    route, formula, shapes = PRODUCTS[name]
    inputs = [numbers(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
    got, wanted = route(*inputs), formula(*inputs)
    assert type(got.grad_fn) is not type(wanted.grad_fn)  # or the formula were compared with itself
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)
    upstream = numbers(*wanted.shape, seed=9, dtype=dtype).detach()
    for one, other in zip(
        torch.autograd.grad(got, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_are_the_numerical_ones(name):
    route, _, shapes = PRODUCTS[name]
    assert torch.autograd.gradcheck(route, [numbers(*shape, seed=seed) for seed, shape in enumerate(shapes)])


@pytest.mark.parametrize("name", PRODUCTS)
def test_where_the_routes_are_closed_the_formula_is_taken(name):
    route, formula, shapes = PRODUCTS[name]
    inputs = [numbers(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    with_route = route(*inputs)
    with plain_formulas():
        without = route(*inputs)
    assert "Function" not in type(without.grad_fn).__name__ and type(without.grad_fn) is not type(with_route.grad_fn)
    torch.testing.assert_close(without, formula(*inputs), rtol=0, atol=1e-12)


def test_tokens_are_overwritten_only_when_allowed_and_nothing_learns():
    gates = numbers(B, N, C, seed=1).detach()
    for inplace, learning in ((False, False), (False, True), (True, True), (True, False)):
        tokens = numbers(B, N, P, C).detach()
        before = tokens.clone()
        with torch.set_grad_enabled(learning):
            scaled = scale(tokens, gates, inplace)
        torch.testing.assert_close(scaled, before * gates[:, :, None], rtol=0, atol=0)
        assert torch.equal(tokens, before) != (inplace and not learning)


def test_gathering_is_a_weighted_sum_of_rows():
    table, shares = numbers(7, C), numbers(2, 3, K, seed=1)
    rows = torch.tensor([[[0, 6], [2, 2], [5, 1]], [[3, 3], [4, 0], [6, 5]]])
    wanted = (shares[..., None] * table[rows]).sum(dim=-2)
    torch.testing.assert_close(gather(table, rows, shares), wanted, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda table, shares: gather(table, rows, shares), [table, shares])


@pytest.mark.parametrize("size_hw", [(7, 7), (5, 9), (14, 14)])
@pytest.mark.parametrize("samples", [1, 2])
def test_region_pooling_gathers_what_it_would_multiply(size_hw, samples):
    generator = torch.Generator().manual_seed(0)
    features = numbers(2, 3, *size_hw)
    boxes = 1.6 * torch.rand(2, 20, 2, 2, generator=generator, dtype=torch.float64).sort(dim=2).values.flatten(2) - 0.3
    gathered = pooling.region_pooling(features, boxes, samples=samples)
    assert "EmbeddingBag" in str(graph_of(gathered))
    with plain_formulas():
        multiplied = pooling.region_pooling(features, boxes, samples=samples)
    assert "EmbeddingBag" not in str(graph_of(multiplied))
    torch.testing.assert_close(gathered, multiplied, rtol=0, atol=1e-12)


def graph_of(tensor):
    """The names of the nodes that lead to a tensor."""
    nodes, found = [tensor.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in found:
            found.add(node)
            nodes += [parent for parent, _ in node.next_functions]
    return {node.name() for node in found}


def test_only_an_eager_cpu_in_single_or_double_precision_has_routes_of_its_own():
    x = torch.zeros(1)
    assert on_eager_cpu(x) and on_eager_cpu(x.double())
    assert not on_eager_cpu(x.bfloat16()) and not on_eager_cpu(x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):  # products of float32 come in bfloat16 here
        assert not on_eager_cpu(x)
    assert torch.compile(lambda x: x + on_eager_cpu(x), backend="eager", fullgraph=True)(x) == 0


def test_transforms_of_torch_func_work():
    network, (images, boxes) = small_model(), images_and_regions(2)
    names, weights = zip(*network.named_parameters(), strict=True)

    def total(*weights):
        state = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(network, state, (images, boxes)).logits.square().sum()

    wanted = torch.autograd.grad(total(*weights), weights)
    for one, other in zip(torch.func.grad(total, tuple(range(len(names))))(*weights), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    one_by_one = torch.func.vmap(lambda image, box: network(image[None], box[None]).logits[0])(images, boxes)
    torch.testing.assert_close(one_by_one, network(images, boxes).logits, rtol=0, atol=1e-12)


def test_second_derivatives_need_the_plain_formulas():
    network, (images, boxes) = small_model(), images_and_regions(2)
    images.requires_grad_()

    def slope():
        return torch.autograd.grad(network(images, boxes).logits.sum(), images, create_graph=True)[0].square().sum()

    with pytest.raises(RuntimeError):
        slope().backward()
    with plain_formulas():
        assert torch.autograd.grad(slope(), images)[0].abs().max() > 0
    assert on_eager_cpu(images)  # open again


class Allocations(TorchDispatchMode):
    """Counts the tensors of at least ``floor`` numbers that operators make, views and tensors written to aside."""

    def __init__(self, floor):
        super().__init__()
        self.floor, self.found = floor, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if torch.is_tensor(each)}
        result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if torch.is_tensor(each) and each.numel() >= self.floor and each.untyped_storage().data_ptr() not in before:
                self.found.append((str(function), tuple(each.shape)))
        return result


@pytest.mark.parametrize(("learning", "made"), [(False, 1), (True, 5)])
def test_nothing_is_larger_than_the_tokens_and_few_tensors_are_as_large(learning, made):
    # Training: pooled, scaled, and the gradients of the pooled, of the projected and of the summed ones.
    size = 2 * 37 * 49 * 64
    model = assemble(ModelSettings(classes=3), Backbone(torch.nn.Conv2d(3, 64, 32, 32), 64)).train(learning)
    regions = torch.rand(2, 36, 2, 2).sort(dim=2).values.flatten(2)
    images = torch.randn(2, 3, 224, 224)
    with torch.set_grad_enabled(learning), Allocations(size) as allocations:
        logits = model(images, regions).logits
        if learning:
            logits.sum().backward()
    found = [(function, shape) for function, shape in allocations.found if shape != images.shape]  # normalised pixels
    assert {shape for _, shape in found} <= {(2, 37, 49, 64), (2 * 37 * 49, 64), (2 * 37, 64, 49, 1)}
    assert len(found) == made, found

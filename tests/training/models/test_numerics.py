"""What the numbers must keep to, however they are computed: by hand, compiled, exported, in half the bits, again."""

import copy
import shutil
import sysconfig
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from agnet.training.models.backbones.backbone import Backbone, build_backbone
from agnet.training.models.blocks.fusion import Pooling
from agnet.training.models.blocks.inter_attention import TokenMean
from agnet.training.models.blocks.last_map import LastMap
from agnet.training.models.blocks.region_pooling import region_pooling
from agnet.training.models.blocks.se_residual import SEResidual
from agnet.training.models.blocks.self_attention import SelfAttention
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from factories import call, images_and_regions, small_model

pytestmark = pytest.mark.usefixtures("one_thread")

WITHOUT_ATTENTION = {"self_attention": False, "inter_attention": False, "fusion": "mean"}
OTHERWISE = {"se": "shared", "fusion": "max", "pooling_samples": 2, "attention_softmax": True}
ALONE, CROPS = {"use_regions": False}, {"pooling": "crop"}
VARIANTS = [{}, {"spectral_norm": True}, WITHOUT_ATTENTION | {"se": "none"}, OTHERWISE, ALONE, CROPS]

# A bias that shifts all the scores of one softmax alike: its gradient is 0 but for rounding.
CANCELLED = {"self_attention.f.bias", "inter_attention.weigh.bias", "fusion.score.bias"}


def normed_body():
    """Its batch norm sees to it that training is something else than evaluation, and must be kept up to date."""
    return nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.BatchNorm2d(16), nn.ReLU())


def gradients(model, images, regions):
    """The outputs, and the gradient of one number made of all of them, by parameter; None where it needs none."""
    output = call(model, images, regions)
    parts = [part for part in output if part is not None]
    number = sum((part * torch.linspace(-1, 1, part.numel()).to(part).view_as(part)).sum() for part in parts)
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(number, parameters, allow_unused=True)
    return output, dict(zip(names, found, strict=True))


def assert_close(got, wanted, tolerance):
    """Outputs or gradients by name: to ``tolerance`` of each one's largest value, or of 1 where that is less."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if value is None:
            assert got[name] is None, name
        else:
            error = (got[name].double() - value.double()).abs().max()
            assert error <= tolerance * value.abs().max().clamp(min=1), (name, error)


# Gradients


BLOCKS = {
    "maximum": (lambda: Pooling("max"), (2, 4, 6)),
    "mean": (lambda: Pooling("mean"), (2, 4, 6)),
    "mean of tokens": (TokenMean, (2, 3, 8)),
    "shared gate": (lambda: SEResidual(1, 8, 4), (2, 3, 4, 8)),
    "spectral norm": (lambda: SelfAttention(8, spectral=True), (2, 8, 2, 3)),
    "one position": (lambda: SelfAttention(8), (2, 8, 1, 1)),
    "map resized": (LastMap, (2, 2, 5, 9)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_blocks_are_the_numerical_ones(name):
    build, shape = BLOCKS[name]
    torch.manual_seed(0)
    block = build().double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    names = [name for name, _ in block.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), x)

    assert gradcheck(run, (torch.randn(shape, dtype=torch.float64, requires_grad=True), *block.parameters()))


BOXES = {
    "ordinary": [0.1, 0.3, 0.6, 0.9],
    "full frame": [0, 0, 1, 1],
    "point": [0.4, 0.7, 0.4, 0.7],
    "line": [0.2, 0.5, 0.9, 0.5],
    "leaving the frame": [-0.6, 0.4, 0.5, 1.7],
    "far outside": [3, 3, 4, 4],
    "turned": [0.8, 0.9, 0.2, 0.1],
}


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_region_pooling_are_the_numerical_ones_wherever_boxes_lie(samples, memory_format):
    regions = torch.tensor([list(BOXES.values())] * 2, dtype=torch.float64)
    regions[1] += 0.03
    features = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = features.contiguous(memory_format=memory_format).requires_grad_()
    assert gradcheck(lambda x: region_pooling(x, regions, 3, samples), features)
    seen = [torch.autograd.grad(region_pooling(features, regions, 3, samples)[:, n].sum(), features)[0] for n in (0, 5)]
    assert seen[0].any() and not seen[1].any()  # of an ordinary box, and of one far outside


@pytest.mark.parametrize("changes", VARIANTS)
def test_gradients_of_the_whole_network_are_the_numerical_ones(changes):
    model = small_model(lambda: nn.Conv2d(3, 8, 2, stride=2), 8, regions=2, **changes)
    images, regions = images_and_regions(2, 2, side=14)
    names = [name for name, _ in model.named_parameters()]

    def run(images, *parameters):
        output = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (images, regions))
        return tuple(part for part in output if part is not None and part.requires_grad)

    # Each input's Jacobian between two random vectors: there are thousands of parameters.
    assert gradcheck(run, (images.requires_grad_(), *model.parameters()), fast_mode=True)


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_single_precision_gives_the_numbers_of_double(changes, memory_format):
    model, (images, regions) = small_model(**changes), images_and_regions()
    wanted, slopes = gradients(model, images, regions)
    images = images.float().contiguous(memory_format=memory_format)
    got, single = gradients(model.float(), images, regions.float())
    assert got.logits.dtype == torch.float32
    assert_close(got._asdict(), wanted._asdict(), 1e-5)
    assert_close(single, slopes, 1e-5)


def test_the_gradient_of_a_batch_is_the_sum_of_its_images():
    model = small_model().train()
    images, regions = images_and_regions()
    labels = torch.tensor([0, 2, 1])
    together = torch.autograd.grad(
        cross_entropy(model(images, regions).logits, labels, reduction="sum"), list(model.parameters())
    )
    alone = [
        torch.autograd.grad(
            cross_entropy(model(images[n : n + 1], regions[n : n + 1]).logits, labels[n : n + 1]),
            list(model.parameters()),
        )
        for n in range(3)
    ]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.allclose(whole, sum(parts), rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", [*VARIANTS, {"model": "plain"}])
def test_without_gradients_the_numbers_are_the_same_and_inputs_are_left_alone(changes):
    model, (images, regions) = small_model(**changes), images_and_regions()
    before = images.clone(), regions.clone()
    wanted = call(model, images, regions)._asdict()
    with torch.no_grad():
        for _ in range(2):
            got = call(model, images, regions)._asdict()
            assert_close(got, wanted, 1e-12)
    assert torch.equal(images, before[0]) and torch.equal(regions, before[1])


# Compiled and exported


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of what it compiles with
        yield
    torch._dynamo.reset()


def assert_same_network(first, second, batches, tolerance):
    for images, regions in batches:
        wanted, slopes = gradients(first, images, regions)
        got, others = gradients(second, images, regions)
        assert_close(got._asdict(), wanted._asdict(), tolerance)
        assert_close({name.removeprefix("_orig_mod."): value for name, value in others.items()}, slopes, tolerance)


@pytest.mark.parametrize(
    ("changes", "training", "side"),
    [
        ({}, True, 56),
        ({"model": "plain"}, True, 40),  # a map of 5 × 5, resized
    ],
)
def test_compiled_is_eager_whole_and_for_any_batch(fresh_compiler, changes, training, side):
    eager = small_model(normed_body, **changes).train(training)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend=backend)  # refuses graph breaks
    assert_same_network(eager, compiled, [images_and_regions(n, side=side, seed=n) for n in (2, 3, 5)], 1e-10)
    assert 1 <= len(graphs) <= 2  # once for the first batch, once for any
    for name, value in compiled.state_dict().items():
        assert torch.allclose(value, eager.state_dict()[name.removeprefix("_orig_mod.")]), name


COMPILER = shutil.which("g++") or shutil.which("clang++")
HEADERS = Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.skipif(not (COMPILER and HEADERS), reason="inductor needs a C++ compiler and Python's headers")
def test_fused_kernels_give_the_numbers_of_eager(fresh_compiler, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    eager = small_model(dtype=torch.float32, se="none", fusion="max")  # each part takes seconds to compile
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, dynamic=False)
    with torch.no_grad():
        wanted, got = (model(*images_and_regions(dtype=torch.float32)) for model in (eager, compiled))
    assert_close(got._asdict(), wanted._asdict(), 1e-5)


@pytest.mark.parametrize(
    ("changes", "side"), [({"spectral_norm": True}, 40), (OTHERWISE, 56), ({"model": "plain"}, 56)]
)
def test_exported_is_eager_for_any_batch(fresh_compiler, changes, side):
    eager = small_model(normed_body, **changes)
    taken = len(eager.inputs)
    dynamic = {name: {0: torch.export.Dim("batch")} for name in eager.inputs}
    exported = torch.export.export(eager, images_and_regions(2, side=side)[:taken], dynamic_shapes=dynamic).module()
    with torch.no_grad():
        for count in (2, 3, 7):
            inputs = images_and_regions(count, side=side, seed=count)[:taken]
            wanted, got = eager(*inputs), exported(*inputs)
            assert type(got) is type(wanted)
            assert_close(got._asdict(), wanted._asdict(), 1e-12)


# Half the bits


@pytest.mark.parametrize("delta", [0.7])
def test_bfloat16_stays_within_its_bounds_of_float32(delta):
    """A head of ResNet-50's size; bfloat16 has 8 bits, 0.4 %. The bounds are two to four times what was measured."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 2048, 8, stride=8), nn.ReLU())
    model = assemble(ModelSettings(classes=40), Backbone(body, 2048))
    nn.init.constant_(model.self_attention.delta, delta)
    nn.init.uniform_(model.se_residual.excite, -(128**-0.5), 128**-0.5)  # even gates would hide the squeezing
    nn.init.uniform_(model.fusion.score.weight, -(2048**-0.5), 2048**-0.5)  # nearly decided, it has hardly a gradient
    images, regions = images_and_regions(4, 36, dtype=torch.float32)
    images = 57 * images + 118  # pixels that are about as large as before once they are normalised
    outputs, slopes = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs.append(model(images, regions))
        model.zero_grad()
        cross_entropy(outputs[-1].logits.float(), torch.arange(4)).backward()
        slopes.append({name: parameter.grad.flatten().clone() for name, parameter in model.named_parameters()})
    full, half = outputs
    assert half.logits.dtype == torch.bfloat16
    bounds = {"logits": 0.03, "embedding": 0.03, "region_weights": 0.005, "attention_map": 0.015}
    for name, bound in bounds.items():
        wanted, got = getattr(full, name), getattr(half, name).float()
        assert (got - wanted).abs().max() < bound * wanted.abs().max(), name
    assert (full.logits.softmax(dim=1) - half.logits.float().softmax(dim=1)).abs().max() < 1e-3
    # With δ = 0 nothing reaches the self-attention's projections.
    silent = CANCELLED | {name for name, slope in slopes[0].items() if not slope.any()}
    assert len(silent) == (9 if delta == 0 else 3) - (delta == 0)
    for name, wanted in slopes[0].items():
        if name not in silent:
            got = slopes[1][name]
            # The gradient of the scores is a small difference of large numbers: 0.99 with AVX-512, 0.95 with SSE, 0.83
            # with AVX-512's own bfloat16 products.
            assert cosine_similarity(wanted, got, dim=0) > (0.7 if name == "fusion.score.weight" else 0.99), name
            assert 0.8 < got.norm() / wanted.norm() < 1.25, name
    every, other = (torch.cat(list(each.values())) for each in slopes)
    assert cosine_similarity(every, other, dim=0) > 0.9995
    assert 0.98 < other.norm() / every.norm() < 1.02


def test_bfloat16_does_not_move_the_boxes():
    """Bfloat16's 0.5 and 0.504 are neighbours: boxes rounded to it would be 0.014 cells off."""
    ramp = (torch.arange(7.0) - 3).expand(1, 1, 7, 7)  # exact in bfloat16, and 0 where the boxes are
    x = torch.linspace(0.5, 0.57, 71)
    boxes = torch.stack([x, torch.full_like(x, 0.2), x, torch.full_like(x, 0.4)], dim=1)[None]
    with torch.autocast("cpu", torch.bfloat16):
        pooled = region_pooling(ramp, boxes)
    assert torch.allclose(pooled[0, :, :, 0].float(), (7 * x - 3.5)[:, None].expand(-1, 49), rtol=0, atol=0.005)


# Small numbers of things


def test_one_class_has_nothing_to_learn():
    model, (images, regions) = small_model(classes=1).train(), images_and_regions()
    loss = cross_entropy(model(images, regions).logits, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert not any(parameter.grad.any() for parameter in model.parameters())


def test_two_classes_learn_from_one_difference():
    """Softmax of two scores is the logistic function of their difference."""
    model, (images, regions) = small_model(classes=2).train(), images_and_regions()
    labels = torch.tensor([0, 1, 1])
    logits = model(images, regions).logits
    cross_entropy(logits, labels).backward()
    margin = (logits[:, 0] - logits[:, 1]).detach()
    slope = (torch.sigmoid(margin) - torch.tensor([1.0, 0, 0])) / 3
    assert torch.allclose(model.classifier.bias.grad, torch.stack([slope.sum(), -slope.sum()]), rtol=0, atol=1e-12)
    assert torch.allclose(model.classifier.weight.grad[0], -model.classifier.weight.grad[1], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("changes", [*VARIANTS, {"model": "plain"}])
def test_no_images_give_no_outputs(changes):
    images, regions = images_and_regions(2)
    model = small_model(**changes)
    none, some = call(model, images[:0], regions[:0]), call(model, images, regions)
    for empty, full in zip(none, some, strict=True):
        assert (empty is None) == (full is None)
        assert empty is None or empty.shape == (0, *full.shape[1:])


SIZES_HW = [(96, 96), (160, 160), (225, 225), (299, 299), (448, 448), (224, 320)]


@pytest.fixture(scope="module")
def with_backbone(one_thread):
    """AG-Net on a named backbone, built once."""
    built = {}

    def build(name):
        if name not in built:
            torch.manual_seed(0)
            settings = ModelSettings(5, 3, backbone=name)
            built[name] = assemble(settings, build_backbone(name))
        return built[name]

    return build


@torch.no_grad()
@pytest.mark.parametrize("size_hw", SIZES_HW)
@pytest.mark.parametrize("name", ["mobilenet-v3-small", "inception-v3", "nasnet-mobile"])
def test_images_of_other_sizes_and_shapes_work(with_backbone, name, size_hw):
    model = with_backbone(name).train()  # random weights need their batch norms
    images = torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(0))
    images[1] += torch.linspace(-2, 2, size_hw[1])
    _, regions = images_and_regions(1, 3, dtype=torch.float32)
    output = model(images, regions.expand(2, 3, 4))
    assert output.logits.shape == (2, 5) and output.attention_map.shape == (2, 7, 7)
    assert all(part.isfinite().all() for part in output if part is not None)
    assert output.region_weights.sum(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    one, other = output.embedding
    assert (one - other).abs().max() > 0.01 * one.abs().max()  # and it is the image that is seen


@torch.no_grad()
@pytest.mark.parametrize("size_hw", [(1, 1), (8, 8), (1, 224)])
@pytest.mark.parametrize("name", ["mobilenet-v3-small", "densenet121", "inception-v3", "nasnet-mobile"])
def test_tiny_images_work_or_the_size_is_what_the_error_names(with_backbone, name, size_hw):
    try:
        output = with_backbone(name).eval()(torch.ones(1, 3, *size_hw), torch.zeros(1, 3, 4))
    except (RuntimeError, ValueError) as error:
        assert "size" in str(error) and len(str(error).splitlines()) == 1
    else:
        assert output.logits.isfinite().all()


def test_a_real_backbone_trains_on_one_image_at_a_time(with_backbone):
    model = copy.deepcopy(with_backbone("mobilenet-v3-small")).train()
    images, regions = images_and_regions(1, 3, 224, torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        loss = cross_entropy(model(images, regions).logits, torch.tensor([3]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# Again, and beside others


def trained(seed, **changes):
    """A state dict after some steps, in single precision, large enough to be shared out between threads."""

    def body():
        first, second = nn.Conv2d(3, 32, 4, stride=4), nn.Conv2d(32, 256, 2, stride=2)
        return nn.Sequential(first, nn.BatchNorm2d(32), nn.ReLU(), second)

    model = small_model(body, 256, torch.float32, **changes).train()
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        images, corners = torch.randn(8, 3, 56, 56), torch.rand(8, 4, 2, 2)
        loss = cross_entropy(model(images, corners.sort(dim=2).values.flatten(2)).logits, torch.randint(3, (8,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize(("threads", "changes"), [(1, {}), (1, {"spectral_norm": True} | OTHERWISE), (2, {})])
def test_training_again_gives_the_same_bits(threads, changes):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, again, other = trained(5, **changes), trained(5, **changes), trained(6, **changes)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


# Of the operations that `torch.use_deterministic_algorithms` lists as not deterministic on CUDA, those that a network
# of ours could come to use. (Indexing and convolutions have deterministic kernels, which that switch chooses.)
NOT_DETERMINISTIC_ON_CUDA = {
    "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward",
    "upsample_nearest2d_backward",
    "grid_sampler_2d_backward",
    "roi_align",
    "_roi_align_backward",
    "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool2d_backward",
    "max_pool2d_with_indices_backward",
    "max_unpool2d",
    "reflection_pad2d_backward",
    "replication_pad2d_backward",
    "nll_loss2d_forward",
    "_embedding_bag",
    "scatter_add",
    "scatter_add_",
    "scatter_reduce",
    "index_add",
    "index_add_",
    "index_put_",
    "put_",
    "index_reduce",
    "histc",
    "bincount",
    "kthvalue",
    "median",
    "cumsum",
}


class Operations(TorchDispatchMode):
    """The names of all operations carried out, backward's too."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*arguments, **(keywords or {}))


def operations(model, images, regions):
    with Operations() as recorded:
        gradients(model, images, regions)
    return recorded.names


@pytest.mark.parametrize("side", [56, 40])  # maps of 7 × 7 and of 5 × 5
@pytest.mark.parametrize("changes", [*VARIANTS, {"fusion": "max"}])
def test_no_operation_of_the_head_is_left_to_chance_on_a_gpu(changes, side):
    # On the meta device, where nothing is computed: a CPU has routes of its own.
    images, regions = (each.to("meta") for each in images_and_regions(side=side))
    names = operations(small_model(**changes).train().to("meta"), images, regions)
    assert "convolution_backward" in names  # backward is on record
    assert not names & NOT_DETERMINISTIC_ON_CUDA


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_network_runs_where_only_deterministic_algorithms_are_allowed(changes):
    allowed = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        _, slopes = gradients(small_model(normed_body, **changes).train(), *images_and_regions())
    finally:
        torch.use_deterministic_algorithms(allowed)
    assert slopes["backbone.body.0.weight"].any()


@torch.no_grad()
@pytest.mark.parametrize("changes", [*VARIANTS, {"model": "plain"}])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["an image", "a pixel", "its regions"])
def test_an_image_that_is_no_number_spoils_only_itself(changes, value, where):
    model = small_model(normed_body, **changes)
    images, regions = images_and_regions()
    wanted = call(model, images, regions)
    match where:
        case "an image":
            images[1] = value
        case "a pixel":
            images[1, 0, 20, 20] = value
        case "its regions":
            regions[1] = value
    got = call(model, images, regions)
    for ours, clean in zip(got, wanted, strict=True):
        if clean is not None:
            assert torch.allclose(ours[[0, 2]], clean[[0, 2]], rtol=0, atol=1e-12)
    looked_at = changes.get("use_regions", True) and changes.get("model") != "plain"
    if where != "its regions" or looked_at:
        assert not torch.allclose(got.logits[1], wanted.logits[1], equal_nan=True)

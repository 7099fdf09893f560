from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.ops import roi_align

from agnet.training.models.blocks.region_pooling import crop_pooling, region_pooling
from agnet.training.models.blocks.token_products import plain_formulas

SIZES_HW = [(7, 7), (5, 9), (1, 1)]


def with_roi_align(features, boxes_xyxy, size=7):
    """torchvision's RoIAlign of the same boxes, as ``(B, R, S·S, C)``."""
    _, _, H, W = features.shape
    boxes = [each * each.new_tensor([W, H, W, H]) for each in boxes_xyxy]
    pooled = roi_align(features, boxes, size, sampling_ratio=1, aligned=True)  # (B·R, C, S, S)
    return pooled.flatten(2).transpose(1, 2).unflatten(0, boxes_xyxy.shape[:2])


def sorted_boxes(corners):
    """Any two corners ``(..., 2, 2)`` -> boxes xyxy ``(..., 4)``."""
    return corners.sort(dim=-2).values.flatten(-2)


def random_boxes(generator):
    return sorted_boxes(torch.rand(2, 20, 2, 2, generator=generator, dtype=torch.float64))


def tiny_boxes(generator):
    low = torch.rand(2, 20, 2, generator=generator, dtype=torch.float64)
    return torch.cat([low, low + 1e-3 * torch.rand(low.shape, generator=generator, dtype=torch.float64)], dim=2)


def huge_boxes(generator):
    return random_boxes(generator) * torch.tensor([4.0, 4, 4, 4]).double() + torch.tensor([-3.0, -3, 0, 0]).double()


def border_boxes(generator):
    boxes = random_boxes(generator)
    for number in range(20):
        boxes[:, number, number % 4] = float(number % 4 >= 2)
    return boxes


def zero_area_boxes(generator):
    low = 0.7 * torch.rand(2, 20, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([low, low], dim=2)
    boxes[:, :5, 2] += 0.3  # a horizontal line
    boxes[:, 5:10, 3] += 0.3  # a vertical one
    return boxes


def far_boxes(generator):
    return random_boxes(generator) + torch.tensor([-3.0, 2.5, -3.0, 2.5], dtype=torch.float64)


def turned_boxes(generator):
    """Corners in the wrong order: RoIAlign reads these mirrored."""
    return random_boxes(generator)[..., [2, 1, 0, 3]]


KINDS = [random_boxes, tiny_boxes, huge_boxes, border_boxes, zero_area_boxes, far_boxes, turned_boxes]


@pytest.mark.parametrize("size_hw", SIZES_HW)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("route", [nullcontext, plain_formulas])
def test_values_and_gradients_are_those_of_roi_align(kind, size_hw, dtype, tolerance, route):
    generator = torch.Generator().manual_seed(0)
    boxes = kind(generator).to(dtype)
    ours = torch.randn(2, 3, *size_hw, generator=generator, dtype=dtype, requires_grad=True)
    theirs = ours.detach().double().requires_grad_()  # rounded to float32, theirs is off by nearly as much itself
    with route():
        got = region_pooling(ours, boxes)
    wanted = with_roi_align(theirs, boxes.double())
    assert got.shape == (2, 20, 49, 3)
    assert torch.allclose(got.double(), wanted, rtol=0, atol=tolerance)
    upstream = torch.randn(wanted.shape, generator=generator, dtype=dtype) / 20
    got.backward(upstream)
    wanted.backward(upstream.double())
    assert torch.allclose(ours.grad.double(), theirs.grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", [zero_area_boxes, border_boxes, tiny_boxes])
def test_boxes_within_the_frame_see_something_and_far_ones_nothing(kind):
    generator = torch.Generator().manual_seed(1)
    ones = torch.ones(2, 1, 7, 7, dtype=torch.float64)
    assert torch.allclose(region_pooling(ones, kind(generator)), torch.ones(2, 20, 49, 1).double())
    assert not region_pooling(ones, far_boxes(generator)).any()


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_other_grids(size):
    generator = torch.Generator().manual_seed(2)
    features, boxes = torch.randn(2, 3, 7, 7, generator=generator).double(), random_boxes(generator)
    wanted = with_roi_align(features, boxes, size)
    assert torch.allclose(region_pooling(features, boxes, size), wanted, rtol=0, atol=1e-10)


def test_a_linear_map_is_sampled_at_the_middle_of_each_bin():
    # Bilinear sampling of x + 10 y gives x + 10 y: cells 2 to 5 by 3 to 4, in bins of 3/7 by 1/7.
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    box = torch.tensor([[[2 / 7, 3 / 7, 5 / 7, 4 / 7]]])
    middles = [(i + 0.5) / 7 for i in range(7)]
    wanted = [(2 + 3 * column - 0.5) + 10 * (3 + row - 0.5) for row in middles for column in middles]
    assert region_pooling((x + 10 * y)[None, None], box)[0, 0, :, 0].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ([0, 0, 1, 1], 2.5),  # the middle of all four cells
        ([0, 0, 0.5, 0.5], 1),  # the middle of the first cell
        ([0.5, 0.5, 1, 1], 4),
        ([0.25, 0.5, 1, 0.5], 2.75),  # a quarter of a cell right of the middle
        ([0.9, 0.9, 0.9, 0.9], 4),  # between the last cell's middle and the border: its value
        ([-0.4, 0.25, 0, 0.25], 1),  # less than a cell beyond the first middle: still its value
        ([-0.8, 0.25, 0, 0.25], 0),  # more than a cell
    ],
)
def test_two_by_two_cells_by_hand(box, wanted):
    features = torch.tensor([[[[1.0, 2], [3, 4]]]])
    assert region_pooling(features, torch.tensor([[box]]).float(), size=1).item() == pytest.approx(wanted, abs=1e-6)


def test_the_full_frame_of_a_seven_by_seven_map_is_the_map():
    features = torch.randn(2, 5, 7, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pooled = region_pooling(features, torch.tensor([[[0.0, 0, 1, 1]]] * 2, dtype=torch.float64))
    for row in range(7):
        for column in range(7):
            assert torch.allclose(pooled[:, 0, 7 * row + column], features[:, :, row, column], rtol=0, atol=1e-12)


def test_coarse_features_do_not_move_the_boxes():
    ramp = torch.arange(7.0).expand(1, 1, 7, 7)  # exact in bfloat16, as the result is to 1 in 2⁸
    boxes = torch.tensor([[[x, 0.2, x + 0.004, 0.4] for x in torch.linspace(0.5, 0.9, 50).tolist()]])
    got = region_pooling(ramp.bfloat16(), boxes)
    assert got.dtype == torch.bfloat16
    assert torch.allclose(got.float(), with_roi_align(ramp, boxes), rtol=2**-7, atol=0)


def test_no_boxes_give_no_regions():
    assert region_pooling(torch.ones(2, 3, 7, 7), torch.zeros(2, 0, 4)).shape == (2, 0, 49, 3)


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 2, 4), (2, 4, 5), (2, 4), (2, 4, 4, 1)])
def test_boxes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(2, R, 4\)"):
        region_pooling(torch.ones(2, 3, 7, 7), torch.zeros(shape))


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_several_samples_a_bin_are_roi_aligns_sampling_ratio(kind, samples):
    generator = torch.Generator().manual_seed(5)
    features, boxes = torch.randn(2, 3, 7, 7, generator=generator, dtype=torch.float64), kind(generator)
    if kind is turned_boxes:  # RoIAlign of several samples reads these differently
        boxes = sorted_boxes(boxes.unflatten(-1, (2, 2)))
    scaled = [each * 7 for each in boxes]
    expected = roi_align(features, scaled, 7, sampling_ratio=samples, aligned=True).flatten(2).transpose(1, 2)
    got = region_pooling(features, boxes, samples=samples)
    assert torch.allclose(got.flatten(0, 1), expected, atol=1e-10)


@pytest.mark.parametrize("pool", [region_pooling, crop_pooling, partial(region_pooling, samples=2)])
def test_the_mean_is_that_of_the_grid(pool):
    generator = torch.Generator().manual_seed(4)
    features, boxes = torch.randn(2, 3, 7, 7, generator=generator).double(), random_boxes(generator)
    assert torch.allclose(pool(features, boxes, mean=True), pool(features, boxes).mean(dim=2, keepdim=True), atol=1e-12)


@pytest.mark.parametrize("size_hw", [(7, 7), (5, 9)])
@pytest.mark.parametrize("kind", [random_boxes, tiny_boxes, border_boxes, zero_area_boxes, huge_boxes])
def test_crops_are_slices_of_the_finer_map_resized(kind, size_hw):
    generator = torch.Generator().manual_seed(5)
    features, boxes = torch.randn(2, 3, *size_hw, generator=generator).double(), kind(generator)
    finer = interpolate(features, (42, 42), mode="bilinear", align_corners=False)
    pooled = crop_pooling(features, boxes)
    assert pooled.shape == (2, 20, 49, 3)
    for image in range(2):
        for number, box in enumerate((boxes[image] * 42).round().tolist()):
            x0, y0 = (int(min(max(low, 0), 41)) for low in box[:2])
            x1, y1 = (int(max(min(high, 42), low + 1)) for high, low in zip(box[2:], (x0, y0), strict=True))
            cut = finer[image : image + 1, :, y0:y1, x0:x1]
            wanted = interpolate(cut, (7, 7), mode="bilinear", align_corners=False)[0].flatten(1).T
            assert torch.allclose(pooled[image, number], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_side_that_is_no_number_spoils_its_own_region_alone(side, value):
    generator = torch.Generator().manual_seed(6)
    features, boxes = torch.randn(2, 3, 7, 7, generator=generator), random_boxes(generator).float()
    wanted = region_pooling(features, boxes)
    boxes[1, 5, side] = value
    got = region_pooling(features, boxes)
    spoilt = torch.zeros(2, 20, dtype=torch.bool)
    spoilt[1, 5] = True
    assert torch.equal(got[~spoilt], wanted[~spoilt])
    assert not torch.equal(got[1, 5], wanted[1, 5])

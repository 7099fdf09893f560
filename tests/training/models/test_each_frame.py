"""Functions of single frames, applied to clips."""

import pytest
import torch
from torch import nn

from agnet.training.models.blocks.each_frame import each_frame

VALID = torch.tensor([[True, True, False], [True, False, False]])


def test_padding_reaches_no_norm_and_no_gradient():
    torch.manual_seed(0)
    frames = torch.randn(2, 3, 4, 5, 5)
    frames[~VALID] = float("nan")
    frames.requires_grad_()
    norm, alone = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    found = each_frame(norm, frames, VALID)
    wanted = alone(torch.stack([frames[0, 0], frames[0, 1], frames[1, 0]]))
    assert torch.equal(torch.stack([found[0, 0], found[0, 1], found[1, 0]]), wanted)
    assert torch.equal(norm.running_mean, alone.running_mean) and not found[~VALID].any()
    found.square().sum().backward()
    assert not frames.grad[~VALID].any() and norm.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", [list, tuple])
def test_several_results_keep_their_shapes(kind):
    numbers = torch.arange(6.0).view(2, 3)
    doubled, pairs = each_frame(lambda values: kind([2 * values, values[:, None].expand(-1, 2)]), numbers, VALID)
    assert doubled.tolist() == [[0, 2, 0], [6, 0, 0]]
    assert pairs.shape == (2, 3, 2) and pairs[0, 1].tolist() == [1, 1]


def test_nothing_is_copied_if_all_frames_are_valid():
    pixels = torch.zeros(2, 3, 5, 6, 3, dtype=torch.uint8).permute(0, 1, 4, 2, 3)  # channels last in memory
    seen = []
    found = each_frame(lambda images: seen.append(images) or images, pixels, VALID | True)
    assert found.data_ptr() == seen[0].data_ptr() == pixels.data_ptr() and found.shape == pixels.shape
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    some = each_frame(lambda images: seen.append(images) or images, pixels, VALID)
    assert some.shape == pixels.shape and seen[1].is_contiguous(memory_format=torch.channels_last)

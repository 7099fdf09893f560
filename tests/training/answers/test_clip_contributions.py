"""The exact decomposition of the logits of AG-Net on clips."""

import pytest
import torch
from torch import nn

from agnet.data.errors import ConfigurationError
from agnet.training.answers.clip_contributions import clip_contributions
from agnet.training.answers.contributions import contributions, why_not
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from factories import RAW, images_and_regions, small_model

pytestmark = pytest.mark.usefixtures("one_thread")

VALID = torch.tensor([[True, True, False], [True, True, True]])


def network(temporal, **changes):
    """A small network in double precision, with everything that starts at 0 or 1 away from it."""
    model = small_model(temporal=temporal, **changes)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim < 2 or "excite" in name or "over_time" in name:
                nn.init.normal_(values)
        if model.neck is not None:
            nn.init.uniform_(model.neck.running_var, 0.5, 2)
    return model


def clips():
    """Two clips of three frames, in which one region is never seen and others now and then."""
    pixels, boxes = images_and_regions(6, 4)
    there = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.6
    there[:, :, 0] = False
    return pixels.unflatten(0, (2, 3)), VALID, boxes.unflatten(0, (2, 3)), there


@pytest.mark.parametrize("temporal", ["mean", "attention"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shortcut": True, "region_channels": 8},
        {"se": "none", "fusion": "max", "self_attention": False, "shortcut": True},
        {"inter_attention": False, "fusion": "mean", "neck": "batch-norm", "pooling": "crop"},
        {"use_regions": False, "shortcut": True},
    ],
    ids=str,
)
def test_parts_of_all_frames_and_the_bias_add_up_to_the_logit(temporal, changes):
    model, given = network(temporal, **changes), clips()
    found = clip_contributions(model, *given)
    assert found.parts.shape == (2, 3, 3, 5 if changes.get("use_regions", True) else 1, 7, 7)
    assert torch.equal(found.output.logits, model(*given).logits)
    sums = found.parts.sum(dim=(3, 4, 5))
    torch.testing.assert_close(sums.sum(dim=2) + found.bias, found.output.logits, rtol=0, atol=1e-9)
    assert not found.parts[0, :, 2].any()  # padding
    assert sums[1].abs().min() > 1e-3  # there was something to add up in every frame


def test_each_part_is_what_its_frame_token_and_place_bring():
    """With the mean over time, no gates and no inter-attention, all factors but the maxima are known by hand."""
    model = network("mean", se="none", inter_attention=False, fusion="max", regions=2)
    pixels, boxes = images_and_regions(2, 2)
    found = clip_contributions(model, pixels[None], torch.ones(1, 2, dtype=torch.bool), boxes[None])
    with torch.no_grad():
        attended, _ = model.self_attention(model.backbone(pixels))
        whole = boxes.new_tensor([0, 0, 1, 1]).expand(2, 1, 4)
        tokens = model.pool(attended, torch.cat([boxes, whole], dim=1))  # (T, N, 49, C)
    highest = tokens.mean(dim=(0, 1)).argmax(dim=0)  # (C,): the place of each channel's maximum
    for frame, token, place in ((0, 0, int(highest[0])), (1, 2, int(highest[5]))):
        there = (highest == place).double()
        wanted = model.classifier.weight @ (tokens[frame, token, place] * there / 6)
        torch.testing.assert_close(found.parts[0, :, frame, token].flatten(1)[:, place], wanted, rtol=0, atol=1e-9)
        assert wanted.abs().max() > 1e-4


@pytest.mark.parametrize("temporal", ["mean", "attention"])
def test_a_clip_of_one_frame_has_the_parts_of_the_image(temporal):
    image = network("frames", shortcut=True)
    model = small_model(temporal=temporal, shortcut=True)
    model.load_state_dict(image.state_dict(), strict=False)
    pixels, boxes = images_and_regions(2)
    wanted = contributions(image, pixels, boxes)
    found = clip_contributions(model, pixels[:, None], torch.ones(2, 1, dtype=torch.bool), boxes[:, None])
    torch.testing.assert_close(found.parts[:, :, 0], wanted.parts, rtol=0, atol=1e-12)
    assert torch.equal(found.bias, wanted.bias) and torch.equal(found.boxes[:, 0], wanted.boxes)


class Brightness(nn.Module):
    """Channels that are all the brightness of 8 × 8 pixels."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 8).mean(dim=1, keepdim=True).expand(-1, 16, -1, -1)


@pytest.mark.parametrize("temporal", ["mean", "attention"])
def test_a_network_that_sees_one_corner_in_one_frame_points_there_and_then(temporal):
    settings = ModelSettings(classes=2, regions=2, units=4, se_ratio=4, temporal=temporal)
    torch.manual_seed(0)
    model = assemble(settings, Backbone(Brightness(), 16, RAW)).eval()
    nn.init.ones_(model.classifier.weight)
    frames = torch.zeros(1, 3, 3, 56, 56)
    frames[0, 1, :, :8, -8:] = 255
    boxes = torch.tensor([[0.8, 0, 1, 0.2], [0, 0, 0.5, 0.5]]).expand(1, 3, 2, 4)
    parts = clip_contributions(model, frames, torch.ones(1, 3, dtype=torch.bool), boxes).parts[0, 0]
    assert not parts[[0, 2]].any() and not parts[1, 1].any()  # other frames, and the other region
    assert parts[1, 0].sum() > 0 and parts[1, 2, 0, 6] > 0
    assert float(parts[1, 2, 0, 6]) == pytest.approx(float(parts[1, 2].sum()))


def test_what_does_not_come_apart_is_refused_with_the_reason():
    recurrent = small_model(temporal="alstm", lstm_units=6)
    with pytest.raises(ConfigurationError, match="LSTM over the frames is not linear"):
        clip_contributions(recurrent, *clips())
    mean = network("mean")
    assert why_not(mean) is None
    with pytest.raises(ConfigurationError, match="come apart together"):
        contributions(mean, torch.zeros(1, 3, 56, 56, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"model\.eval"):
        clip_contributions(mean.train(), *clips())

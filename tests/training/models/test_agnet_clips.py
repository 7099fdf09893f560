"""AG-Net on clips as whole networks."""

import pytest
import torch
from torch import nn

from agnet.data.errors import ConfigurationError
from agnet.training.export.export import _check_inputs
from agnet.training.models.registry import ModelSettings
from factories import images_and_regions, small_model

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = ("mean", "attention", "alstm")
VALID = torch.tensor([[True, True, False, False], [True, True, True, True], [True, False, False, False]])
every_mode = pytest.mark.parametrize("temporal", MODES)


def clip_model(temporal, seed=0, **changes):
    """A small model, with everything that starts at 0 away from it."""
    units = {"lstm_units": 6} if temporal == "alstm" else {}
    model = small_model(temporal=temporal, **units, **changes)
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in (getattr(model, "over_time", None), getattr(model, "recall", None)):
            if part is not None:
                nn.init.normal_(part.weight, std=3)
        if model.se_residual:
            nn.init.normal_(model.se_residual.excite)
    return model


def clips(count=3, frames=4, regions=4, seed=1):
    """Frames ``(B, T, 3, 56, 56)``, boxes ``(B, T, R, 4)`` and which boxes are valid ``(B, T, R)``: one never is."""
    pixels, boxes = images_and_regions(count * frames, regions, seed=seed)
    there = torch.rand(count, frames, regions, generator=torch.Generator().manual_seed(seed)) < 0.6
    there[:, :, 0] = False
    return pixels.unflatten(0, (count, frames)), boxes.unflatten(0, (count, frames)), there


def start_of(image, temporal, **changes):
    """A model of clips with the weights of an image model, and the names of those that the latter lacks."""
    model = small_model(temporal=temporal, **changes)
    missing, unexpected = model.load_state_dict(image.state_dict(), strict=False)
    assert not unexpected
    return model, missing


@pytest.mark.parametrize("changes", [{}, {"shortcut": True, "se": "none", "pooling": "crop"}, {"regions": 0}])
@pytest.mark.parametrize(("temporal", "parts"), [("mean", []), ("attention", ["over_time.weight"])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_clip_of_one_frame_is_the_image_bit_for_bit(temporal, parts, changes, dtype):
    image = clip_model("frames", dtype=dtype, **changes)
    if image.shortcut is not None:
        nn.init.constant_(image.shortcut, 0.3)
    model, missing = start_of(image, temporal, dtype=dtype, **changes)
    assert missing == parts
    pixels, boxes = images_and_regions(regions=changes.get("regions", 4), dtype=dtype)
    with torch.no_grad():
        wanted = image(pixels, boxes)
        found = model(pixels[:, None], torch.ones(3, 1, dtype=torch.bool), boxes[:, None])
    assert torch.equal(found.logits, wanted.logits) and torch.equal(found.embedding, wanted.embedding)
    assert torch.equal(found.region_weights, wanted.region_weights)
    assert torch.equal(found.attention_map[:, 0], wanted.attention_map)


def tokens_by_hand(model, frame, boxes):
    """Tokens of one frame ``(N, 49, C)`` by the image model's own parts."""
    attended, _ = model.self_attention(model.backbone(frame[None]))
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=boxes.dtype)
    return model.se_residual(model.pool(attended, torch.cat([boxes, whole])[None]))[0]


@pytest.mark.parametrize("temporal", ["mean", "attention"])
def test_tokens_are_weighted_over_the_frames_where_they_are_valid(temporal):
    model, (frames, boxes, there) = clip_model(temporal), clips()
    output = model(frames, VALID, boxes, there)
    for number, real in enumerate(VALID.sum(dim=1)):
        tokens = [tokens_by_hand(model, frames[number, t], boxes[number, t]) for t in range(real)]
        joined = []
        for region in range(5):
            times = [t for t in range(real) if region == 4 or there[number, t, region]] or list(range(real))
            mine = torch.stack([tokens[t][region] for t in times])
            weights = torch.ones(len(times), dtype=mine.dtype)
            if temporal == "attention":
                weights = torch.stack([model.over_time.weight[0] @ one.mean(dim=0) for one in mine]).exp()
            joined.append((mine * (weights / weights.sum())[:, None, None]).sum(dim=0))
        joined, weights = model.inter_attention(torch.stack(joined)[None])
        torch.testing.assert_close(output.logits[number], model.classifier(model.fusion(joined))[0])
        torch.testing.assert_close(output.region_weights[number], weights[0])


def test_attention_over_time_starts_as_the_mean():
    frames, boxes, there = clips()
    image = clip_model("frames")
    mean, attention = (start_of(image, temporal)[0](frames, VALID, boxes, there) for temporal in MODES[:2])
    assert torch.equal(mean.logits, attention.logits)


def test_without_its_region_scores_the_lstm_reads_the_frame_vectors_of_the_image_model():
    image, (frames, boxes, _) = clip_model("frames"), clips(2, 3)
    model = small_model(temporal="alstm", lstm_units=6)  # W_h = 0
    model.load_state_dict(
        {name: value for name, value in image.state_dict().items() if "classifier" not in name}, False
    )
    output = model(frames, torch.ones(2, 3, dtype=torch.bool), boxes)
    one_by_one = image(frames.flatten(0, 1), boxes.flatten(0, 1))
    lstm = nn.LSTM(16, 6, batch_first=True).double()
    lstm.load_state_dict({f"{name}_l0": value for name, value in model.cell.state_dict().items()})
    hidden, _ = lstm(one_by_one.embedding.unflatten(0, (2, 3)))
    torch.testing.assert_close(output.logits, model.classifier(hidden))
    torch.testing.assert_close(output.embedding, hidden.mean(dim=1))
    torch.testing.assert_close(output.region_weights.flatten(0, 1), one_by_one.region_weights)


def test_the_state_of_the_lstm_enters_the_region_weights_of_the_next_frame():
    model, (frames, boxes, _) = clip_model("alstm"), clips(2, 3)
    every, changed = torch.ones(2, 3, dtype=torch.bool), frames.clone()
    changed[:, 0] = changed[:, 0].flip(-1)
    before, after = (model(given, every, boxes).region_weights for given in (frames, changed))
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_a_region_that_does_not_count_in_a_frame_is_as_one_that_the_network_lacks():
    """The frame's vector with three of four regions, put together without the fourth."""
    model, (frames, boxes, _) = clip_model("alstm", attention_softmax=True), clips(1, 2)
    there = torch.ones(1, 2, 4, dtype=torch.bool)
    there[0, 0, 1] = False  # but counts in the next frame
    output = model(frames, torch.ones(1, 2, dtype=torch.bool), boxes, there)
    tokens = tokens_by_hand(model, frames[0, 0], boxes[0, 0])[[0, 2, 3, 4]]
    _, weights = model.inter_attention(tokens[None])
    torch.testing.assert_close(output.region_weights[0, 0, [0, 2, 3, 4]], weights[0])
    assert output.region_weights[0, 0, 1] == 0


@every_mode
def test_padding_and_boxes_that_do_not_count_change_nothing(temporal):
    model, (frames, boxes, there) = clip_model(temporal, attention_softmax=True), clips()
    there[:, 0, 1:] = True  # each of these counts in one frame at least
    used = there & VALID[..., None]
    used[:, :, 0] = VALID  # never valid, so that all its boxes count

    def real(values):
        return values[VALID] if temporal == "alstm" else values

    with torch.no_grad():
        wanted = model(frames, VALID, boxes, there)
        garbage = torch.where(VALID[..., None, None, None], frames, 1e4 * torch.randn_like(frames))
        odd = torch.where(used[..., None], boxes, torch.tensor(torch.nan))
        found = model(garbage, VALID, odd, there)
        short = model(frames[2:, :1], VALID[2:, :1], boxes[2:, :1], there[2:, :1])
    for name in ("logits", "region_weights"):
        assert torch.equal(real(getattr(found, name)), real(getattr(wanted, name)))
        assert getattr(wanted, name).isfinite().all()
    assert torch.equal(found.embedding, wanted.embedding) and torch.equal(found.attention_map, wanted.attention_map)
    torch.testing.assert_close(short.embedding[0], wanted.embedding[2])


@every_mode
def test_a_clip_does_not_depend_on_its_batch_mates(temporal):
    model, (frames, boxes, there) = clip_model(temporal, region_channels=8), clips()
    output = model(frames, VALID, boxes, there)
    for one in range(3):
        alone = model(*(values[one : one + 1] for values in (frames, VALID, boxes, there)))
        torch.testing.assert_close(alone.logits[0], output.logits[one])
        torch.testing.assert_close(alone.region_weights[0], output.region_weights[one])


@every_mode
def test_gradients_reach_the_parts_over_time_from_the_start(temporal):
    model, (frames, boxes, there) = small_model(temporal=temporal, region_channels=8).train(), clips()
    model(frames, VALID, boxes, there).logits[VALID if temporal == "alstm" else ...].logsumexp(-1).sum().backward()
    cancelled = {"self_attention.f.bias", "inter_attention.weigh.bias", "fusion.score.bias"}
    for name, parameter in model.named_parameters():
        if name not in cancelled and "squeeze" not in name:  # the gates' second layer starts at 0
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_are_those_of_a_sum_that_keeps_its_tokens():
    """The recomputed tokens against PyTorch's own gradient of the tokens put together by hand."""
    model, (frames, boxes, _) = clip_model("mean"), clips(1, 3)

    def gradients(loss):
        return torch.autograd.grad(loss, [model.backbone.body.weight, model.se_residual.squeeze])

    whole = model(frames, torch.ones(1, 3, dtype=torch.bool), boxes).logits.square().sum()
    tokens = torch.stack([tokens_by_hand(model, frames[0, t], boxes[0, t]) for t in range(3)]).mean(dim=0)
    by_hand = model.classifier(model.fusion(model.inter_attention(tokens[None])[0])).square().sum()
    for found, wanted in zip(gradients(whole), gradients(by_hand), strict=True):
        torch.testing.assert_close(found, wanted)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="temporal alstm weights the regions of inter-attention"):
        small_model(temporal="alstm", inter_attention=False)
    model, (frames, boxes, _) = clip_model("mean"), clips(1, 2)
    with pytest.raises(ValueError, match=r"regions must have shape \(1, 2, 4, 4\)"):
        model(frames, VALID[:1, :2], boxes[:, :, :3])
    with pytest.raises(ConfigurationError, match="only models of single images can be exported"):
        _check_inputs(ModelSettings(3, temporal="mean"), model)

"""ALSTM and ConvALSTM as whole networks."""

import pytest
import torch
from torch import nn

from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble, build_model
from agnet.training.models.contract import check_settings
from agnet.training.models.settings import ALSTMSettings, ConvALSTMSettings
from factories import EYES

pytestmark = pytest.mark.usefixtures("one_thread")

ALSTM, CONV = ALSTMSettings(3, "one", units=6), ConvALSTMSettings(3, "one", units=4)
VALID = torch.tensor([[True, True, True, False, False], [True, False, False, False, False], [True] * 5])


def changed(settings, **changes):
    return type(settings)(**{**vars(settings), **changes})


VARIANTS = {
    "content": changed(ALSTM, coverage=0.5),
    "location": changed(ALSTM, score="location", attention_units=5, coverage=0.1, coverage_target="one"),
    "hidden": changed(ALSTM, score="hidden", carry=False),
    "gap": CONV,
    "flatten": changed(CONV, readout="flatten", start="conv", rescale=False),
    "off": changed(CONV, carry=False, start="conv", neck="batch-norm"),
}
every_variant = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


def network(settings, seed=0):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.BatchNorm2d(5), nn.Tanh())
    return assemble(settings, Backbone(body, 5, EYES)).double().eval()


def pixels(clips=3, frames=5, h=12, w=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (clips, frames, 3, h, w), dtype=torch.uint8, generator=generator)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Counts


@pytest.mark.parametrize(
    ("score", "attention", "head"),
    [("location", 275_249, 2_927_972), ("hidden", 25_137, 2_677_860), ("content", 262_657, 2_915_380)],
)
def test_alstm_has_the_parameters_of_its_formulas(score, attention, head):
    D, U, A, N, K = 512, 512, 256, 49, 51
    with torch.device("meta"):
        model = build_model(ALSTMSettings(K, score=score))
        assert model.backbone(torch.empty(1, 3, 224, 224)).shape == (1, D, 7, 7)
    formulas = {
        "location": (U + 1) * A + (D + 1) * A + (A + 1) * N,
        "hidden": (U + 1) * N,
        "content": (D + 1) * A + U * A + A + 1,
    }
    assert count(model.attention) == formulas[score] == attention
    assert count(model.start_hidden) + count(model.start_cell) == 2 * (D + 1) * U == 525_312
    assert count(model.cell) == 4 * U * (D + U) + 8 * U == 2_101_248
    assert count(model.classifier) == (U + 1) * K == 26_163
    assert count(model) - count(model.backbone) == head and count(model.backbone) == 14_714_688


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({}, 7_289_396),
        ({"readout": "flatten"}, 7_916_084),
        ({"start": "conv"}, 7_289_396 + 2_359_808),
    ],
)
def test_conv_alstm_has_the_parameters_of_its_formulas(changes, head):
    D, U = 512, 256
    with torch.device("meta"):
        model = build_model(ConvALSTMSettings(51, **changes))
    assert count(model.attention) == (U + 1) * U + (D + 1) * U + U + 1 == 197_377
    assert count(model.cell) == 4 * U * (9 * (D + U) + 1) == 7_078_912
    assert count(model) - count(model.backbone) == head


# Values


def by_hand(model, maps):
    """ALSTM with the content's score over one clip's maps ``(T, D, N)``, one position after the other."""
    score, cell = model.attention, model.cell
    mean = maps.mean(dim=(0, 2))
    hidden, memory = model.start_hidden(mean).tanh(), model.start_cell(mean).tanh()
    logits, attended = [], []
    for frame in maps:
        places = [frame[:, place] for place in range(frame.shape[1])]
        scores = [score.score((score.positions(x) + score.state(hidden)).tanh()) for x in places]
        shares = torch.cat(scores).exp() / torch.cat(scores).exp().sum()
        z = sum(share * x for share, x in zip(shares, places, strict=True))
        if not model.carry:
            hidden, memory = torch.zeros_like(hidden), torch.zeros_like(memory)
        hidden, memory = cell(z[None], (hidden[None], memory[None]))  # PyTorch's own
        hidden, memory = hidden[0], memory[0]
        logits.append(model.classifier(hidden))
        attended.append(shares)
    return torch.stack(logits), torch.stack(attended)


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("carry", [True, False])
def test_alstm_is_its_formula_written_out(carry, frames):
    model, clip = network(changed(ALSTM, carry=carry)), pixels(1, frames)
    with torch.no_grad():
        output = model(clip, torch.ones(1, frames, dtype=torch.bool))
        logits, shares = by_hand(model, model.backbone(clip[0]).flatten(2))
    torch.testing.assert_close(output.logits[0], logits)
    torch.testing.assert_close(output.attention_map[0].flatten(1), shares)


def test_with_even_attention_alstm_is_an_lstm_of_the_mean_features():
    model, clips = network(ALSTM), pixels()
    nn.init.zeros_(model.attention.score.weight)
    lstm = nn.LSTM(5, 6, batch_first=True).double()
    lstm.load_state_dict({f"{name}_l0": value for name, value in model.cell.state_dict().items()})
    output = model(clips, VALID | True)
    means = model.backbone(clips.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, (3, 5))
    starts = [start(means.mean(dim=1)).tanh()[None] for start in (model.start_hidden, model.start_cell)]
    hidden, _ = lstm(means, tuple(starts))
    logits = model.classifier(hidden)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.embedding, hidden.mean(dim=1))
    shared = [model.start_cell.weight, model.backbone.body[0].weight]
    ours = torch.autograd.grad(output.logits.square().sum(), [*model.cell.parameters(), *shared])
    theirs = torch.autograd.grad(logits.square().sum(), [*lstm.parameters(), *shared])
    torch.testing.assert_close(ours, theirs)


def conv_by_hand(model, maps):
    """ConvALSTM over one clip's maps ``(T, D, h, w)``, with separate convolutions of input and state."""
    score, cell = model.attention, model.cell
    starts = (
        model.start(maps.mean(dim=0, keepdim=True)).tanh() if model.start else maps.new_zeros(1, 8, *maps.shape[2:])
    )
    hidden, memory = starts.chunk(2, dim=1)
    found = []
    for frame in maps[:, None]:
        scores = score.score((score.positions(frame) + score.state(hidden)).tanh())
        shares = scores.exp() / scores.exp().sum()
        if not model.carry:
            hidden, memory = torch.zeros_like(hidden), torch.zeros_like(memory)
        scale = shares.numel() if model.rescale else 1
        i, f, g, o = (cell.input(scale * shares * frame) + cell.recurrent(hidden)).split(4, dim=1)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * memory.tanh()
        found.append(hidden[0])
    found = torch.stack(found)
    return model.classifier(found.flatten(1) if model.grid(found) is not found else found.mean(dim=(2, 3)))


@pytest.mark.parametrize("changes", [{}, {"start": "conv", "rescale": False}, {"start": "conv", "carry": False}])
def test_conv_alstm_is_its_formula_written_out(changes):
    model, clip = network(changed(CONV, **changes)), pixels(1, 3)
    with torch.no_grad():
        wanted = conv_by_hand(model, model.backbone(clip[0]))
        torch.testing.assert_close(model(clip, VALID[2:, :3]).logits[0], wanted)


@pytest.mark.parametrize(("settings", "alike_at_1"), [(CONV, True), (ALSTM, False)])
def test_carry_changes_nothing_of_a_first_frame_unless_its_start_is_learnt(settings, alike_at_1):
    on, off = network(settings), network(changed(settings, carry=False))
    with torch.no_grad():
        for frames, alike in ((1, alike_at_1), (5, False)):
            valid = torch.ones(2, frames, dtype=torch.bool)
            first, second = (model(pixels(2, frames), valid).logits for model in (on, off))
            assert torch.equal(first, second) == alike


def test_without_carry_the_initial_cell_is_not_used():
    model = network(changed(ALSTM, carry=False))
    model(pixels(), VALID).logits.sum().backward()
    assert model.start_cell.weight.grad is None or not model.start_cell.weight.grad.any()
    assert model.start_hidden.weight.grad.any()


# Clips


@every_variant
def test_padded_frames_change_nothing(settings):
    model = network(settings)
    clips, others = pixels(), pixels(seed=1)
    garbage = torch.where(VALID[..., None, None, None], clips, others)
    with torch.no_grad():
        one, other = model(clips, VALID), model(garbage, VALID)
        assert torch.equal(one.logits, other.logits) and torch.equal(one.attention_map, other.attention_map)
        assert torch.equal(one.embedding, other.embedding) and not one.attention_map[~VALID].any()
        torch.testing.assert_close(one.attention_map.sum(dim=(2, 3)), VALID.double())
        assert (one.attention_map >= 0).all()
        for row, length in enumerate(VALID.sum(dim=1)):
            alone = model(clips[row : row + 1, :length], VALID[row : row + 1, :length])
            torch.testing.assert_close(alone.logits[0], one.logits[row, :length], rtol=0, atol=1e-12)
            torch.testing.assert_close(alone.attention_map[0], one.attention_map[row, :length], rtol=0, atol=1e-12)
            torch.testing.assert_close(alone.embedding[0], one.embedding[row], rtol=0, atol=1e-12)
            if settings is VARIANTS["content"] or settings is VARIANTS["location"]:
                torch.testing.assert_close(alone.losses["coverage"][0], one.losses["coverage"][row])
            else:
                assert one.losses is None


@every_variant
def test_padding_reaches_neither_norms_nor_gradients(settings):
    gradients = []
    for seed in (0, 1):
        model = network(settings).train()
        clips = torch.where(VALID[..., None, None, None], pixels(), pixels(seed=seed))
        output = model(clips, VALID)
        loss = output.logits[VALID].square().mean() + sum(each.sum() for each in (output.losses or {}).values())
        loss.backward()
        found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        gradients.append(found | dict(model.named_buffers()))
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())
    assert {"backbone.body.0.weight", "classifier.weight"} < set(gradients[0])


def test_coverage_is_the_square_of_what_each_position_lacks():
    for target in ("even", "one"):
        model = network(changed(ALSTM, coverage=0.5, coverage_target=target))
        with torch.no_grad():
            output = model(pixels(), VALID)
        wanted = []
        for maps, frames in zip(output.attention_map, (3, 1, 5), strict=True):
            goal = frames / 12 if target == "even" else 1
            totals = [sum(maps[t, i, j].item() for t in range(frames)) for i in range(3) for j in range(4)]
            wanted.append(0.5 * sum((goal - total) ** 2 for total in totals))
        assert output.losses["coverage"].tolist() == pytest.approx(wanted)


@every_variant
def test_half_precision_keeps_the_states_precise(settings):
    model = network(settings).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(pixels(), VALID)
        wanted = network(settings)(pixels(), VALID)
    assert output.attention_map.dtype == torch.float32
    torch.testing.assert_close(output.logits.double(), wanted.logits.double(), rtol=0, atol=0.05)


# Settings


def test_scores_by_position_see_seven_by_seven():
    shapes = [network(VARIANTS[name])(pixels(), VALID).attention_map.shape[2:] for name in VARIANTS]
    assert [tuple(shape) for shape in shapes] == [(3, 4), (7, 7), (7, 7), (3, 4), (7, 7), (3, 4)]


def test_an_lstm_starts_with_a_memory():
    for model, bias, recurrent in (
        (network(ALSTM), lambda model: model.cell.bias_ih + model.cell.bias_hh, lambda model: model.cell.weight_hh),
        (network(CONV), lambda model: model.cell.input.bias, lambda model: model.cell.recurrent.weight.flatten(1)),
    ):
        assert [set(gate.tolist()) for gate in bias(model).chunk(4)] == [{0}, {1}, {0}, {0}]
        for weights in recurrent(model).chunk(4):
            torch.testing.assert_close(weights @ weights.T, torch.eye(len(weights)).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (changed(ALSTM, score="content "), "score: wanted content or location or hidden"),
        (changed(ALSTM, coverage=-1.0), "coverage: wanted 0 or above"),
        (changed(CONV, start="mean"), "start: wanted zero or conv"),
    ],
)
def test_values_that_are_not_allowed_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        check_settings(settings)


# Attention


def moving_patches(count, generator, frames=8, side=32, patch=8):
    """Clips of noise with a patch of one of four textures that moves, its labels, and the pixels that it covers."""
    stripes = (torch.arange(patch) % 4 < 2).float().expand(patch, patch)
    textures = torch.stack([stripes, stripes.T, (stripes - stripes.T).abs(), torch.ones(patch, patch)])
    labels = torch.randint(4, (count,), generator=generator)
    clips = torch.rand(count, frames, 3, side, side, generator=generator)
    covered = torch.zeros(count, frames, side, side)
    # Straight on, and reflected at the borders, so that no place is likelier than others
    room = side - patch
    starts = torch.randint(2 * room, (count, 2), generator=generator)
    velocities = torch.randint(-4, 5, (count, 2), generator=generator)
    for t in range(frames):
        corners = (room - ((starts + t * velocities) % (2 * room) - room).abs()).tolist()
        for number, (y, x) in enumerate(corners):
            clips[number, t, :, y : y + patch, x : x + patch] = textures[labels[number]]
            covered[number, t, y : y + patch, x : x + patch] = 1
    return clips * 255, labels, covered


def trained_on_patches(settings, steps, seed=0, batch=32):
    """Accuracy of frames, and the share of the attention in cells that the patch overlaps, after training."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    layers = [nn.Sequential(nn.Conv2d(*pair, 3, stride=2, padding=1), nn.ReLU()) for pair in ((3, 16), (16, 32))]
    model = assemble(settings, Backbone(nn.Sequential(*layers), 32, EYES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    valid = torch.ones(batch, 8, dtype=torch.bool)
    for _ in range(steps):
        clips, labels, _ = moving_patches(batch, generator)
        optimizer.zero_grad()
        logits = model(clips, valid).logits
        nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(8)).backward()
        optimizer.step()
    clips, labels, covered = moving_patches(128, generator)
    with torch.no_grad():
        output = model.eval()(clips, torch.ones(128, 8, dtype=torch.bool))
    on = nn.functional.adaptive_max_pool2d(covered, output.attention_map.shape[2:])
    accuracy = (output.logits.argmax(dim=2) == labels[:, None]).float().mean().item()
    return accuracy, (output.attention_map * on).sum(dim=(2, 3)).mean().item(), on.mean().item()


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        (ALSTMSettings(4, "one", units=32), 0.4, 1),
        (ALSTMSettings(4, "one", units=32, score="location"), 0, 0.25),
        (ConvALSTMSettings(4, "one", units=16), 0.25, 1),
    ],
    ids=["content", "location", "conv"],
)
def test_attention_lands_on_the_moving_patch_if_it_compares_positions(settings, least, most):
    accuracy, share, even = trained_on_patches(settings, 60, batch=16)
    assert accuracy > 0.6 and even < 0.16
    assert least <= share <= most

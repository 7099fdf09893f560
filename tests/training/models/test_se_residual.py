import math

import pytest
import torch

from agnet.training.models.blocks.se_residual import SEResidual

TOKENS, POSITIONS, CHANNELS, RATIO = 3, 5, 8, 4


def slow_se_residual(squeeze, excite, x):
    """out = x·s + x with s = σ(W₂ relu(W₁ GAP(x))), one token ``(P, C)`` of lists at a time."""
    channels, hidden = len(squeeze), len(excite)
    mean = [sum(position[c] for position in x) / len(x) for c in range(channels)]
    inner = [max(0.0, sum(squeeze[c][h] * mean[c] for c in range(channels))) for h in range(hidden)]
    outer = [sum(excite[h][c] * inner[h] for h in range(hidden)) for c in range(channels)]
    s = [1 / (1 + math.exp(-value)) for value in outer]
    return [[position[c] * s[c] + position[c] for c in range(channels)] for position in x]


def block_and_input(batch=4):
    torch.manual_seed(0)
    block = SEResidual(TOKENS, CHANNELS, RATIO).double()
    torch.nn.init.normal_(block.excite)  # away from its start, where every gate is even
    return block, torch.randn(batch, TOKENS, POSITIONS, CHANNELS, dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 4])
def test_it_is_the_formula_token_by_token(batch):
    block, x = block_and_input(batch)
    got = block(x)
    for image in range(batch):
        for token in range(TOKENS):
            weights = block.squeeze[token].tolist(), block.excite[token].tolist()
            wanted = torch.tensor(slow_se_residual(*weights, x[image, token].tolist()), dtype=torch.float64)
            assert torch.allclose(got[image, token], wanted, rtol=0, atol=1e-12)


def test_every_token_has_weights_of_its_own():
    block, x = block_and_input()
    before = block(x).detach()
    with torch.no_grad():
        block.excite[1] += 1
    changed = (block(x) != before).flatten(2).any(dim=2)
    assert not changed[:, [0, 2]].any()
    assert changed[:, 1].any()


def test_closed_hidden_units_leave_the_gate_half_open():
    # relu(0) = 0 and σ(0) = ½: out = 1.5 x.
    block, x = block_and_input()
    with torch.no_grad():
        block.squeeze.zero_()
    assert torch.allclose(block(x), 1.5 * x)


@pytest.mark.parametrize(("channels", "ratio", "hidden"), [(32, 16, 2), (1056, 16, 66), (40, 16, 2)])
def test_hidden_width_is_rounded_down(channels, ratio, hidden):
    block = SEResidual(2, channels, ratio)
    assert sum(parameter.numel() for parameter in block.parameters()) == 2 * 2 * channels * hidden


def test_it_begins_within_the_bounds_of_linear_layers():
    torch.manual_seed(0)
    squeeze, bound = SEResidual(10, 64, 16).squeeze, 64**-0.5
    assert 0.95 * bound < squeeze.abs().max() <= bound
    assert squeeze.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_every_gate_begins_even():
    x = torch.randn(2, TOKENS, POSITIONS, CHANNELS)
    assert torch.equal(SEResidual(TOKENS, CHANNELS, RATIO)(x), 1.5 * x)

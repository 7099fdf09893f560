import pytest
import torch

from agnet.training.models.blocks.location_attention import RecurrentAttention, StaticAttention, coverage_loss
from agnet.training.models.blocks.spatial_lstm import SpatialLSTM

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(1, 1), (1, 4), (5, 1), (2, 2), (3, 5), (6, 3)]


def lstm_and_map(h=3, w=5, directions=1, stable=False, channels=3, units=2, batch=2):
    torch.manual_seed(0)
    lstm = SpatialLSTM(channels, units, directions, stable).double()
    torch.nn.init.normal_(lstm.bias)
    return lstm, torch.randn(batch, channels, h, w, dtype=torch.float64, requires_grad=True)


def double_loop(lstm, z, direction=0, sees=None):
    """The equations for one direction, place by place; ``sees`` gives what a cell sees of its neighbours' states."""
    U, (B, _, h, w) = lstm.units, z.shape
    W, R = lstm.input[direction], lstm.recurrent[direction]
    b = lstm.bias.view(lstm.directions, 5 * U)[direction]
    outside = z.new_zeros(B, U)
    hidden, cell = {}, {}
    for i in range(h):
        for j in range(w):
            h_left, h_top = hidden.get((i, j - 1), outside), hidden.get((i - 1, j), outside)
            c_left, c_top = cell.get((i, j - 1), outside), cell.get((i - 1, j), outside)
            seen = z[:, :, i, j] if sees is None else sees(h_left, h_top)
            gates = seen @ W + h_left @ R[:U] + h_top @ R[U:] + b
            g, o, i_, f_l, f_t = (gates[:, k * U : (k + 1) * U] for k in range(5))
            new, s_l, s_t = g.tanh() * i_.sigmoid(), f_l.sigmoid(), f_t.sigmoid()
            if lstm.stable:
                c = new + (1 - i_.sigmoid()) * (s_l * c_left + s_t * c_top) / (s_l + s_t)
            else:
                c = new + c_left * s_l + c_top * s_t
            cell[i, j], hidden[i, j] = c, (c * o.sigmoid()).tanh()
    return torch.stack([torch.stack([hidden[i, j] for j in range(w)], dim=2) for i in range(h)], dim=2)  # (B, U, h, w)


def gradients(value, *of):
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    return torch.autograd.grad((value * weights).sum(), of)


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize(("h", "w"), SHAPES)
def test_diagonals_are_the_double_loop(h, w, stable):
    lstm, z = lstm_and_map(h, w, stable=stable)
    found, wanted = lstm(z).hidden[:, 0], double_loop(lstm, z)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    of = (z, lstm.input, lstm.recurrent, lstm.bias)
    for mine, theirs in zip(gradients(found, *of), gradients(wanted, *of), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_four_directions_are_one_direction_on_flips():
    lstm, z = lstm_and_map(4, 3, directions=4)
    hidden = lstm(z).hidden
    assert hidden.shape == (2, 4, 2, 4, 3)
    corners = []
    for number, sides in enumerate([(), (3,), (2,), (2, 3)]):
        wanted = double_loop(lstm, z.flip(sides), number)
        torch.testing.assert_close(hidden[:, number], wanted.flip(sides), rtol=0, atol=1e-14)
        corners.append(wanted[:, :, -1, -1])
    torch.testing.assert_close(lstm.corners(hidden), torch.cat(corners, dim=1), rtol=0, atol=1e-14)


def test_a_place_sees_nothing_below_or_to_its_right():
    lstm, z = lstm_and_map(4, 5)
    (gradient,) = torch.autograd.grad(lstm(z).hidden[0, 0, :, 2, 3].sum(), z)
    reached = (gradient[0] != 0).all(dim=0)
    assert reached[:3, :4].all() and not reached[3:].any() and not reached[:, 4:].any()
    assert not gradient[1].any()


def test_a_stable_cell_stays_within_one_where_a_sum_grows():
    largest = {}
    for stable in (False, True):
        lstm, z = lstm_and_map(12, 12, stable=stable)
        with torch.no_grad():
            lstm.input.zero_(), lstm.recurrent.zero_()
            # Each cell adds half, forgets nothing, and tells so little of it that h is as good as c · σ(−20).
            lstm.bias.view(5, 2).copy_(torch.tensor([[10.0], [-20.0], [0.0], [30.0], [30.0]]))
            cell = lstm(z).hidden.atanh() / torch.tensor(-20.0, dtype=torch.float64).sigmoid()
        largest[stable] = cell.abs().max().item()
    assert largest[False] > 1e5 and 0.9 < largest[True] <= 1


def test_it_starts_orthogonal_and_forgetting_little():
    lstm = SpatialLSTM(6, 4, directions=4)
    bias = lstm.bias.view(4, 5, 4)
    assert (bias[:, 3:] == 1).all() and not bias[:, :3].any()
    for matrix in lstm.recurrent.view(4, 2, 4, 5, 4).transpose(2, 3).reshape(-1, 4, 4):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(4))


def test_half_precision_keeps_the_cells_in_float32():
    lstm, z = lstm_and_map(20, 20, directions=4)
    lstm, z = lstm.float(), z.detach().float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rounded = lstm(z).hidden
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, lstm(z).hidden.detach(), rtol=0, atol=0.15)


# Attention


def test_static_attention_weighs_each_place():
    torch.manual_seed(0)
    attention, z = StaticAttention(8).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    weighted, shares = attention(z)
    scores = [
        attention.score.weight[0, :, 0, 0]
        @ torch.tanh(attention.positions.weight[:, :, 0, 0] @ z[0, :, i, j] + attention.positions.bias)
        for i in range(3)
        for j in range(4)
    ]
    wanted = torch.stack(scores).softmax(dim=0).view(3, 4)
    torch.testing.assert_close(shares[0], wanted)
    torch.testing.assert_close(weighted[0], 12 * wanted * z[0])


@pytest.mark.parametrize("directions", [1, 4])
def test_recurrent_attention_is_an_expectation_at_each_step(directions):
    lstm, z = lstm_and_map(3, 2, directions, channels=8)
    attention = RecurrentAttention(8, 2, directions).double()
    keys = attention.keys(z)
    hidden, shares = lstm(z, lambda neighbours: attention(neighbours, keys))
    assert shares.shape == (directions, 6, 2, 6)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones_like(shares[..., 0]))
    places = z.flatten(2).transpose(1, 2)  # (B, N, d)
    for number, sides in enumerate([(), (3,), (2,), (2, 3)][:directions]):
        seen = []

        def sees(left, top, number=number, seen=seen):
            query = torch.cat([left, top], dim=1) @ attention.neighbours[number]
            pieces = attention.positions(places) + query[:, None]
            seen.append(attention.score(pieces.tanh()).squeeze(-1).softmax(dim=1))
            return (seen[-1][:, :, None] * places).sum(dim=1)

        wanted = double_loop(lstm, z, number, sees).flip(sides)
        torch.testing.assert_close(hidden[:, number], wanted, rtol=0, atol=1e-14)
        torch.testing.assert_close(shares[number].sum(dim=0), torch.stack(seen).sum(dim=0))


def test_coverage_is_nothing_where_each_place_is_seen_once():
    once = torch.eye(4)[None, :, None].expand(2, 4, 3, 4)  # (directions, steps, B, N)
    assert coverage_loss(once).tolist() == [0, 0, 0]
    fixed = torch.zeros(1, 4, 2, 4)
    fixed[..., 0] = 1  # one place gets 4, three get nothing
    assert coverage_loss(fixed).tolist() == [9 + 3, 9 + 3]

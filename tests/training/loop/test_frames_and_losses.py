"""Logits of each frame, and auxiliary losses by name, against the same sums written out by hand."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.errors import CheckpointError
from agnet.training.loop.engine import evaluate, train_epoch
from agnet.training.loop.learner import Learner, means
from agnet.training.loop.state import Progress, load_state, save_state
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.contract import Output
from agnet.training.models.model import Model
from agnet.training.samples.loader import STAND_IN, Batch
from agnet.training.tasks import CLASSIFY
from factories import BARE, CPU, EYES, GPU_IS_FULL, OneOfTwo, Small

pytestmark = pytest.mark.usefixtures("one_thread")

CLASS_IMAGES = [5, 3, 1]
WEIGHTS = [9 / 15, 9 / 9, 9 / 3]


class Clips(Model):
    """Logits of each frame from its mean colour; two auxiliary losses of its own."""

    inputs = ("frames", "valid")

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.backbone = Backbone(nn.Conv2d(3, 5, 4, stride=4), 5, EYES)
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(5, 3)

    def forward(self, frames, valid):
        features = self.backbone(frames.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, frames.shape[:2])
        seen = torch.where(valid[..., None], features, 0).sum(dim=1)
        losses = {"second": seen.square().mean(dim=1), "first": 0.3 * seen.abs().sum(dim=1)}
        return Output(self.classifier(features), losses=losses)


def clips(count, seed=0, frames=4):
    """Clips of one frame or more, then padding."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, frames, 3, 16, 16), dtype=torch.uint8, generator=generator)
    lengths = torch.randint(1, frames + 1, (count,), generator=generator)
    valid = torch.arange(frames) < lengths[:, None]
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Batch(pixels, valid, None, labels, torch.arange(count))


def by_hand(model, batch, smoothing=0.0):
    """Of each sample (main loss, first, second), a frame at a time, from that clip's real frames alone."""
    found = []
    for frames, valid, label in zip(batch.frames, batch.valid, batch.labels.tolist(), strict=True):
        output = model(frames[valid][None], torch.ones(1, int(valid.sum()), dtype=torch.bool))
        logs = output.logits[0].log_softmax(1)
        target = torch.full((3,), smoothing / 3)
        target[label] += 1 - smoothing
        losses = [-(target * row).sum() for row in logs]
        found.append([sum(losses) / len(losses), output.losses["first"][0], output.losses["second"][0]])
    return found


def weighed(model, batches, weights, smoothing=0.0):
    """Means (total, first, second) of all samples of some batches."""
    rows = [row for batch in batches for row in by_hand(model, batch, smoothing)]
    own = [weights[label] for batch in batches for label in batch.labels.tolist()]
    sums = [sum(w * row[k] for w, row in zip(own, rows, strict=True)) / sum(own) for k in range(3)]
    return sum(sums), sums[1], sums[2]


@pytest.mark.parametrize(("balanced", "most"), list(itertools.product([False, True], [99, 2])))
def test_a_step_of_accumulated_batches_and_of_halves_is_one_mean_with_its_auxiliary_losses(balanced, most):
    recipe = BARE.override(
        accumulate=3, class_weights="balanced" if balanced else "none", label_smoothing=0.1, backbone_lr=1.0
    )
    model, reference = Clips(), Clips()
    batches = [clips(4, 1), clips(4, 2), clips(3, 3)]
    learner = Learner(Small(model, most, GPU_IS_FULL), recipe, CPU, class_images=CLASS_IMAGES)
    trained = train_epoch(learner, batches, 0, steps=1)
    total, first, second = weighed(reference, batches, WEIGHTS if balanced else [1, 1, 1], 0.1)
    total.backward()
    assert learner.loss_names == ("cross_entropy", "first", "second")
    found = means(trained.totals, learner.loss_names)
    expected = {"loss": total.item(), "first": first.item(), "second": second.item()}
    # Without label smoothing, class weights and auxiliary losses.
    plain = [row[0].item() for batch in batches for row in by_hand(reference, batch)]
    expected["cross_entropy"] = sum(plain) / len(plain)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    for got, parameter in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got, parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_garbage_in_padded_frames_changes_nothing():
    batch = clips(6, 4)
    noise = torch.randint(0, 256, batch.frames.shape, dtype=torch.uint8)
    other = batch._replace(frames=torch.where(batch.valid[..., None, None, None], batch.frames, noise))
    assert not torch.equal(batch.frames, other.frames)
    results = []
    for one in (batch, other):
        learner = Learner(Clips(), BARE, CPU)
        totals = train_epoch(learner, [one], 0, steps=1).totals
        scored = evaluate(learner.judged, [one], device=CPU)
        results.append([totals, torch.from_numpy(scored.logits), *learner.model.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_of_padded_frames_that_are_no_numbers_reach_neither_loss_nor_gradient_nor_score(bad):
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, True, False], [True, False, False]])
    spoilt = logits.masked_fill(~valid[..., None], bad).requires_grad_()
    labels = torch.tensor([1, 3])
    losses = CLASSIFY.losses(Output(spoilt), labels, valid, 0.1)
    losses.sum().backward()
    assert spoilt.grad.isfinite().all() and (spoilt.grad[~valid] == 0).all()
    torch.testing.assert_close(losses, CLASSIFY.losses(Output(logits), labels, valid, 0.1))
    torch.testing.assert_close(CLASSIFY.scores(Output(spoilt), valid), CLASSIFY.scores(Output(logits), valid))


def test_a_clips_score_is_the_logarithm_of_its_frames_mean_probability():
    batch = clips(5, 7)
    scored = evaluate(Clips(), [batch, clips(3, 8)], device=CPU)
    assert scored.logits.shape == (8, 3)
    model = Clips().eval()
    for row, (frames, valid) in enumerate(zip(batch.frames, batch.valid, strict=True)):
        with torch.no_grad():
            logits = model(frames[valid][None], torch.ones(1, int(valid.sum()), dtype=torch.bool)).logits[0]
        mean = np.mean([np.exp(one) / np.exp(one).sum() for one in logits.double().numpy()], axis=0)
        np.testing.assert_allclose(np.exp(scored.logits[row]), mean, rtol=1e-5)


def test_mixed_clips_share_labels_frames_and_auxiliary_losses():
    """A frame is mixed with the neighbour's; one that is padding in either of both counts for nothing."""
    recipe = BARE.override(mixup=1.0, class_weights="balanced")
    for step in range(4):
        model, seen = Clips(), []
        model.register_forward_hook(lambda _, given, output: seen.append((given, output)))  # noqa: B023
        learner = Learner(model, recipe, CPU, class_images=CLASS_IMAGES)
        batch = clips(4, step)
        totals = learner.step([batch], 0, step, 9)
        (frames, valid), output = seen[0]
        other = batch.frames.roll(1, 0)
        span = batch.frames.float() - other
        share = float(((frames - other) * span).sum() / (span**2).sum())
        assert torch.equal(valid, batch.valid & batch.valid.roll(1, 0)) and 0.5 <= share <= 1
        loss, weight, aux = 0.0, 0.0, 0.0
        for row, label in enumerate(batch.labels.tolist()):
            logs = output.logits[row][valid[row]].log_softmax(1)
            for part, its in ((share, label), (1 - share, batch.labels[row - 1].item())):
                loss -= part * WEIGHTS[its] * logs[:, its].mean().item()
                aux += part * WEIGHTS[its] * output.losses["first"][row].item()
                loss += part * WEIGHTS[its] * sum(value[row].item() for value in output.losses.values())
                weight += part * WEIGHTS[its]
        found = means(totals, learner.loss_names)
        assert found["loss"] == pytest.approx(loss / weight, rel=1e-4)
        assert found["first"] == pytest.approx(aux / weight, rel=1e-4)


@pytest.mark.parametrize("second", [3, 0])
def test_processes_share_auxiliary_losses_and_a_stand_in_has_none(second):
    whole = clips(5 + second, 6)
    parts = [whole.cut(slice(0, 5)), whole.cut(slice(5, None))]
    if not second:
        parts[1] = whole.cut(slice(0, 1))._replace(labels=torch.tensor([STAND_IN]))
    found, sums = [], 0
    for rank, part in enumerate(parts):
        learner = Learner(Clips(), BARE, CPU, processes=OneOfTwo(rank, len(whole.labels)))
        learner.start()
        sums = sums + learner.step([part], 0, 0, 1)
        found.append([parameter.grad for parameter in learner.model.parameters()])
    reference = Clips()
    total, first, second_loss = weighed(reference, [whole], [1, 1, 1])
    total.backward()
    expected = {"loss": total.item(), "first": first.item(), "second": second_loss.item()}
    got = means(sums, learner.loss_names)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    for one, other, parameter in zip(*found, reference.parameters(), strict=True):
        torch.testing.assert_close((one + other) / 2, parameter.grad, rtol=1e-4, atol=1e-6)


def test_scaled_gradients_have_the_auxiliary_losses_in_them():
    plain, scaled = (Learner(Clips(), BARE, CPU) for _ in range(2))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for learner in (plain, scaled):
        train_epoch(learner, [clips(4, 1), clips(4, 2)], 0, steps=2)
    for one, other in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


class Names(Clips):
    """Whose auxiliary losses a test says."""

    losses = None

    def forward(self, frames, valid):
        return super().forward(frames, valid)._replace(losses=self.losses)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({"loss": torch.ones(4)}, "'loss': wanted a name"),
        ({"top1": torch.ones(4)}, "'top1': wanted a name"),
        ({"of two words": torch.ones(4)}, "'of two words': wanted a name"),
        ({"one": torch.ones(())}, r"'one': wanted shape \(4,\), got \(\)"),
        ({"one": torch.ones(4, 2)}, r"'one': wanted shape \(4,\), got \(4, 2\)"),
    ],
)
def test_auxiliary_losses_of_other_shapes_or_names_are_refused(losses, told):
    model = Names()
    model.losses = losses
    with pytest.raises(ValueError, match=told):
        train_epoch(Learner(model, BARE, CPU), [clips(4)], 0, steps=1)


def test_auxiliary_losses_that_come_and_go_are_refused():
    model = Names()
    learner = Learner(model, BARE, CPU)
    train_epoch(learner, [clips(4)], 0, steps=1)
    model.losses = {"late": torch.ones(4)}
    with pytest.raises(ValueError, match="late"):
        train_epoch(learner, [clips(4)], 0, steps=1)


def test_mixed_images_have_no_cross_entropy_of_a_true_label():
    learner = Learner(Clips(), BARE.override(mixup=1.0), CPU)
    train_epoch(learner, [clips(4)], 0, steps=1)
    assert learner.loss_names == ("first", "second")


@pytest.mark.parametrize("older", [False, True])
def test_a_state_in_the_middle_of_an_epoch_knows_its_losses_by_name(tmp_path, older):
    """That of an older version lacks the cross-entropy, and so do the rest of the epoch and the next one."""
    batches = [clips(4, seed) for seed in range(4)]
    straight, stopped, again = (Learner(Clips(), BARE, CPU) for _ in range(3))
    whole = train_epoch(straight, batches, 0, steps=4)
    part = train_epoch(stopped, batches[:2], 0, steps=4)
    known = [0, 1, 2, 3, *range(4 + older, 7)]
    names = stopped.loss_names[older:]
    save_state(tmp_path, Progress(0, 2, part.totals[known].tolist(), 1.0, losses=list(names)), stopped)
    progress, _ = load_state(tmp_path, again)
    assert again.loss_names == names and len(again.no_totals()) == len(known)
    rest = train_epoch(
        again, batches[2:], 0, steps=4, first_step=2, totals=torch.tensor(progress.totals, dtype=torch.float64)
    )
    assert torch.equal(rest.totals, whole.totals[known])
    train_epoch(again, batches, 1, steps=4)
    assert again.loss_names == names
    for losses in (["first"], ["first", "not a name"], [1, 2], 7):
        save_state(tmp_path, Progress(0, 2, part.totals.tolist(), 1.0, losses=losses), stopped)
        (tmp_path / "previous.safetensors").unlink()
        with pytest.raises(CheckpointError, match="no valid state"):
            load_state(tmp_path, Learner(Clips(), BARE, CPU))

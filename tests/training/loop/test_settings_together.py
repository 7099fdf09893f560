"""Settings of a recipe that meet in one number: each pair against a slow formula, written out in NumPy."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from agnet.training.loop.backbone_stages import stages_of_parameters
from agnet.training.loop.engine import Predictions, train_epoch
from agnet.training.loop.learner import Learner, means
from agnet.training.models.backbones.backbone import build_backbone
from agnet.training.models.contract import Output
from agnet.training.samples.loader import STAND_IN, Batch
from agnet.training.tasks import CLASSIFY
from factories import BARE, CPU, GPU_IS_FULL, LUCK, OneOfTwo, Small, batch_of, tiny

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

SEEN = [30, 6, 2]  # training images of each class
BALANCED = [38 / 90, 38 / 18, 38 / 6]  # all of them, by three classes times the class's own
RATE = 0.1


def slow(embeddings, weight, bias, terms, weights, smoothing):
    """Loss and gradients of a linear classifier: a loop over images, and over the labels that each has a share of.

    Args:
        terms: for each image, (share, label) of each of its labels; none of a stand-in.
    """
    loss, divisor = 0.0, 0.0
    weight_gradient, bias_gradient = np.zeros_like(weight), np.zeros_like(bias)
    for embedding, labels in zip(embeddings, terms, strict=True):
        logits = weight @ embedding + bias
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        for share, label in labels:
            target = np.full(len(bias), smoothing / len(bias))
            target[label] += 1 - smoothing
            loss -= share * weights[label] * (target * np.log(probabilities)).sum()
            divisor += share * weights[label]
            by_logits = share * weights[label] * (probabilities - target)
            weight_gradient += np.outer(by_logits, embedding)
            bias_gradient += by_logits
    return loss / divisor, weight_gradient / divisor, bias_gradient / divisor


class Watched:
    """A learner whose classifier alone moves, and what went through it."""

    def __init__(self, recipe, most=99, **options):
        self.model = Small(tiny(), most, GPU_IS_FULL)
        self.inner = self.model.model
        self.before = [p.detach().double().numpy() for p in copy.deepcopy(self.inner.classifier).parameters()]
        self.images, self.embeddings = [], []
        self.inner.register_forward_hook(self._note)
        self.learner = Learner(self.model, recipe, CPU, class_images=SEEN, **options)

    def _note(self, _, given, output):
        self.images.append(given[0].detach())
        self.embeddings.append(output.embedding.detach().double().numpy())

    def shares(self, batches):
        """How much of each batch's images is their own, from the pixels that the network saw."""
        seen, at, found = torch.cat(self.images), 0, []
        for batch in batches:
            mine = batch.images.float()
            other, mixed = mine.roll(1, 0), seen[at : at + len(mine)]
            at += len(mine)
            length = ((mine - other) ** 2).sum()
            found.append(float(((mixed - other) * (mine - other)).sum() / length) if length else 1.0)
        return found


def terms_of(batches, shares):
    for batch, share in zip(batches, shares, strict=True):
        labels = batch.labels.tolist()
        for label, neighbour in zip(labels, labels[-1:] + labels[:-1], strict=True):
            yield [] if label == STAND_IN else [(share, label), (1 - share, neighbour)]


@pytest.mark.parametrize(
    ("weights", "smoothing", "mixup", "most"),
    [*itertools.product(["none", "balanced"], [0.0, 0.1], [0.0, 1.0], [99, 2])],
)
def test_weights_smoothing_mixup_accumulation_and_pieces_are_one_mean(weights, smoothing, mixup, most):
    """A step of three batches, of which the last is short; also where memory holds two images at once."""
    recipe = BARE.override(
        accumulate=3, class_weights=weights, label_smoothing=smoothing, mixup=mixup, backbone_lr=0.0, lr=RATE
    )
    batches = [batch_of(8, 1), batch_of(8, 2), batch_of(3, 3)]
    watched = Watched(recipe, most)
    trained = train_epoch(watched.learner, batches, 0, steps=1)
    shares = watched.shares(batches)
    assert (min(shares) < 0.99) == (mixup > 0)
    loss, by_weight, by_bias = slow(
        np.concatenate(watched.embeddings),
        *watched.before,
        terms_of(batches, shares),
        BALANCED if weights == "balanced" else [1, 1, 1],
        smoothing,
    )
    assert means(trained.totals)["loss"] == pytest.approx(loss, rel=1e-4)
    after = [parameter.detach().double().numpy() for parameter in watched.inner.classifier.parameters()]
    for old, new, gradient in zip(watched.before, after, (by_weight, by_bias), strict=True):
        np.testing.assert_allclose(new, old - RATE * gradient, rtol=1e-4, atol=1e-6)


ONE_FRAME = torch.ones(2, 1, dtype=torch.bool)


@pytest.mark.parametrize("second", [3, 0])
def test_processes_weights_and_smoothing_are_one_mean(second):
    """Gradients are averaged over processes, of which one may have a stand-in alone."""
    recipe = BARE.override(class_weights="balanced", label_smoothing=0.1, backbone_lr=0.0)
    whole = batch_of(5 + second, 4)
    parts = [whole.cut(slice(5)), whole.cut(slice(5, None))]
    if not second:
        parts[1] = whole.cut(slice(1))._replace(labels=torch.tensor([STAND_IN]))
    total = sum(BALANCED[label] for label in whole.labels.tolist())
    found, embeddings, sums = [], [], 0
    for rank, part in enumerate(parts):
        watched = Watched(recipe, processes=OneOfTwo(rank, total))
        watched.learner.start()
        sums = sums + watched.learner.step([part], 0, 0, 1)
        found.append([parameter.grad.double().numpy() for parameter in watched.inner.classifier.parameters()])
        embeddings.append(watched.embeddings[0])
    loss, *gradients = slow(np.concatenate(embeddings), *watched.before, terms_of(parts, [1.0, 1.0]), BALANCED, 0.1)
    assert means(sums)["loss"] == pytest.approx(loss, rel=1e-5)
    for one, other, gradient in zip(*found, gradients, strict=True):
        np.testing.assert_allclose((one + other) / 2, gradient, rtol=1e-4, atol=1e-7)


def test_the_best_answer_for_a_frequent_image_is_its_own_class():
    """300 : 10 and smoothing 0.1. Smoothing alone leaves 0.95 for the true class, whatever the weights."""
    logits = torch.zeros(2, requires_grad=True)
    learner = Learner(tiny(), BARE.override(class_weights="balanced", label_smoothing=0.1), CPU, class_images=[300, 10])
    descent = torch.optim.SGD([logits], lr=1.0)
    for _ in range(300):
        descent.zero_grad()
        learner._loss(Output(logits[None]), torch.tensor([0]), ONE_FRAME[:1]).backward()
        descent.step()
    assert logits.softmax(0)[0].item() == pytest.approx(0.95, abs=1e-3)


def test_a_class_without_training_images_keeps_its_share_of_smoothing():
    learner = Learner(tiny(), BARE.override(class_weights="balanced", label_smoothing=0.3), CPU, class_images=[6, 0, 2])
    logits, labels = torch.tensor([[0.5, 1.0, -1.0], [0.0, 0.25, 2.0]]), torch.tensor([0, 2])
    logs = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True))
    expected = -(8 / 12) * (0.8 * logs[0, 0] + 0.1 * logs[0, 1] + 0.1 * logs[0, 2])
    expected -= 2 * (0.8 * logs[1, 2] + 0.1 * logs[1, 1] + 0.1 * logs[1, 0])
    assert learner._loss(Output(logits), labels, ONE_FRAME).item() == pytest.approx(expected, rel=1e-5)


def test_the_validation_loss_knows_neither_smoothing_nor_weights():
    """Its name elsewhere is negative log-likelihood."""
    logits, labels = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]], dtype=np.float32), np.array([1, 2])
    expected = -np.mean([np.log(1 / (np.e**2 + 1 + np.e)), np.log(np.e**3 / (2 + np.e**3))])
    found = Predictions(logits, labels, np.arange(2)).measures(CLASSIFY, np.full(2, -1))
    # By the probability of class 1, 0.09 and 0.045, and of class 2, its own image comes first.
    assert found == {"loss": pytest.approx(expected, rel=1e-5), "top1": 0.5, "map": 1.0}


def test_the_running_mean_counts_steps_of_the_optimiser_and_leaves_resting_norms_alone():
    """Accumulation: five batches are three steps. Frozen norms: their statistics stay bit for bit in the mean, too."""
    model = tiny(norm=True)
    with torch.no_grad():
        model.backbone.body[1].running_mean.uniform_(-1, 1)
        model.backbone.body[1].running_var.uniform_(0.5, 2)
    learner = Learner(model, BARE.override(ema_decay=0.9, accumulate=2, frozen_norms=True), CPU)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    learner.start()
    batches = [batch_of(4, number) for number in range(5)]
    for step in range(3):
        learner.step(batches[2 * step : 2 * step + 2], 0, step, 3)
        keep = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value.double()
    for name, value in learner.judged.state_dict().items():
        if name in buffers:
            assert torch.equal(value, buffers[name]) and torch.equal(model.get_buffer(name), value), name
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7)


def test_clipping_is_of_the_whole_steps_gradient_before_rates_and_of_what_learns():
    """Accumulated batches, a backbone at half the rate, its first stage frozen."""
    recipe = BARE.override(accumulate=2, clip_norm=0.01, backbone_lr=0.5, frozen_stages=1, lr=RATE)
    model, by_hand = tiny(), tiny()
    frozen = [name for name, stage in stages_of_parameters(by_hand.backbone).items() if stage == 0]
    batches = [batch_of(4, 1), batch_of(3, 2)]
    whole = Batch(*map(torch.cat, list(zip(*batches, strict=True))[:5]))
    train_epoch(Learner(model, recipe, CPU), batches, 0, steps=1)
    nn.functional.cross_entropy(by_hand(whole.images).logits, whole.labels).backward()
    learning = {n: p for n, p in by_hand.named_parameters() if n.removeprefix("backbone.") not in frozen}
    assert frozen and len(learning) == len(list(by_hand.parameters())) - len(frozen)
    norm = sum((p.grad.double() ** 2).sum() for p in learning.values()) ** 0.5
    assert norm > 0.01
    for name, parameter in by_hand.named_parameters():
        rate = 0 if name not in learning else RATE * (0.5 if name.startswith("backbone.") else 1)
        expected = parameter.double() - rate * 0.01 / norm * (parameter.grad.double() if rate else 0)
        torch.testing.assert_close(model.get_parameter(name).double(), expected, rtol=1e-4, atol=1e-7)


def test_a_step_that_scaled_gradients_overflow_moves_no_weight_and_its_mean_towards_them_only():
    """fp16: the step is passed over; the running mean sees the same weights once more."""
    learner = Learner(tiny(), BARE.override(ema_decay=0.9, clip_norm=0.5), CPU)
    train_epoch(learner, [batch_of(4, number) for number in range(2)], 0, steps=2)
    weights = [parameter.clone() for parameter in learner.model.parameters()]
    mean = [parameter.clone() for parameter in learner.judged.parameters()]
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=float("inf"))
    learner.step([batch_of(4, 5)], 1, 0, 2)
    keep = min(0.9, 3 / 12)
    for now, judged, before, earlier in zip(
        learner.model.parameters(), learner.judged.parameters(), weights, mean, strict=True
    ):
        assert torch.equal(now, before)
        torch.testing.assert_close(judged, keep * earlier + (1 - keep) * before, rtol=1e-5, atol=1e-7)


def test_a_resumed_epoch_has_the_mean_the_shares_and_the_rates_of_a_straight_one():
    """Mixup, dropout, accumulation, warm-up, clipping, balanced weights and the running mean, in two parts."""
    recipe = LUCK.override(class_weights="balanced", label_smoothing=0.1, warmup_epochs=1.5)
    batches = [batch_of(4, number) for number in range(9)]
    straight, stopped = (Learner(tiny(norm=True), recipe, CPU, class_images=SEEN) for _ in range(2))
    whole = train_epoch(straight, batches, 1, steps=5)
    asked = iter([False, False, True])
    part = train_epoch(stopped, batches, 1, steps=5, stop=lambda: next(asked))
    rest = train_epoch(stopped, batches[4:], 1, steps=5, first_step=2, totals=part.totals)
    assert torch.equal(rest.totals, whole.totals)
    for one, other in ((straight.model, stopped.model), (straight.judged, stopped.judged)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_stages_are_counted_alike_however_many_of_them_the_head_looks_at():
    one, three = (stages_of_parameters(build_backbone("mobilenet-v3-small", None, stages)) for stages in (1, 3))
    assert one == three and max(one.values()) == 4

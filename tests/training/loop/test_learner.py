"""A step of the optimiser, against the same step written out by hand."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn.functional import cross_entropy

from agnet.data.errors import ConfigurationError, TrainingError
from agnet.training.loop import engine
from agnet.training.loop import learner as learning
from agnet.training.loop.engine import TIMINGS, Trained, evaluate, timings, train_epoch
from agnet.training.loop.learner import Learner, balanced_weights, means
from agnet.training.machine.devices import Device, Pieces, choose_training_device
from agnet.training.models.contract import Views
from agnet.training.recipes import RECIPES
from agnet.training.samples.loader import Batch
from factories import BARE, CPU, CPU_IS_FULL, GPU_IS_FULL, LUCK, Small, batch_of, call, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def gradients_by_hand(model, batch, **loss):
    model.zero_grad()
    cross_entropy(call(model, batch.images, batch.regions[:, 0]).logits, batch.labels, **loss).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_same_parameters(one, other, **tolerance):
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_formula(nesterov):
    model, by_hand = tiny("agnet"), tiny("agnet")
    learner = Learner(model, BARE.override(momentum=0.9, nesterov=nesterov), CPU)
    velocity = [torch.zeros_like(parameter) for parameter in by_hand.parameters()]
    learner.start()
    for step in range(3):
        learner.step([batch_of(4, step)], 0, step, 3)
        for at, gradient in enumerate(gradients_by_hand(by_hand, batch_of(4, step))):
            velocity[at] = 0.9 * velocity[at] + gradient
        with torch.no_grad():
            for parameter, v in zip(by_hand.parameters(), velocity, strict=True):
                parameter -= 0.1 * (parameter.grad + 0.9 * v if nesterov else v)
    assert_same_parameters(model, by_hand, rtol=1e-4, atol=1e-6)


def test_adamw_is_the_formula_with_schedule_clipping_and_decay_of_matrices_only():
    recipe = RECIPES["modern"].override(
        lr=0.01, backbone_lr=0.5, classifier_lr=2.0, weight_decay=0.1, epochs=2, clip_norm=0.5
    )
    model, by_hand = tiny(), tiny()
    learner = Learner(model, recipe, CPU)
    learner.start()
    first = {name: torch.zeros_like(p) for name, p in by_hand.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in by_hand.named_parameters()}
    for step in range(4):
        learner.step([batch_of(4, step)], 0, step, 4)
        gradients = gradients_by_hand(by_hand, batch_of(4, step), label_smoothing=0.1)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        rising = (step + 0.5) / 4  # warm-up is the whole first epoch
        with torch.no_grad():
            for (name, parameter), gradient in zip(by_hand.named_parameters(), gradients, strict=True):
                gradient = gradient * min(1.0, 0.5 / norm)
                rate = 0.01 * rising * (0.5 if name.startswith("backbone.") else 2.0)
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                if parameter.ndim > 1:
                    parameter -= rate * 0.1 * parameter
                mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                parameter -= rate * mean / (square.sqrt() + 1e-8)
    assert_same_parameters(model, by_hand, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", ["plain", "agnet"])
def test_accumulated_batches_are_one_big_batch_also_when_the_last_is_short(model):
    parts = [batch_of(4, 1), batch_of(4, 2), batch_of(3, 3)]
    whole = Batch(*map(torch.cat, list(zip(*parts, strict=True))[:5]))
    recipe = BARE.override(accumulate=3, class_weights="balanced", label_smoothing=0.1)
    accumulated, by_hand = tiny(model), tiny(model)
    weights = balanced_weights([5, 3, 1])
    trained = train_epoch(Learner(accumulated, recipe, CPU, class_images=[5, 3, 1]), parts, 0, steps=1)
    logits = call(by_hand, whole.images, whole.regions[:, 0]).logits
    # An image at a time: 0.9 of its label, a third of 0.1 of every class, and its own class' weight.
    losses = [
        -(0.9 * row[label] + 0.1 * row.mean()) for row, label in zip(logits.log_softmax(1), whole.labels, strict=True)
    ]
    own = weights[whole.labels]
    expected = (own * torch.stack(losses)).sum() / own.sum()
    expected.backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            parameter -= 0.1 * parameter.grad
    assert_same_parameters(accumulated, by_hand, rtol=1e-4, atol=1e-6)
    found = means(trained.totals)
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert found["top1"] == pytest.approx((logits.argmax(1) == whole.labels).float().mean().item())


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 3], [5, 1, 10])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(balanced_weights([5, 1, 0, 10]), [expected[0], expected[1], 0, expected[2]], rtol=1e-6)


@pytest.mark.parametrize("error", [GPU_IS_FULL, CPU_IS_FULL])
def test_what_does_not_fit_goes_through_in_smaller_pieces_with_the_same_outcome(error):
    recipe = BARE.override(accumulate=2, mixup=1.0)
    enough, scarce, told = tiny(), Small(tiny(), 2, error), []
    batches = [batch_of(8, 1), batch_of(5, 2), batch_of(8, 3)]
    straight = train_epoch(Learner(enough, recipe, CPU), batches, 0, steps=2)
    learner = Learner(scarce, recipe, CPU, say=told.append)
    pieces = train_epoch(learner, batches, 0, steps=2)
    assert scarce.seen == [8, 4, *[2, 2, 2, 2], *[2, 2, 1], *[2, 2, 2, 2]]
    assert_same_parameters(enough, scarce.model, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(straight.totals, pieces.totals, rtol=1e-5, atol=0)
    assert learner.micro_batch == 2 and len(told) == 2
    assert "8 images at once" in told[0] and "2 at a time" in told[1] and "\n" not in told[0]


@pytest.mark.parametrize("error", [GPU_IS_FULL, CPU_IS_FULL])
def test_an_evaluation_that_does_not_fit_goes_through_in_smaller_pieces_with_the_same_outcome(error):
    batches, told = [batch_of(5, 1), batch_of(3, 2)], []
    enough, scarce = tiny("agnet"), Small(tiny("agnet"), 2, error)
    expected = evaluate(enough, batches, device=CPU)
    pieces = Pieces(CPU, told.append)
    found = evaluate(scarce, batches, device=CPU, pieces=pieces)
    assert scarce.seen == [5, *[2, 2, 1], *[2, 1]] and len(told) == 1
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-6)
    assert found.rows.tolist() == expected.rows.tolist() and found.labels.tolist() == expected.labels.tolist()
    evaluate(scarce, batches, device=CPU, pieces=pieces)
    assert scarce.seen[6:] == [2, 2, 1, 2, 1] and len(told) == 1  # the next validation knows it


def test_an_image_that_does_not_fit_is_an_error_with_remedies():
    with pytest.raises(TrainingError, match=r"single image.*--image-size"):
        train_epoch(Learner(Small(tiny(), 0, GPU_IS_FULL), BARE, CPU), [batch_of(3)], 0, steps=1)


def test_other_errors_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        train_epoch(Learner(Small(tiny(), 0, RuntimeError("shapes differ")), BARE, CPU), [batch_of(3)], 0, steps=1)


def test_mixup_mixes_pixels_and_labels_and_keeps_the_regions_of_the_larger_share():
    model, seen, shares = tiny("agnet"), [], []
    model.register_forward_hook(lambda _, given, output: seen.append((*given, output.logits.detach())))
    learner = Learner(model, BARE.override(mixup=1.0), CPU)
    for step in range(60):
        batch = batch_of(4, step)
        totals = learner.step([batch], 0, step, 60)
        images, regions, logits = seen.pop()
        mine, other = batch.images.float(), batch.images[[3, 0, 1, 2]].float()
        share = (((images - other) * (mine - other)).sum() / ((mine - other) ** 2).sum()).item()
        torch.testing.assert_close(images, share * mine + (1 - share) * other, atol=1e-4, rtol=0)
        assert torch.equal(regions, batch.regions[:, 0]) and 0.5 <= share <= 1
        expected = share * cross_entropy(logits, batch.labels) + (1 - share) * cross_entropy(
            logits, batch.labels[[3, 0, 1, 2]]
        )
        assert means(totals)["loss"] == pytest.approx(expected.item(), rel=1e-4)
        shares.append(share)
    # The larger of x and 1 - x, for x from Beta(1, 1), is even between a half and one.
    assert np.mean(shares) == pytest.approx(0.75, abs=5 * 0.5 / np.sqrt(12 * 60))
    assert len(set(shares)) == 60


def test_an_epoch_in_two_parts_is_the_epoch_bit_for_bit():
    batches = [batch_of(4, number) for number in range(9)]
    straight, stopped = Learner(tiny("agnet", norm=True), LUCK, CPU), Learner(tiny("agnet", norm=True), LUCK, CPU)
    whole = train_epoch(straight, batches, 1, steps=5)
    asked = iter([False, False, True])
    source = iter(batches)
    part = train_epoch(stopped, source, 1, steps=5, stop=lambda: next(asked))
    assert part.step == 2 and whole.step == 5
    torch.rand(17)  # what happens in between does not matter
    seen = []
    rest = train_epoch(
        stopped, source, 1, steps=5, first_step=part.step, totals=part.totals, progress=lambda *now: seen.append(now)
    )
    assert rest.step == 5 and torch.equal(rest.totals, whole.totals)
    assert seen[0][0] == 24 and seen[-1] == (36, means(whole.totals))
    for one, other in ((straight.model, stopped.model), (straight.judged, stopped.judged)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_luck_differs_between_steps_epochs_and_seeds():
    outcomes = set()
    for seed, epoch, step in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]:
        learner = Learner(tiny(), BARE.override(dropout=0.5), CPU, seed=seed)
        learner.start()
        outcomes.add(learner.step([batch_of(8)], epoch, step, 9)[learning.LOSS].item())
    assert len(outcomes) == 4


def test_the_running_mean_of_the_weights_against_a_loop():
    learner = Learner(tiny(norm=True), BARE.override(ema_decay=0.3, ema_warmup=6), CPU)
    expected = {name: value.clone() for name, value in learner.model.state_dict().items()}
    learner.start()
    for step in range(5):
        learner.step([batch_of(4, step)], 0, step, 5)
        keep = min(0.3, (1 + step) / (6 + step))
        for name, value in learner.model.state_dict().items():
            expected[name] = value if "num_batches" in name else keep * expected[name] + (1 - keep) * value
    assert learner.judged is not learner.model and not learner.judged.training
    mean = learner.judged.state_dict()
    assert mean["backbone.body.1.num_batches_tracked"] == 5
    for name, value in expected.items():
        torch.testing.assert_close(mean[name], value, rtol=1e-5, atol=1e-7)
    assert not torch.equal(mean["classifier.weight"], learner.model.classifier.weight)


def test_without_a_running_mean_the_network_itself_is_judged():
    learner = Learner(tiny(), BARE, CPU)
    assert learner.judged is learner.model


class Far(Device):
    """A device that answers late, as a GPU."""

    answers_at_once = False


def test_a_loss_that_is_no_number_stops_before_it_does_harm():
    learner = Learner(tiny(), BARE.override(lr=0.3), CPU)
    batches = [batch_of(4, number) for number in range(4)]
    train_epoch(learner, batches[:1], 0, steps=4)
    with torch.no_grad():
        learner.model.backbone.body[3].bias[2] = torch.inf
    before = [parameter.clone() for parameter in learner.model.parameters()]
    with pytest.raises(TrainingError) as failed:
        train_epoch(learner, batches[1:], 2, steps=4, first_step=1)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    told = str(failed.value)
    for part in ("the loss is nan in epoch 3, step 2 of 4", "learning rate 0.3", "images finite, regions finite"):
        assert part in told
    assert "logits NOT finite" in told and "parameters not finite: backbone.body.3.bias;" in told
    assert "--clip-norm 0.1" in told and "--precision" not in told


def test_a_device_that_answers_late_is_asked_seldom_and_remembers_the_first_bad_step(monkeypatch):
    learner = Learner(tiny("agnet"), BARE.override(clip_norm=1.0), Far(torch.device("cpu")))
    asked = []
    original = learning.Watchdog.check
    monkeypatch.setattr(
        learning.Watchdog, "check", lambda self, *given: (asked.append(len(asked)), original(self, *given))
    )
    progress = []
    train_epoch(learner, [batch_of(2)] * 45, 0, steps=45, progress=lambda images, _: progress.append(images))
    assert len(asked) == 4 and progress == [40, 80, 90]  # and at the end of what is trained at a stretch
    bad = batch_of(2)
    bad.regions[0, 0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"step 4 of 45.*gradient norm of the step before .*regions NOT finite"):
        train_epoch(learner, [batch_of(2)] * 3 + [bad] + [batch_of(2)] * 41, 0, steps=45)
    assert len(asked) == 5


def test_an_interrupted_epoch_is_looked_at_before_it_can_be_saved():
    learner, bad, asked = Learner(tiny("agnet"), BARE, Far(torch.device("cpu"))), batch_of(2), iter([False, True])
    bad.regions[0, 0, 0] = torch.nan
    with pytest.raises(TrainingError, match="step 1 of 45"):
        train_epoch(learner, [bad] * 45, 0, steps=45, stop=lambda: next(asked))


def test_an_update_that_spoils_the_weights_is_noticed_though_no_loss_comes_after_it():
    learner = Learner(tiny("agnet"), BARE, Far(torch.device("cpu")))
    train_epoch(learner, [batch_of(2)] * 3, 0, steps=3)
    learner.model.classifier.weight.register_hook(lambda gradient: gradient * torch.nan)
    told = r"finite in epoch 2, step 1, but not .* \(learning rate 0.1\): weights not finite: classifier.weight. Tr"
    with pytest.raises(TrainingError, match=told):
        train_epoch(learner, [batch_of(2)], 1, steps=1)


def test_memory_that_does_not_suffice_for_the_optimiser_is_said(monkeypatch):
    learner = Learner(tiny(), BARE, CPU)

    def full(*_):
        raise GPU_IS_FULL

    monkeypatch.setattr(learner.scaler, "step", full)
    with pytest.raises(TrainingError, match=r"state of the optimiser.*--frozen-stages"):
        train_epoch(learner, [batch_of(2)], 0, steps=1)


def test_reduced_precision_is_named_among_the_remedies_and_fp16_belongs_on_gpus():
    learner = Learner(tiny(), BARE, Device(torch.device("cpu"), "bf16"))
    assert np.isfinite(means(train_epoch(learner, [batch_of(4)], 0, steps=1).totals)["loss"])
    nn.init.constant_(learner.model.classifier.bias, torch.inf)
    with pytest.raises(TrainingError, match="--precision fp32"):
        train_epoch(learner, [batch_of(4)], 0, steps=1)
    with pytest.raises(ConfigurationError, match="CUDA"):
        choose_training_device("cpu", "fp16")


@pytest.mark.parametrize("views", [None, Views((32, 64))], ids=str)
def test_compiled_is_the_same_network_under_the_same_names(views):
    recipe = BARE.override(dropout=0.2)
    plain, compiled = (Learner(tiny("agnet"), recipe, CPU, compiler=compiler) for compiler in (None, "aot_eager"))
    for learner in (plain, compiled):
        learner.model.views = views
    for learner in (plain, compiled):
        train_epoch(learner, [batch_of(4), batch_of(4, 1)], 0, steps=2)
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()
    assert_same_parameters(plain.model, compiled.model, rtol=1e-3, atol=1e-5)


def test_a_compiler_that_fails_says_what_to_leave_out():
    def fails(*_):
        raise ValueError("no such instruction")

    with pytest.raises(TrainingError, match="without --compile"):
        train_epoch(Learner(tiny(), BARE, CPU, compiler=fails), [batch_of(4)], 0, steps=1)


@pytest.mark.parametrize("kind", ["plain", "agnet"])
def test_dropout_is_before_the_classifier_and_only_while_training(kind):
    model, without = tiny(kind), tiny(kind)
    Learner(model, BARE.override(dropout=0.5), CPU)
    assert model.state_dict().keys() == without.state_dict().keys()
    batch, seen = batch_of(4), []
    inputs = batch.images, batch.regions[:, 0]
    assert torch.equal(call(model.eval(), *inputs).logits, call(without.eval(), *inputs).logits)
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    embedding = call(model.train(), *inputs).embedding
    kept = seen[0] != 0
    assert 0.2 < kept.float().mean() < 0.8
    torch.testing.assert_close(seen[0][kept], 2 * embedding[kept])


def test_time_spent_waiting_for_images_is_told_apart(monkeypatch):
    """By a clock that goes on only while somebody works: 3 s for a batch to come, 1 s for a step."""
    now = [100.0]
    monkeypatch.setattr(engine.time, "perf_counter", lambda: now[0])

    def slow():
        for number in range(4):
            now[0] += 3
            yield batch_of(2, number)

    def trained(batches):
        learner = Learner(tiny(), BARE, CPU)
        learner.model.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 1))
        return train_epoch(learner, batches, 0, steps=4)

    quick, waiting = trained([batch_of(2)] * 4), trained(slow())
    assert (quick.data_wait, quick.seconds, quick.images_per_second) == (0, 4, 2)
    assert (waiting.data_wait, waiting.seconds, waiting.images_per_second) == (0.75, 16, 0.5)
    assert set(timings([waiting])) < set(TIMINGS) and waiting.peak_memory > 10_000_000


def test_an_epoch_in_parts_has_waited_as_long_as_all_of_them():
    """A state saved every few minutes cuts an epoch; its line tells of all of it."""
    parts = [Trained(5, torch.zeros(4), 40, 30.0, 3.0, 7_000_000), Trained(6, torch.zeros(4), 8, 2.0, 1.0, 5_000_000)]
    assert timings(parts) == {"data_wait": 0.125, "peak_memory_mb": 7}
    assert timings([]) == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_scaled_gradients_are_clipped_and_applied_as_if_they_were_not_scaled(optimizer):
    """As fp16 on a GPU has them, here in single precision on a CPU."""
    recipe = BARE.override(optimizer=optimizer, lr=0.1, clip_norm=0.01)
    plain, scaled = (Learner(tiny(), recipe, CPU) for _ in range(2))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for learner in (plain, scaled):
        train_epoch(learner, [batch_of(4, number) for number in range(3)], 0, steps=3)
    assert_same_parameters(plain.model, scaled.model, rtol=1e-5, atol=1e-7)
    before = [parameter.clone() for parameter in scaled.model.parameters()]
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=float("inf"))  # it overflows: the step is passed over
    train_epoch(scaled, [batch_of(4)], 0, steps=1)
    assert all(torch.equal(one, other) for one, other in zip(before, scaled.model.parameters(), strict=True))

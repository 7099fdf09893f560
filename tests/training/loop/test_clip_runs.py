"""Training on clips: a network of images on their frames, the run that stops and continues, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from agnet.data.errors import ConfigurationError, TrainingError
from agnet.data.sampling import Sampling
from agnet.training.loop.engine import TIMINGS, evaluate, train_epoch
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Console, Job
from agnet.training.loop.learner import Learner, means
from agnet.training.loop.preflight import check_input
from agnet.training.loop.preparation import build_learner, build_network
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoints import load_checkpoint
from agnet.training.samples.loader import STAND_IN, Batch
from factories import BARE, CPU, GPU_IS_FULL, OneOfTwo, Small, tiny

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

PLAIN = ModelSettings(classes=3, regions=3, backbone="mobilenet-v3-small", model="plain")
RUN = RunSettings(weights="none", workers=0, device="cpu")
CLIPS = RECIPES["clips"].override(
    frames=3, sampling="window", frame_rate=10.0, batch_size=2, epochs=2, image_size=32, backbone_lr=0.1
)
LUCK = CLIPS.override(mixup=0.4, ema_decay=0.9, erasing=0.5)


def clips(lengths, seed=0):
    """Clips of so many frames of 16 x 16 pixels, with six regions, then noise as padding."""
    generator = torch.Generator().manual_seed(seed)
    count, frames = len(lengths), max(lengths)
    pixels = torch.randint(0, 256, (count, frames, 3, 16, 16), dtype=torch.uint8, generator=generator)
    corners = torch.rand(count, frames, 6, 2, 2, generator=generator).sort(dim=3).values.flatten(3)
    valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return Batch(pixels, valid, corners, torch.arange(count) % 3, torch.arange(count))


def frame_by_frame(model, batch):
    """Logits of the valid frames of each clip, computed one by one."""
    return [
        torch.cat([model(*batch_of_one.inputs(model.inputs)).logits for batch_of_one in singles(batch, row)])
        for row in range(len(batch.labels))
    ]


def singles(batch, row):
    for number in range(int(batch.valid[row].sum())):
        yield Batch.of_images(batch.frames[row, number][None], batch.regions[row, number][None])


@pytest.mark.parametrize("model", ["plain", "agnet"])
@pytest.mark.parametrize("most", [99, 5])
def test_a_network_of_images_learns_from_the_mean_loss_of_each_clips_frames(model, most):
    """As a whole, and in halves once memory does not suffice for more than ``most`` frames."""
    batch = clips([4, 1, 2, 3])
    reference, own = tiny(model), tiny(model)
    told = []
    recipe = BARE.override(backbone_lr=1.0, frames=4)
    trained = train_epoch(Learner(Small(own, most, GPU_IS_FULL), recipe, CPU, say=told.append), [batch], 0, steps=1)
    logits = frame_by_frame(reference.train(), batch)
    losses = [cross_entropy(one, label.expand(len(one))) for one, label in zip(logits, batch.labels, strict=True)]
    loss = sum(losses) / len(losses)
    loss.backward()
    probabilities = torch.stack([one.softmax(1).mean(0) for one in logits])
    assert means(trained.totals)["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert means(trained.totals)["top1"] == (probabilities.argmax(1) == batch.labels).float().mean()
    for got, parameter in zip(own.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got, parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)
    if most == 5:
        assert len(told) == 1 and "4 clips at once: continuing with 2 at a time" in told[0]


def test_a_clips_scores_are_its_frames_mean_probabilities_in_any_batch():
    batch, model = clips([4, 1, 2, 3]), tiny("agnet", norm=True)
    found = evaluate(model, [batch.cut(slice(0, 3)), batch.cut(slice(3, 4))], device=CPU)
    order = torch.tensor([3, 1, 0, 2])
    shuffled = evaluate(model, [Batch(*(None if one is None else one[order] for one in batch))], device=CPU)
    with torch.no_grad():
        wanted = [one.softmax(1).mean(0).numpy() for one in frame_by_frame(model.eval(), batch)]
    np.testing.assert_allclose(np.exp(found.logits), wanted, rtol=1e-5)
    np.testing.assert_allclose(shuffled.logits, found.logits[order], rtol=1e-5, atol=1e-6)


def test_mixed_clips_and_a_batch_norm_see_no_padding():
    recipe = BARE.override(backbone_lr=1.0, mixup=1.0)
    states = []
    for seed in (0, 1):
        batch = clips([4, 1, 2, 3])
        noise = clips([4, 1, 2, 3], seed).frames
        model = tiny("plain", norm=True)
        frames = torch.where(batch.valid[..., None, None, None], batch.frames, noise)
        train_epoch(Learner(model, recipe, CPU), [batch._replace(frames=frames)], 0, steps=1)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert states[0]["backbone.body.1.running_mean"].any()


def test_two_processes_share_clips_of_unequal_lengths_and_a_stand_in_counts_nothing():
    batch = clips([4, 1, 2])
    parts = [batch, batch.cut(slice(0, 1))._replace(labels=torch.tensor([STAND_IN]))]
    found = []
    for rank, part in enumerate(parts):
        learner = Learner(tiny("agnet"), BARE, CPU, processes=OneOfTwo(rank, 3))
        learner.step([part], 0, 0, 1)
        found.append([parameter.grad for parameter in learner.model.parameters()])
    alone = Learner(tiny("agnet"), BARE, CPU)
    alone.step([batch], 0, 0, 1)
    for one, other, parameter in zip(*found, alone.model.parameters(), strict=True):
        torch.testing.assert_close((one + other) / 2, parameter.grad, rtol=1e-4, atol=1e-6)


class Stopped(Exception):
    pass


def test_a_run_that_stops_within_an_epoch_continues_bit_for_bit(clip_boxes, clip_folder, tmp_path):
    def train(name, console, **options):
        fit(Job(tmp_path / name, clip_boxes, clip_folder, PLAIN, LUCK, RUN, **options), console)

    steps, said = [], []

    def counts(what, total):
        return lambda done, values: steps.append(what) if what.startswith("epoch") else None

    def stops(what, total):
        def shown(done, values):
            if what.startswith("epoch 2") and done == 4:
                raise Stopped

        return shown

    train("straight", Console(watch=counts))
    assert len(steps) == 2 * 3  # six clips
    with pytest.raises(Stopped):
        train("again", Console(watch=stops), save_every=1e-9)
    assert len(log_of(tmp_path / "again")) == 1
    train("again", Console(say=said.append), resume=True)
    assert "after 1 step of epoch 2 of 2" in said[0]
    assert result_of(tmp_path / "again") == result_of(tmp_path / "straight")
    checkpoint = load_checkpoint(tmp_path / "straight" / "best.safetensors")
    assert checkpoint.sampling == Sampling(3, "window", 10.0)


def test_the_checkpoint_of_segments_has_windows_as_long_as_a_training_clip(clip_boxes, clip_folder, tmp_path):
    recipe = LUCK.override(sampling="segments", frame_rate=15.0, epochs=1)
    fit(Job(tmp_path / "run", clip_boxes, clip_folder, PLAIN, recipe, RUN))
    sampling = load_checkpoint(tmp_path / "run" / "best.safetensors").sampling
    # Training clips have frames of the persons who are not held out, at 10 a second.
    persons = [int(name.split(b"/p")[1][:1]) for name in clip_boxes.names[clip_boxes.usable[clip_boxes.rows("train")]]]
    seconds = float(np.median([((3, 5, 9)[person] - 1) / 10 for person in persons]))
    assert sampling.mode == "segments" and sampling.frames / sampling.rate == pytest.approx(seconds, rel=1e-4)
    segments = np.diff(sampling.times(seconds))
    windows = np.diff(replace(sampling, mode="window").times(seconds))
    np.testing.assert_allclose(windows, segments, rtol=1e-4)


def log_of(run):
    return (run / "log.jsonl").read_text().splitlines()


def result_of(run):
    log = [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in log_of(run)]
    return log, (run / "best.safetensors").read_bytes()


def test_what_clips_cannot_be_trained_with_is_refused_by_name(clip_boxes, boxes_file):
    for changes, told in (
        ({"frames": 0}, r"is of clips, and this recipe of images; use --frames 16"),
        ({"regions": "live"}, "proposed live for clips; use --regions cached"),
        ({"images_per_class": 2, "triplet": 1.0}, "'images_per_class': .*--images-per-class 0 --triplet 0"),
    ):
        recipe = replace(CLIPS, sampling="segments", frame_rate=15.0, **changes)
        with pytest.raises(ConfigurationError, match=told):
            check_input(clip_boxes, recipe, proposes=True)


def test_a_clip_that_does_not_fit_names_its_frames():
    learner = Learner(Small(tiny("plain"), 3, GPU_IS_FULL), BARE.override(frames=4), CPU)
    with pytest.raises(TrainingError, match="a single clip of 4 frames; use fewer --frames, free some"):
        learner.step([clips([4, 2])], 0, 0, 1)


def test_the_last_clip_on_its_own_has_frames_for_a_batch_norm(clip_boxes):
    changes = {"batch_size": 5, "backbone_lr": 1.0}
    for frames, refused in ((3, False), (1, True)):
        recipe = CLIPS.override(frames=frames, **changes)
        arguments = build_network(PLAIN), recipe, RUN, CPU, clip_boxes, lambda text: None
        if refused:
            with pytest.raises(ConfigurationError, match="leave one"):
                build_learner(*arguments)
        else:
            build_learner(*arguments)

"""Whatever stops `agnet train`, it goes on and ends as if nothing had: the command in processes of its own."""

import json
import os
import resource
import shutil
import signal
import sys

import pytest
from safetensors import safe_open

from training_crash import result_of, waiting_before  # runs of three epochs of three steps

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and sends signals")

SMOOTH = ("--ema-decay", "0.9", "--mixup", "0.4", "--dropout", "0.1")  # all that could differ when it goes on


@pytest.fixture(scope="module")
def straight(nursery, place):
    child = nursery.train(place / "boxes.h5", place / "straight", "--root", place / "images", *SMOOTH)
    assert child.wait() == 0, child.said()
    return place / "straight"


@pytest.fixture
def train(nursery, place):
    """Start a run in ``place``."""

    def start(run, *options, **more):
        return nursery.train(place / "boxes.h5", place / run, "--root", place / "images", *SMOOTH, *options, **more)

    return start


def progress_of(run, name="last.safetensors"):
    with safe_open(run / name, framework="pt") as file:
        return json.loads(file.metadata()["agnet"])


def test_kills_at_random_moments_change_nothing(nursery, place, straight):
    options = ("--root", place / "images", *SMOOTH)
    ends = nursery.kill_often(place / "boxes.h5", place / "killed", 6, 1.0, 0, *options)
    assert ends and all(end == result_of(straight) for end in ends)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_in_the_middle_of_an_epoch_and_says_how_to_go_on(train, place, straight, number, code):
    run = f"signalled-{code}"
    child = train(run, before=waiting_before(1, 1))
    child.wait_for(lambda: "here" in child.said())
    child.send(number)
    assert child.wait() == code
    assert "after 2 steps of epoch 2 of 3" in child.said() and "--resume" in child.said()
    assert "Traceback" not in child.said()
    found = progress_of(place / run)
    assert (found["epoch"], found["step"]) == (1, 2)
    # Readers in other processes make no difference either.
    child = train(run, "--resume", "--workers", "1")
    assert child.wait() == 0, child.said()
    assert "resuming from last.safetensors, after 2 steps of epoch 2 of 3" in child.said()
    assert result_of(place / run) == result_of(straight)


def test_a_second_signal_while_saving_ruins_nothing(train, place, straight):
    """It arrives in the middle of writing, later than torchrun's copy of the first one would."""
    before = """
import os, signal
import agnet.training.runs.checkpoints as checkpoints
import agnet.training.loop.interruption as interruption
interruption._SAME_SECONDS = 0.0
whole = checkpoints.save_file

def save_file(tensors, path, metadata):
    whole(tensors, path, metadata)
    if any(name.startswith("optimizer.") for name in tensors):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

checkpoints.save_file = save_file
"""
    child = train("twice", before=before)
    assert child.wait() == 130, child.said()
    assert "after epoch 1 of 3;" in child.said()
    assert train("twice", "--resume").wait() == 0
    assert result_of(place / "twice") == result_of(straight)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_state_is_noticed_and_the_one_before_it_taken(train, place, straight, damage):
    run = place / f"damaged-{damage}"
    shutil.copytree(straight, run)
    content = bytearray((run / "last.safetensors").read_bytes())
    content[-1000] ^= 16
    (run / "last.safetensors").write_bytes({"cut": content[:-1], "flipped": content}[damage])
    child = train(run.name, "--resume")
    assert child.wait() == 0, child.said()
    assert "last.safetensors is" in child.said() and "resuming from previous.safetensors, after epoch 2" in child.said()
    assert result_of(run) == result_of(straight)


def test_without_any_sound_state_it_says_so(train, place, straight):
    run = place / "lost"
    shutil.copytree(straight, run)
    for name in ("last.safetensors", "previous.safetensors"):
        (run / name).write_bytes(b"x" * 100)
    before = (run / "best.safetensors").read_bytes()
    child = train("lost", "--resume")
    assert child.wait() == 1
    assert child.said().splitlines()[-1].startswith("Error: ") and "no valid state" in child.said()
    assert (run / "best.safetensors").read_bytes() == before


def test_best_weights_that_a_kill_kept_from_being_written_are_written_on_resuming(train, place, straight):
    """A state of the chosen epoch's end holds them."""
    run = place / "unwritten"
    assert train("unwritten", "--stop-after", "1").wait() == 0
    expected = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").unlink()
    (run / "log.jsonl").write_text("")
    assert train("unwritten", "--stop-after", "1", "--resume").wait() == 0
    assert (run / "best.safetensors").read_bytes() == expected
    assert len((run / "log.jsonl").read_text().splitlines()) == 1


def test_a_finished_run_says_so_and_is_left_alone(train, place, straight):
    before = result_of(straight), (straight / "last.safetensors").read_bytes()
    child = train("straight", "--resume")
    assert child.wait() == 0 and "finished: 3 epochs" in child.said()
    assert (result_of(straight), (straight / "last.safetensors").read_bytes()) == before


def test_a_second_training_into_the_same_folder_stops(train, place):
    first = train("contested", before=waiting_before(0, 1))
    first.wait_for(lambda: "here" in first.said())
    second = train("contested")
    assert second.wait() == 1
    assert "another process is training into" in second.said().splitlines()[-1]
    first.send(signal.SIGINT)
    assert first.wait() == 130
    third = train("contested", "--resume", "--stop-after", "1")  # the folder is free again
    assert third.wait() == 0, third.said()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files")
def test_a_full_disk_is_one_line_and_loses_nothing(train, place, straight):
    run = place / "full"
    assert train("full", "--stop-after", "2").wait() == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    limits = len(before["best.safetensors"]) // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    full = f"import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, {limits}); "
    child = train("full", "--resume", before=full + "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)")
    assert child.wait() == 1
    assert child.said().splitlines()[-1].startswith("Error: cannot write") and "Traceback" not in child.said()
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before and not any(name.endswith(".tmp") for name in after)
    assert train("full", "--resume").wait() == 0
    assert result_of(run) == result_of(straight)


def test_several_seeds_are_resumed_as_a_whole(train, place, straight):
    """The second seed is interrupted; on resuming, the first is finished, and the third not begun."""
    options = ("--seeds", "0", "7", "3")
    child = train("seeds", *options, before=waiting_before(1, 1, seed=7))
    child.wait_for(lambda: "here" in child.said())
    child.send(signal.SIGTERM)
    assert child.wait() == 143 and not (place / "seeds" / "seed-3").exists()
    child = train("seeds", *options, "--resume")
    assert child.wait() == 0, child.said()
    assert result_of(place / "seeds" / "seed-0") == result_of(straight)  # whose seed is 0
    content = json.loads((place / "seeds" / "seeds.json").read_text())
    losses = [content["runs"][f"seed-{seed}"]["val_loss"] for seed in (0, 7, 3)]
    mean = sum(losses) / 3
    sd = (sum((loss - mean) ** 2 for loss in losses) / 2) ** 0.5
    half = 4.302652729749 * sd / 3**0.5  # Student's t for 2 degrees of freedom, from a table
    got = content["figures"]["val_loss"]
    expected = [mean, sd, max(mean - half, 0), mean + half]
    assert [got["mean"], got["sd"], got["low"], got["high"]] == pytest.approx(expected)
    top1 = content["figures"]["val_top1"]
    assert 0 <= top1["low"] <= top1["mean"] <= top1["high"] <= 1  # Student's t knows no bounds, a share has some
    assert f"val_loss of 3 seeds: {mean:.4f} ± {sd:.4f}, 95% interval of the mean" in child.said()
    again = train("seeds")  # one seed among several would be mistaken for all
    assert again.wait() == 1 and "several seeds" in again.said()

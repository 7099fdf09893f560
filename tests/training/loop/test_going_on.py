"""A finished run: its states go, it says that it is finished, and where its rates allow it goes on to more epochs."""

import json

import pytest

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, MismatchError
from agnet.training.loop import fit as story
from agnet.training.loop.engine import TIMINGS
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Console, Job
from agnet.training.loop.state import Progress, check_same_past, drop_states
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs import folder as run_folder
from agnet.training.runs.folder import read_config

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

PLAIN = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")
STEP = RECIPES["modern"].override(
    epochs=4, batch_size=3, image_size=32, schedule="step", step_epochs=3, ema_decay=0.9, mixup=0.4
)
RUN = RunSettings(weights="none", workers=0, device="cpu")
STATES = {"last.safetensors", "previous.safetensors"}


@pytest.fixture
def train(boxes_file, folder, tmp_path):
    """``(name, recipe, **options)`` trains into ``tmp_path``; returns the folder and what was said."""
    boxes = read_boxes(boxes_file)

    def run(name, recipe=STEP, settings=RUN, **options):
        said = []
        fit(Job(tmp_path / name, boxes, folder, PLAIN, recipe, settings, **options), Console(say=said.append))
        return tmp_path / name, said

    return run


def names(run):
    return {path.name for path in run.iterdir()}


def end_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    log = [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]
    return log, (run / "best.safetensors").read_bytes(), (run / "seen.txt").read_bytes()


def test_the_states_go_when_a_run_has_finished_and_it_still_says_so(train):
    run, _ = train("run", STEP.override(epochs=2), stop_after=1)
    assert STATES & names(run)  # stopped is not finished
    _, said = train("run", STEP.override(epochs=2), resume=True)
    assert not STATES & names(run) and said[-1].startswith("finished: 2 epochs; epoch ")
    before = end_of(run)
    _, again = train("run", STEP.override(epochs=2), resume=True)
    assert again == said[-1:] and end_of(run) == before
    with pytest.raises(CheckpointError, match="already holds a run"):
        train("run", STEP.override(epochs=2))
    with pytest.raises(MismatchError, match="lr ="):
        train("run", STEP.override(epochs=2, lr=1.0), resume=True)


def test_two_epochs_and_two_more_are_four(train):
    straight, _ = train("straight")
    run, _ = train("run", STEP.override(epochs=2), keep_states=True)
    assert names(run) >= STATES
    with pytest.raises(MismatchError, match="epochs = 2, now it is 4"):  # not unless it is asked for
        train("run", STEP, resume=True)
    train("run", STEP, resume=True, other_epochs=True)
    assert end_of(run) == end_of(straight) and not STATES & names(run)
    config = read_config(run)
    assert config["recipe"]["epochs"] == 4
    assert config["epochs_before"] == [{"epochs": 2, "finished_epochs": 2, "steps": 0}]
    # In the middle, and to fewer.
    short, _ = train("short", STEP.override(epochs=9), stop_after=3)
    train("short", STEP, resume=True, other_epochs=True)
    assert end_of(short) == end_of(straight) and read_config(short)["epochs_before"][0]["epochs"] == 9


def test_what_cannot_go_on_names_the_remedy(train):
    run, _ = train("run", STEP.override(epochs=1))
    with pytest.raises(CheckpointError, match=r"finished its 1 epochs, .*--weights \S*run --epochs 4 .*--keep-states"):
        train("run", STEP, resume=True, other_epochs=True)
    cosine = STEP.override(schedule="cosine", warmup_epochs=1.0)
    train("cosine", cosine.override(epochs=3), stop_after=2)
    with pytest.raises(MismatchError, match=r"epochs = 3.*cosine.*--weights \S*cosine --epochs 4 .*--schedule step"):
        train("cosine", cosine, resume=True, other_epochs=True)
    with pytest.raises(MismatchError, match="already after epoch 2 of 3; use --epochs 2 or more"):
        train("cosine", cosine.override(epochs=1), resume=True, other_epochs=True)
    for state in STATES:
        (run.parent / "cosine" / state).unlink()
    with pytest.raises(CheckpointError, match="no longer has a state to resume from"):
        train("cosine", cosine.override(epochs=3), resume=True)


def test_while_it_warms_up_a_cosine_knows_nothing_of_its_end(train):
    cosine = STEP.override(schedule="cosine", warmup_epochs=1.0, epochs=2)
    straight, _ = train("straight", cosine)
    run, _ = train("run", cosine.override(epochs=3), stop_after=1)
    train("run", cosine, resume=True, other_epochs=True)
    assert end_of(run) == end_of(straight)


@pytest.mark.parametrize("recipe", [STEP, STEP.override(schedule="cosine"), STEP.override(warmup_epochs=2.5)])
def test_rates_are_the_same_where_the_formula_says_so(recipe):
    for other in (2, 4, 7):
        for epochs in range(1, 3):
            moments = [epoch / 100 for epoch in range(100 * epochs)]
            longer = recipe.override(epochs=other)
            same = all(longer.lr_factor(moment) == recipe.lr_factor(moment) for moment in moments)
            assert recipe.same_rates(longer, epochs) == same, (other, epochs)


def test_rates_of_the_first_phase_do_not_depend_on_the_length_of_the_second():
    cosine = STEP.override(schedule="cosine", warmup_epochs=1.0, epochs=6, head_epochs=3)
    for epochs, same in ((3, True), (4, True), (5, False)):
        longer = cosine.override(epochs=9)
        rates = [
            [one.phase(epoch).recipe.lr * one.phase(epoch).lr_factor(epoch + 0.5) for epoch in range(epochs)]
            for one in (cosine, longer)
        ]
        assert (rates[0] == rates[1]) == same == cosine.same_rates(longer, epochs)


def test_patience_that_is_exhausted_ends_a_run_whatever_its_epochs(train, monkeypatch):
    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(
        "agnet.training.loop.engine.Predictions.measures",
        lambda self, task, cameras: {"loss": next(losses), "top1": 0.0},
    )
    patient = STEP.override(patience=1)
    run, said = train("run", patient)
    assert len(end_of(run)[0]) == 2 and "no better val_loss for 1 epoch: finished; epoch 1 is kept" in said[-1]
    assert not STATES & names(run)
    _, again = train("run", patient.override(epochs=9), resume=True, other_epochs=True)
    assert again == said[-1:]


def test_a_kill_while_the_states_go_is_harmless(train, monkeypatch):
    class Killed(BaseException):
        pass

    straight, _ = train("straight", STEP.override(epochs=2))
    for number in (1, 2):  # before the first state went, and before the second
        deleted = []

        def drop(run, number=number, deleted=deleted):
            for name in (run_folder.PREVIOUS, run_folder.LAST):
                if len(deleted) + 1 == number:
                    raise Killed
                (run / name).unlink()
                deleted.append(name)

        with monkeypatch.context() as patch:
            patch.setattr(story, "drop_states", drop)
            with pytest.raises(Killed):
                train(f"run-{number}", STEP.override(epochs=2))
        run, said = train(f"run-{number}", STEP.override(epochs=2), resume=True)
        assert end_of(run) == end_of(straight) and not STATES & names(run) and "finished: 2 epochs" in said[-1]


def test_the_older_state_goes_first(tmp_path, monkeypatch):
    for name in STATES:
        (tmp_path / name).write_bytes(b"x")
    gone = []
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, missing_ok: gone.append(path.name))
    drop_states(tmp_path)
    assert gone == ["previous.safetensors", "last.safetensors"]


def test_fewer_epochs_than_steps_have_begun_are_too_few(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({name: {} for name in ("model", "run", "boxes", "versions")} | {"recipe": {"epochs": 9}})
    )
    progress = Progress(1, 2, [1.0] * 4, 1.0, [{"epoch": 1}])
    check_same_past(tmp_path, progress, STEP.override(epochs=2))
    with pytest.raises(MismatchError, match="use --epochs 2 or more"):
        check_same_past(tmp_path, progress, STEP.override(epochs=1))


def test_epochs_change_from_the_command_line_only_where_they_are_given(agnet, boxes_file, folder, tmp_path):
    options = ["train", "--boxes", boxes_file, "--root", folder, "--model", "plain", "--workers", 0, "--device", "cpu"]
    options += ["--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", 32, "--run", "run"]
    options += ["--schedule", "step", "--batch-size", 3]
    agnet(*options, "--epochs", 1, "--keep-states")
    refused = agnet(*options, "--resume", code=1)
    assert "epochs = 1, now it is 20" in refused.stderr
    agnet(*options, "--resume", "--epochs", 2)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    assert not STATES & names(tmp_path / "run")
    assert read_config(tmp_path / "run")["recipe"]["epochs"] == 2

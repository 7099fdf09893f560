"""Trackers of a run's log: each epoch once, also after interruptions, and never the end of a training."""

import csv
import json
import struct
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import ConfigurationError
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Console, Job
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs import trackers
from agnet.training.runs.folder import read_log
from agnet.training.runs.trackers import EVENTS, KINDS, RECORD, TABLE, Trackers, is_installed, log_measures, parse_names

PLAIN = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")
RECIPE = RECIPES["modern"].override(epochs=3, batch_size=3, image_size=64)
RUN = RunSettings(weights="none", workers=0, device="cpu")
LINES = [
    {"epoch": 1, "train_loss": 2.0, "train_top1": 0.25, "lr": 0.5, "best": True},
    {"epoch": 2, "train_loss": 1.0, "train_top1": 0.75, "lr": 0.25, "val_loss": 1.25, "val_top1": 0.75, "best": True},
    {"epoch": 3, "train_loss": 0.5, "train_top1": 1.0, "lr": 0.0, "val_loss": 1.75, "val_top1": 0.5},
]
TAGS = {"loss/train": "train_loss", "top1/train": "train_top1", "loss/val": "val_loss", "top1/val": "val_top1"}
TAGS |= {"run/lr": "lr"}
CONFIG = {name: {} for name in ("recipe", "versions")}
CONFIG |= {"model": {"units": 8}, "run": {"seed": 0}, "boxes": {"title": "pets", "root_relative_to_run": "../anna"}}

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")


def expected():
    """(epoch, value) of each tag, from the lines by hand."""
    return {tag: [(line["epoch"], line[name]) for line in LINES if name in line] for tag, name in TAGS.items()}


@pytest.fixture
def run(tmp_path):
    """The folder of a run, one of several seeds, that knows what it is."""
    place = tmp_path / "pets" / "seed-1"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


@pytest.fixture
def said():
    return []


class Recording:
    """A tracker that writes down what it is told, into ``told``; it fails in the method named by ``fails``."""

    place, told, fails = "", [], ""

    def __init__(self, run, state):
        self._do("begin", dict(state))
        state["run"] = "the same one"

    def _do(self, *what):
        if self.fails == what[0]:
            raise ConnectionError("no server\nand more")
        self.told.append(what)

    def update(self, lines):
        self._do("update", [line["epoch"] for line in lines])

    def measure(self, split, values, epoch):
        self._do("measure", split, values, epoch)

    def close(self, finished):
        self._do("close", finished)


@pytest.fixture
def recording(monkeypatch):
    found = type("Fresh", (Recording,), {"told": []})
    monkeypatch.setitem(KINDS, "wandb", found)
    return found


def test_a_resumed_run_goes_on_in_the_same_trackers(folder, boxes_file, tmp_path, recording):
    job = Job(tmp_path / "run", read_boxes(boxes_file), folder, PLAIN, RECIPE, RUN, log=("csv", "wandb"), stop_after=1)
    fit(job)
    assert recording.told == [("begin", {}), ("update", []), ("update", [1]), ("close", True)]
    recording.told.clear()
    fit(Job(job.run, job.boxes, folder, PLAIN, RECIPE, RUN, resume=True))  # without naming them again
    begun = [("begin", {"run": "the same one"}), ("update", [1])]
    assert recording.told == [*begun, ("update", [1, 2]), ("update", [1, 2, 3]), ("close", True)]
    assert not (job.run / EVENTS).exists()
    with (job.run / TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [{name: text or None for name, text in row.items()} for row in rows] == [
        {name: str(line[name]) if name in line else None for name in rows[0]} for line in read_log(job.run)
    ]


@pytest.mark.parametrize("where", ["begin", "update", "close"])
def test_a_tracker_that_fails_gives_one_warning_and_the_training_goes_on(
    folder, boxes_file, tmp_path, recording, said, where
):
    recording.fails = where
    job = Job(tmp_path / "run", read_boxes(boxes_file), folder, PLAIN, RECIPE, RUN, log=("wandb", "csv"))
    assert fit(job, Console(say=said.append)).is_file()
    (warning,) = [line for line in said if "wandb" in line]
    assert warning.startswith(
        "Warning: nothing more is logged to wandb (no server); the files in the folder of the run have"
    )
    assert [line["epoch"] for line in read_log(job.run)] == [1, 2, 3]
    assert len((job.run / TABLE).read_text().splitlines()) == 4  # the other tracker is still there


def test_an_interrupted_run_is_not_told_as_finished(run, recording, said):
    with pytest.raises(KeyboardInterrupt), Trackers(run, ["wandb"], said.append):
        raise KeyboardInterrupt
    assert recording.told[-1] == ("close", False)


def test_a_full_disk_does_not_end_a_training(run, recording, said, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trackers, "write_text", full)
    with Trackers(run, ["csv", "wandb"], said.append) as open_ones:
        open_ones.update(LINES)
        open_ones.update(LINES)
    assert len(said) == 1 and "csv ([Errno 28] No space left on device)" in said[0]
    assert recording.told[1:] == [("update", [1, 2, 3]), ("update", [1, 2, 3]), ("close", True)]


@pytest.mark.skipif(not is_installed("tensorboard"), reason="tensorboard is not installed")
def test_tensorboard_reads_what_the_log_has(run, said):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    with Trackers(run, None, said.append) as open_ones:
        open_ones.update(LINES)
    with Trackers(run, None, said.append) as open_ones:  # resumed from an earlier state
        open_ones.update(LINES[:2])
        open_ones.update(LINES)
    assert [path.relative_to(run).as_posix() for path in run.rglob("*events*")] == [EVENTS]
    assert not (run / RECORD).exists()  # nothing was asked for: as ever
    found = {}
    for event in EventFileLoader(str(run / EVENTS)).Load():
        for value in event.summary.value:
            number = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
            found.setdefault(value.tag, []).append((event.step, number))
    assert found == expected()


def test_without_tensorboard_nothing_is_written_and_nothing_is_said(run, monkeypatch, said, recwarn):
    monkeypatch.setattr(trackers, "is_installed", lambda name: False)
    with Trackers(run, None, said.append) as open_ones:
        open_ones.update(LINES)
    assert [path.name for path in run.iterdir()] == ["config.json"] and not said and not recwarn


class FakeWandb(ModuleType):
    """The functions of wandb that are used, on runs kept in memory by their id."""

    def __init__(self, logged_in):
        super().__init__("wandb")
        self.runs, self.begun = {}, []
        self.login = lambda prompt, verify: logged_in and not prompt
        self.Settings = SimpleNamespace

    def init(self, *, id, resume, mode, **about):
        self.begun.append({"id": id, "mode": mode, **about})
        number = id or "abc"
        logged, summary = self.runs.setdefault(number, ([], {}))
        return SimpleNamespace(
            id=number,
            dir="wandb/offline-run-1/files",
            url="https://server/abc",
            offline=mode == "offline",
            log=lambda values, step: logged.append((step, values)),
            summary=summary,
            finish=lambda exit_code: logged.append(exit_code),
        )


@pytest.mark.parametrize("logged_in", [False, True])
def test_wandb_gets_each_epoch_once_in_one_run_of_the_group(run, said, monkeypatch, logged_in):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb = FakeWandb(logged_in)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for names, lines in ((["wandb"], LINES[:2]), (None, LINES[:1]), (None, LINES)):
        with Trackers(run, names, said.append) as open_ones:
            open_ones.update(lines)
    (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    (run / "metrics-test.json").write_text(json.dumps({"top1": 0.5, "images": 6, "epoch": 2, "title": "pets"}))
    log_measures(run, run / "metrics-test.json", said.append)
    ((logged, summary),) = wandb.runs.values()
    told = [entry for entry in logged if entry != 0]
    assert told == [(line["epoch"], {tag: line[name] for tag, name in TAGS.items() if name in line}) for line in LINES]
    assert summary == {"top1/test": 0.5}
    first, *later = wandb.begun
    assert first["id"] is None and {one["id"] for one in later} == {"abc"}
    assert (first["name"], first["group"], first["project"]) == ("pets, seed 1", "pets", "agnet")
    assert first["config"]["model"] == {"units": 8} and "anna" not in str(first["config"])
    assert first["mode"] == (None if logged_in else "offline")
    place = "https://server/abc" if logged_in else "offline, in wandb/offline-run-1; to upload: wandb sync"
    assert said[0] == f"wandb: {place}"


def test_evaluation_says_nothing_to_runs_without_a_tracker(run, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    log_measures(run, run / "there is none.json", said.append)
    assert not said


def steps_in(file):
    """The steps of the history in a file of wandb: records of 4 bytes check sum, 2 length, 1 type, and a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, found = file.read_bytes(), 7, []
    while place + 7 <= len(data):
        _, length, _ = struct.unpack_from("<IHB", data, place)
        record = Record.FromString(data[place + 7 : place + 7 + length])
        found += [record.history.step.num] * record.HasField("history")
        place += 7 + length
    return found


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("wandb"), reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore")
def test_wandb_itself_takes_the_log_offline(run, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for names, lines in ((["wandb"], LINES[:2]), (None, LINES)):
        with Trackers(run, names, said.append) as open_ones:
            open_ones.update(lines)
    assert all(line.startswith("wandb: offline, in wandb/offline-run-") for line in said), said
    number = json.loads((run / RECORD).read_text())["wandb"]["run"]
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{number}.wandb"))
    deadline = time.monotonic() + 20
    while (found := list(map(steps_in, files))) != [[1, 2], [3]] and time.monotonic() < deadline:
        time.sleep(0.05)  # wandb writes them in a process of its own
    assert found == [[1, 2], [3]]


@pytest.mark.slow
@pytest.mark.skipif(not (is_installed("mlflow") and is_installed("sqlalchemy")), reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_has_each_epoch_once_and_the_last_evaluation(run, said, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for names, lines in ((["mlflow"], LINES[:2]), (None, LINES[:1]), (None, LINES)):
        with Trackers(run, names, said.append) as open_ones:
            open_ones.update(lines)
    (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    (run / "metrics-test.json").write_text(json.dumps({"top1": 0.5, "images": 6, "epoch": 2}))
    for _ in range(2):
        log_measures(run, run / "metrics-test.json", said.append)
    from mlflow import MlflowClient

    client = MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("agnet").experiment_id])
    history = {tag: client.get_metric_history(found.info.run_id, tag) for tag in [*TAGS, "top1/test"]}
    assert {tag: [(each.step, each.value) for each in values] for tag, values in history.items()} == expected() | {
        "top1/test": [(2, 0.5)]
    }
    assert found.info.run_name == "pets, seed 1" and found.info.status == "FINISHED"
    assert found.data.tags == {"group": "pets", "mlflow.runName": "pets, seed 1"}
    assert found.data.params["model.units"] == "8" and "anna" not in str(found.data.params)
    assert all(line == "mlflow: run pets, seed 1; to look at it: mlflow ui" for line in said), said


def test_names_are_checked(monkeypatch):
    assert parse_names("csv, wandb,csv") == ("csv", "wandb") and parse_names("none") == ()
    with pytest.raises(ValueError, match=r"got 'wandbb'; did you mean wandb\?|got 'wandbb'.*wandb"):
        parse_names("csv,wandbb")
    with pytest.raises(ValueError, match="none stands alone, got 'none,csv'"):
        parse_names("none,csv")
    with pytest.raises(ValueError, match="got ''"):
        parse_names("")
    monkeypatch.setattr(trackers, "is_installed", lambda name: False)
    with pytest.raises(ConfigurationError, match=r"--log mlflow needs the package mlflow, the extra mlflow: .*install"):
        trackers.check_installed(["csv", "mlflow"])

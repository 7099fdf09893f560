"""What a run's folder tells, besides weights."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

import agnet
from agnet.cli import main
from agnet.commands.seeds import SeveralSeeds
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, MismatchError
from agnet.training.loop.fit import fit
from agnet.training.loop.interruption import Interruption
from agnet.training.loop.job import Console, Job
from agnet.training.loop.learner import Learner
from agnet.training.loop.state import Progress, load_state, save_state
from agnet.training.machine.devices import Device
from agnet.training.measure.seeds import summarise_training
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs import provenance
from agnet.training.runs.curves import CURVES, VECTOR, draw_curves
from agnet.training.runs.folder import check_free, chosen_line, read_config

RECIPE = RECIPES["modern"].override(epochs=2, batch_size=4, image_size=64)
PLAIN = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")
RUN = RunSettings(weights="none", workers=0, device="cpu")
LINES = [
    {"epoch": 1, "train_loss": 2.0, "train_top1": 0.25, "lr": 0.5, "val_loss": 1.5, "val_top1": 0.5, "best": True},
    {"epoch": 2, "train_loss": 1.0, "train_top1": 0.75, "lr": 0.25, "val_loss": 1.25, "val_top1": 0.75, "best": True},
    {"epoch": 3, "train_loss": 0.5, "train_top1": 1.0, "lr": 0.0, "val_loss": 1.75, "val_top1": 0.5},
]

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")


PLACE = Path(provenance.__file__).resolve().relative_to(Path(agnet.__file__).resolve().parent)  # within a checkout


def git(folder, *words):
    """Whoever's settings these are, and from whatever hook the tests are run."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_of_a_checkout_and_its_changes_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another repository"))  # as in a hook of one
    code = tmp_path / PLACE
    code.parent.mkdir(parents=True)
    code.write_text("one = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(code))
    unknown = {"git_revision": None, "git_dirty": None}
    assert provenance.code_revision() == unknown  # no checkout
    git(tmp_path, "init", "-q")
    assert provenance.code_revision() == unknown  # without a commit
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    revision = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.code_revision() == {"git_revision": revision, "git_dirty": False}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("")  # what is not the code's changes nothing
    assert provenance.code_revision()["git_dirty"] is False
    code.write_text("one = 2\n")
    assert provenance.code_revision() == {"git_revision": revision, "git_dirty": True}
    inner = tmp_path / "site-packages" / "agnet" / PLACE
    inner.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(inner))
    assert provenance.code_revision() == unknown  # the checkout is another program's


def test_without_git_the_revision_is_not_known(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / PLACE))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_revision() == {"git_revision": None, "git_dirty": None}


@pytest.mark.pictures
def test_a_run_tells_how_it_came_to_be(agnet, boxes_file, folder, tmp_path):
    options = ["--model", "plain", "--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", 64]
    options += ["--epochs", 2, "--workers", 0, "--device", "cpu", "--recipe", "paper"]
    agnet("train", "--boxes", tmp_path / "boxes.h5", "--root", folder, "--run", tmp_path / "deep" / "run", *options)
    run = tmp_path / "deep" / "run"
    config = read_config(run)
    assert config["command"]["recipe"] == "paper"
    given = {"boxes": "boxes.h5", "run": "run", "root": "images", "epochs": 2, "weights": "none", "image_size": 64}
    assert config["command"]["options"].items() >= given.items()
    assert "seed" not in config["command"]["options"] and config["run"]["seed"] == 0
    assert config["versions"]["torch"] == torch.__version__ and config["versions"]["numpy"] == np.__version__
    assert config["boxes"]["fingerprint"] == read_boxes(boxes_file).fingerprint
    assert set(config["code"]) == {"git_revision", "git_dirty"}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert line["lr"] == 1e-5 and line["seconds"] > 0
        assert line["images_per_second"] == pytest.approx(9 / line["seconds"], rel=0.05)
    names = {path.name for path in run.iterdir()} - {"tensorboard"}
    assert names == {"best.safetensors", "config.json", "log.jsonl", "seen.txt", "README.md", CURVES, VECTOR}
    with Image.open(run / CURVES) as picture:
        assert picture.format == "PNG" and picture.width >= 1000


def colours_of(path):
    """How many pixels are of each of the curves' colours."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    wanted = {
        "train": (0x00, 0x72, 0xB2),
        "val": (0xD5, 0x5E, 0x00),
        "chosen": (0x00, 0x9E, 0x73),
        "mAP": (0xCC, 0x79, 0xA7),
    }
    return {name: int((pixels == colour).all(axis=1).sum()) for name, colour in wanted.items()}


def test_curves_show_what_the_log_has(tmp_path):
    drawn = colours_of(draw_curves(LINES, tmp_path / "all.png", "a title"))
    assert drawn.pop("mAP") == 0 and all(count > 100 for count in drawn.values()), drawn
    by_map = [line | {"val_map": 0.5} for line in LINES]
    for selected_by, there in (("val_map", True), ("val_top1", False)):
        drawn = colours_of(draw_curves(by_map, tmp_path / "map.png", selected_by=selected_by))
        assert (drawn["mAP"] > 100) == there
    alone = [{"epoch": 1, "train_loss": 1.0, "train_top1": 0.5, "lr": 0.1}]
    drawn = colours_of(draw_curves(alone, tmp_path / "one.png"))
    assert drawn["train"] > 0 and drawn["val"] == drawn["chosen"] == 0
    unequal = [line | {"train_loss": float("nan")} for line in LINES]
    assert colours_of(draw_curves(unequal, tmp_path / "nan.png"))["val"] > 100


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_starting_to_train_loads_no_picture_library(nursery):
    assert "torch" in nursery.loaded and not {"matplotlib", "tensorboard"} & {*nursery.loaded}


ONCE_IN_THE_CODE = ("beta2", "step_factor", "warmup_start", "ema_warmup", "rotation", "shift", "scale")


def test_a_run_without_settings_that_came_later_goes_on_with_their_defaults(folder, boxes_file, tmp_path):
    boxes = read_boxes(boxes_file)
    recipe = RECIPE.override(select_by="val_top1")
    fit(Job(tmp_path / "straight", boxes, folder, PLAIN, recipe, RUN, keep_states=True))
    run = tmp_path / "run"
    fit(Job(run, boxes, folder, PLAIN, recipe, RUN, stop_after=1))
    config = read_config(run)
    for name in (*("patience", "ema_decay", "mixup", "accumulate", "select_by"), *ONCE_IN_THE_CODE):
        del config["recipe"][name]
    del config["run"]["compile"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match=r"rotation = 15\.0, now it is 30"):
        fit(Job(run, boxes, folder, PLAIN, recipe.override(rotation=30), RUN, resume=True))
    fit(Job(run, boxes, folder, PLAIN, recipe, RUN, resume=True, keep_states=True))
    one, other = (load_file(place / "last.safetensors") for place in (run, tmp_path / "straight"))
    assert all(torch.equal(one[name], other[name]) for name in other) and one.keys() == other.keys()
    assert chosen_line(run)["epoch"] == chosen_line(tmp_path / "straight")["epoch"]


def test_a_run_that_was_stopped_before_its_first_state_begins_anew_on_resuming(folder, boxes_file, tmp_path):
    boxes, run = read_boxes(boxes_file), tmp_path / "run"
    said = []
    fit(Job(run, boxes, folder, PLAIN, RECIPE, RUN, stop_after=1))
    for name in ("last.safetensors", "best.safetensors"):
        (run / name).unlink()
    fit(Job(run, boxes, folder, PLAIN, RECIPE, RUN, resume=True), Console(say=said.append))
    assert chosen_line(run) and len((run / "log.jsonl").read_text().splitlines()) == 2
    assert any("starting from scratch" in text for text in said)


SOUND = Progress(1, 2, [3.0, 4.0, 1.0, 4.0], 0.5, [{"epoch": 1, "lr": 0.1, "val_loss": 2.0, "best": True}])


def small_learner():
    """With numbers of its optimiser and of a gradient scaler, as after some steps in fp16."""
    torch.manual_seed(0)
    network = assemble(ModelSettings(classes=3, regions=6, model="plain"), Backbone(torch.nn.Conv2d(3, 8, 3), 8))
    found = Learner(network, RECIPE, Device(torch.device("cpu")))
    found.scaler = torch.amp.GradScaler("cpu")
    sum(parameter.sum() for parameter in network.parameters()).backward()
    found.optimizer.step()
    return found


@pytest.fixture
def stranger(tmp_path):
    """A sound state, and a function that rewrites its header and tensors as a stranger might."""
    learner = small_learner()
    save_state(tmp_path, SOUND, learner)
    path = tmp_path / "last.safetensors"

    def rewrite(change):
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["agnet"])
        tensors = load_file(path)
        del header["blake2b"]  # a stranger can reckon one, too
        change(header, tensors)
        save_file(tensors, path, metadata={"agnet": json.dumps(header)})

    return rewrite


def test_a_sound_state_without_hash_is_taken(stranger, tmp_path):
    stranger(lambda header, tensors: None)
    assert load_state(tmp_path, small_learner())[0] == SOUND


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header.update(epoch=-1),
        lambda header, tensors: header.update(epoch=2),
        lambda header, tensors: header.update(step=True),
        lambda header, tensors: header.update(step=1e300),
        lambda header, tensors: header.update(totals=["a", "b", "c", "d"]),
        lambda header, tensors: header.update(totals=[1.0]),
        lambda header, tensors: header.update(totals=[]),
        lambda header, tensors: header.update(totals=[1.0, 0.0, 1.0, 4.0]),
        lambda header, tensors: header.update(seconds="long"),
        lambda header, tensors: header.update(seconds=0),
        lambda header, tensors: header.update(log=[{"epoch": 7}]),
        lambda header, tensors: header.update(log=[[1]]),
        lambda header, tensors: header.update(log="x"),
        lambda header, tensors: header["log"][0].update(val_loss="low"),
        lambda header, tensors: header["log"][0].update(val_loss=10**400),
        lambda header, tensors: header["log"][0].update(val_loss=[]),
        lambda header, tensors: header.update(scaler={}),
        lambda header, tensors: header.update(scaler="x"),
        lambda header, tensors: header["scaler"].update(scale="large"),
        lambda header, tensors: header.pop("step"),
        lambda header, tensors: tensors.pop("optimizer.0.exp_avg"),
        lambda header, tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(2)}),
        lambda header, tensors: tensors.update({"optimizer.0.step": torch.zeros(7)}),
        lambda header, tensors: tensors.update({"optimizer.99.step": torch.tensor(1.0)}),
        lambda header, tensors: tensors.update({"optimizer.-1.step": torch.tensor(1.0)}),
        lambda header, tensors: tensors.update({"optimizer.0.x.y": torch.tensor(1.0)}),
        lambda header, tensors: tensors.update({"optimizer.0.max_exp_avg_sq": torch.zeros(8)}),
        lambda header, tensors: tensors.pop("model.classifier.weight"),
    ],
)
def test_a_state_that_no_run_can_have_come_to_is_refused_in_one_line(stranger, tmp_path, change):
    stranger(change)
    with pytest.raises(CheckpointError, match="no valid state to resume from") as error:
        load_state(tmp_path, small_learner())
    assert "\n" not in str(error.value) and len(str(error.value)) < 800


def test_a_configuration_of_ten_thousand_brackets_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text("[" * 10_000)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_config(tmp_path)


def test_a_folder_of_several_seeds_is_no_place_for_one(tmp_path):
    (tmp_path / "seed-4").mkdir()
    (tmp_path / "seed-4" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="several seeds"):
        check_free(tmp_path)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--seeds"], "requires an argument"),
        (["--seeds", "--resume"], "."),
        (["--seeds", "1", "1"], "once"),
        (["--seeds", "1", "x"], "not a valid integer"),
        (["--seeds", "1", "--seed", "2"], "exclude each other"),
        (["--epochs", "1", "2"], "unexpected extra argument"),
    ],
)
def test_seeds_that_make_no_sense_are_usage_errors(words, complaint, tmp_path):
    result = CliRunner().invoke(main, ["train", "--boxes", str(tmp_path / "none.h5"), *words])
    assert result.exit_code == 2 and complaint in result.output


def test_seeds_end_at_the_next_option():
    command = main.commands["train"]
    assert isinstance(command, SeveralSeeds)
    context = command.make_context("train", ["--seeds", "3", "1", "--model", "plain", "--seeds=7", "--resume"])
    assert context.params["seeds"] == (3, 1, 7) and context.params["model"] == "plain" and context.params["resume"]


@pytest.mark.parametrize(("accuracies", "hits"), [([0.75, 0.75], 9), ([1.0, 1.0, 1.0], 12), ([0.5], 6)])
def test_a_summary_of_seeds_is_no_surer_than_their_validation_images(tmp_path, accuracies, hits):
    folders = [tmp_path / f"seed-{seed}" for seed in range(len(accuracies))]
    for folder, accuracy in zip(folders, accuracies, strict=True):
        folder.mkdir()
        config = {name: {} for name in ("model", "recipe", "run", "versions")} | {"boxes": {"images": {"val": 12}}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "log.jsonl").write_text(json.dumps({"epoch": 1, "val_top1": accuracy, "val_loss": 1, "best": True}))
    told, loss = summarise_training(tmp_path, folders)
    wilson = binomtest(hits, 12).proportion_ci(method="wilson")
    found = json.loads((tmp_path / "seeds.json").read_text())["figures"]["val_top1"]
    assert (found["low"], found["high"]) == (pytest.approx(wilson.low), pytest.approx(wilson.high))
    assert f"{wilson.low:.1%} to {wilson.high:.1%} (over 12 images and the seeds)" in told
    assert told.startswith(f"val_top1 of {len(folders)} seed{'s' if len(folders) > 1 else ''}: {accuracies[0]:.1%}")
    assert ("over the seeds, on these images" in loss) == (len(folders) > 1)


def test_a_signal_is_noted_and_handlers_are_given_back():
    import os
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert interruption.number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # at once: the same wish
        assert interruption.number == signal.SIGTERM
        interruption._when -= 100
        with interruption.saving():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before

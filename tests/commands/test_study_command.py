"""`agnet study`: its file, and a study that is stopped and resumed."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

import agnet as package
from agnet.cli import main
from agnet.training.studies import running
from training_crash import waiting_before

ROOT = Path(package.__file__).resolve().parent
STUDY = """
control: plain
seeds: [0]
defaults:
  propose: {primary: 3}
  train: {backbone: mobilenet-v3-small, weights: none, epochs: 2, batch-size: 3, image-size: 32, workers: 0}
  evaluate: {workers: 0}
rows:
  plain: {train: {model: plain}}
  agnet: {note: "with *regions*"}
  same-boxes: {propose: {method: sift}, train: {shortcut: true}}
"""


class Here:
    """Runs commands in this process; the one that has the words ``stop`` ends the study after an epoch."""

    def __init__(self):
        self.told, self.stop = [], None

    def __call__(self, words, log, environment):
        self.told.append(" ".join(words))
        stopped = self.stop is not None and self.stop in self.told[-1]
        result = CliRunner().invoke(main, [*words, *(["--stop-after", "1"] if stopped else [])])
        log.write_text(result.output)
        if stopped:
            self.stop = None
            raise KeyboardInterrupt
        return result.exit_code


@pytest.fixture
def here(tmp_path, folder, monkeypatch):
    commands = Here()
    monkeypatch.setattr(running, "run_process", commands)
    (tmp_path / "study.yaml").write_text(STUDY)
    return commands


def test_a_study_that_was_stopped_has_the_bytes_of_commands_by_hand(here, agnet, tmp_path, small_mobilenet, one_thread):
    words = ("study", "study.yaml", "--dataset", "folder", "--root", "images", "--only", "agnet", "--output", "out")
    here.stop = "train --backbone mobilenet-v3-small"  # the first one, plain's
    assert "the same command resumes" in agnet(*words, code=130).output
    assert (tmp_path / "out/runs/images/plain/seed-0/last.safetensors").is_file()
    before = len(here.told)
    found = agnet(*words)
    assert here.told[before].endswith("--resume")
    assert [told.split()[0] for told in here.told[before:]] == ["train", "evaluate", "train", "evaluate"]
    assert "top-1 minus plain" in found.stdout
    table = json.loads(agnet(*words, "--table", "--json").stdout)["tables"][0]
    assert [line["row"] for line in table["lines"]] == ["plain", "agnet", "same-boxes"] and table["images"] == 6
    assert len(here.told) == before + 4
    same = ("--backbone", "mobilenet-v3-small", "--weights", "none", "--epochs", 2, "--batch-size", 3, "--workers", 0)
    agnet("train", "--boxes", next((tmp_path / "out/boxes").iterdir()), "--model", "plain", *same, "--image-size", 32)
    agnet("evaluate", "--run", "runs/images-plain", "--workers", 0)
    name = "predictions-test.safetensors"
    by_hand = (tmp_path / "runs/images-plain" / name).read_bytes()
    assert by_hand == (tmp_path / "out/runs/images/plain/seed-0" / name).read_bytes()


# The commands of a study in its own process, which takes no second each, and is killed with them as by a power cut.
IN_PLACE = """
from agnet.training.studies import running

def run_here(words, log, environment):
    main(args=list(words), prog_name="agnet", standalone_mode=False)
    return 0

running.run_process = run_here
"""
WAITING = """
import time
import agnet.{module} as module

whole = module.{name}
def waiting(*arguments):
    whole(*arguments)
    print("here", flush=True)
    time.sleep(600)
module.{name} = waiting
"""
# The state of the repository may change while the test runs.
SAME_CODE = """
import agnet.training.runs.folder
agnet.training.runs.folder.code_revision = lambda: {"git_revision": None, "git_dirty": None}
"""
# The only difference between two runs of a study: in JSON, in the column training_seconds of CSV, and in the others.
TIMES = re.compile(rb'(?<="seconds": )[\d.]+|[\d.]+(?=,\d+,[\d.]+$)|\b\d+:\d\d\b', re.MULTILINE)
MOMENTS = (
    "import agnet.proposals.run\n"
    "agnet.proposals.run.PART_IMAGES = 5\n"
    + WAITING.format(module="data.boxes.writer", name="Part.save"),  # the first of four parts is saved
    waiting_before(2, 1),  # the state of the first epoch is saved
    WAITING.format(module="training.measure.evaluation", name="save_predictions"),  # but no metrics
)


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_a_study_killed_in_proposing_training_and_evaluating_ends_in_the_same_bytes(nursery, here, tmp_path):
    def start(output, before=""):
        words = ("study", "study.yaml", "--dataset", "folder", "--root", "images", "--only", "agnet")
        words = (*words, "--set", "propose.jobs=1", "--output", output)
        return nursery.start(*words, before=f"import os\nos.chdir({str(tmp_path)!r})\n{IN_PLACE}{SAME_CODE}{before}")

    undisturbed = start("whole")
    assert undisturbed.wait() == 0, undisturbed.said()
    for moment in MOMENTS:
        killed = start("killed", moment)
        killed.wait_for(lambda child=killed: "here" in child.said())
        killed.send(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, killed.said()
    resumed = start("killed")
    assert resumed.wait() == 0 and " of 5 commands are done" in resumed.said()
    contents = [{}, {}]
    for found, folder in zip(contents, ("whole", "killed"), strict=True):
        for file in sorted((tmp_path / folder).rglob("*")):
            name = file.relative_to(tmp_path / folder).as_posix()
            if file.name.startswith("results"):
                found[name], times = TIMES.subn(b"time", file.read_bytes())
                assert times >= 2, name  # of the two rows that were trained
            elif file.name.startswith(("predictions", "metrics")) or file.suffix == ".h5":
                found[name] = file.read_bytes()
    assert contents[0] == contents[1] and len(contents[0]) == 1 + 2 * 4 + 5


def plan(agnet, monkeypatch, *words):
    """The plan of a study, without measured times."""
    monkeypatch.setattr("agnet.training.studies.estimate.measure", unmeasured)
    return agnet("study", "study.yaml", "--dataset", "folder", "--root", "images", "--dry-run", "--json", *words)


def unmeasured(study, size, *, say, jobs):
    from agnet.training.studies.estimate import Estimates

    found = size(study.rows[0])
    assert found.images == {"train": 9, "val": 3, "test": 6, "query": 0, "gallery": 0} and found.least == 9
    return Estimates(study, {}, jobs)


def test_defaults_and_the_command_line_decide_what_runs(here, agnet, monkeypatch):
    found = json.loads(plan(agnet, monkeypatch, "--set", "propose.primary=4").stdout)
    commands = [one["command"] for one in found["commands"]]
    assert len([one for one in commands if one.startswith("propose")]) == 1  # sift is the default
    assert "images-primary-4-sift" in commands[0]
    assert commands[1:4] == [
        "train images/plain, seed 0",
        "evaluate images/plain, seed 0",
        "train images/agnet, seed 0",
    ]
    assert found["seconds_left"] is None and here.told == []


@pytest.mark.parametrize(
    ("data", "given", "wanted"),
    [
        ("{dataset: folder, root: a}", {"limit": 9}, {"a": "--dataset folder --root a --limit 9"}),
        ("{dataset: folder, root: a}", {"root": "b"}, {"b": "--dataset folder --root b"}),
        ("{dataset: folder, root: a}", {"dataset": "demo"}, {"demo": "--dataset demo"}),
        ("{dataset: folder, root: a}", {"csv": "b.csv", "limit": 9}, {"b": "--csv b.csv --limit 9"}),
        (
            "{a: {dataset: demo}, b: {csv: c}}",
            {"limit": 9},
            {"a": "--dataset demo --limit 9", "b": "--csv c --limit 9"},
        ),
        ("{a: {dataset: demo}, b: {csv: c}}", {"csv": "d"}, {"d": "--csv d"}),
    ],
)
def test_the_command_line_changes_options_of_the_data_or_names_other_data(tmp_path, data, given, wanted):
    from agnet.commands.study_file import Given, StudyFile

    (tmp_path / "study.yaml").write_text(f"{STUDY}data: {data}\n")
    study = StudyFile(tmp_path / "study.yaml", Given(given)).study()
    found = {row.data: " ".join(row.propose.words) for row in study.rows if row.name == "plain"}
    assert found == {name: f"{words} --primary 3" for name, words in wanted.items()}


@pytest.mark.parametrize("sizes", ["[32, 64]", "32 64"])
def test_sizes_are_a_list_or_text(tmp_path, sizes):
    from agnet.commands.study_file import Given, StudyFile

    (tmp_path / "study.yaml").write_text(STUDY.replace("image-size: 32", f"sizes: {sizes}"))
    study = StudyFile(tmp_path / "study.yaml", Given({"dataset": "folder", "root": str(tmp_path)})).study()
    words = study.rows[0].train.words
    assert words[words.index("--sizes") + 1] == "32 64"


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("image-size: 32", "sizes: [32, 40]", "row plain, train: --sizes: wanted none, or two or more"),
        ("shortcut: true", "short-cut: true", "row same-boxes, train: option 'short-cut' is unknown; did you mean"),
        ("shortcut: true", "shortcut: 1", "row same-boxes, train: shortcut: wanted true or false, got 1"),
        ("model: plain", "model: plain, units: 3", "row plain, train: --units is an option of --model"),
        ("epochs: 2", "epochs: 0", "row plain, train: --epochs: wanted 1 or more, got 0"),
        ("epochs: 2", "epochs: many", "row plain, train: Invalid value for '--epochs'"),
        ("epochs: 2", "run: there", "row plain, train: run is the study's own; leave it out"),
        ("epochs: 2", "folds: 3", "row plain, train: folds is the study's own; leave it out"),
        ("note:", "evaluate: {split: val}, note:", "row agnet, evaluate: split is val, and not given in row plain"),
        ("method: sift", "method: none, primary: null", "row same-boxes: --model agnet needs regions"),
        ("method: sift", "primary: 99", "row same-boxes, propose: --primary: wanted 2 to 36, got 99"),
        ("mobilenet-v3-small", "mobilenet-v3-smal", "row plain: "),
        ("control: plain", "control: plane", "control 'plane' is unknown; did you mean plain"),
        ("control: plain", "control: [plain]", "control: wanted a text, got a list"),
        ("  agnet:", "  Plain:", "row 'Plain' and 'plain': names must differ by more than upper and lower case"),
        (
            "defaults:\n  propose: {",
            "splits: [0, 1]\ndefaults:\n  propose: {split-seed: 3, ",
            "row plain, propose: split-seed",
        ),
        ("seeds: [0]", "seeds: [0, 0]", "seeds: wanted a list of different whole numbers"),
        ("rows:", "row:", "entry 'row' is unknown; did you mean rows"),
        ("  agnet:", "  ../agnet:", "row '../agnet': wanted at most 60 letters"),
        ("note:", "notes:", "row agnet: entry 'notes' is unknown; did you mean note"),
    ],
)
def test_mistakes_are_told_before_anything_runs(here, agnet, tmp_path, before, after, complaint):
    assert before in STUDY
    (tmp_path / "study.yaml").write_text(STUDY.replace(before, after))
    said = agnet("study", "study.yaml", "--dataset", "folder", "--root", "images", code=1).stderr
    assert f"study.yaml: {complaint}" in said and said.count("\n") == 1
    assert here.told == [] and not (tmp_path / "studies-out").exists()


def test_a_study_needs_data_and_known_rows(here, agnet):
    for given in ((), ("--root", "images"), ("--limit", 9)):
        said = agnet("study", "study.yaml", *given, code=1).stderr
        assert "names no data set: give one with --dataset and --root" in said
    words = ("study", "study.yaml", "--dataset", "folder", "--root", "images")
    assert "there is no row 'agnett'; did you mean agnet" in agnet(*words, "--only", "agnett", code=2).stderr
    assert "there is no row 'plane'; did you mean plain" in agnet(*words, "--restart", "plane", code=2).stderr
    assert "wanted such as train.epochs=5" in agnet(*words, "--set", "epochs=5", code=2).stderr


def test_a_study_of_persons_or_clips_has_their_recipe(tmp_path, monkeypatch):
    from agnet.commands.study_file import Given, StudyFile

    text = "rows: {plain: {train: {model: plain, backbone: resnet50, OPTION}}}\n"
    for dataset, option, epochs in (("market1501", "triplet: 0.5", 120), ("hmdb51", "frames: 8", 20)):
        (tmp_path / "study.yaml").write_text(text.replace("OPTION", option))
        study = StudyFile(tmp_path / "study.yaml", Given({"dataset": dataset})).study()
        assert study.rows[0].epochs == epochs, dataset


@pytest.mark.parametrize("name", ["table7", "table8"])
def test_the_studies_of_the_repository_are_ones_that_the_program_understands(name, tmp_path):
    from agnet.commands.study_file import Given, StudyFile

    data = {"dataset": "folder", "root": str(tmp_path)}
    study = StudyFile(ROOT / "studies" / f"{name}.yaml", Given(data)).study()
    assert study.control in {row.name for row in study.rows}
    # At most one boxes file for each way of proposing.
    files = {study.boxes(row).name for row in study.rows}
    assert len(files) == len({str(row.propose.values) for row in study.rows})

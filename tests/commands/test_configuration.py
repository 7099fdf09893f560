"""`agnet train --config FILE`: a run's record, or a file of option names, in place of defaults."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import click
import pytest
import yaml

from agnet.cli import main
from agnet.data.errors import ConfigurationError
from agnet.training.loop.engine import TIMINGS
from agnet.training.models.registry import ModelSettings, record_of
from agnet.training.recipes import RECIPES
from agnet.training.runs.folder import read_config

RECIPE = RECIPES["paper"].override(lr=0.25, epochs=7, augment=False, rotation=5.0)
RECORD = {
    "model": record_of(ModelSettings(classes=3, regions=6, backbone="vgg16", fusion="max", self_attention=False)),
    "recipe": asdict(RECIPE),
    "run": {
        **{"weights": "none", "seed": 5, "device": "cuda", "precision": "fp32"},
        **{"workers": 13, "processes": 1, "compile": False},
    },
    "boxes": {"file_relative_to_run": "../boxes.h5", "root_relative_to_run": "../images", "fingerprint": "f" * 32},
    "versions": {"agnet": "0.1.0"},
    "code": {"git_revision": None},
    "command": {"recipe": "paper", "options": {"run": "old", "epochs": 7}},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a run's record beside its boxes file and images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "boxes.h5").write_bytes(b"")
    (tmp_path / "images").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(RECORD))
    return tmp_path


def write(name, content):
    as_text = json.dumps if name.endswith(".json") else yaml.safe_dump
    Path(name).write_text(content if isinstance(content, str) else as_text(content), encoding="utf-8")
    return name


def values(*words):
    """The values of the options of `agnet train`."""
    return main.commands["train"].make_context("train", [str(word) for word in words]).params


def test_a_runs_record_gives_its_model_recipe_and_seed_and_nothing_of_its_past(place):
    got = values("--config", "old/config.json")
    assert {name: got[name] for name in asdict(RECIPE)} == asdict(RECIPE) and got["recipe"] == "paper"
    assert (got["model"], got["backbone"], got["fusion"], got["self_attention"]) == ("agnet", "vgg16", "max", False)
    assert (got["seed"], got["weights"], got["precision"], got["compile"]) == (5, "none", "fp32", False)
    assert (str(got["boxes"]), str(got["root"])) == ("boxes.h5", "images")
    without = values()
    for name in ("run", "device", "workers", "stop_after", "resume", "keep_states"):
        assert got[name] == without[name], name


def test_a_record_older_than_a_setting_means_its_default(place):
    old = {**RECORD, "recipe": {**RECORD["recipe"]}}
    for name in ("beta2", "step_factor", "warmup_start", "ema_warmup", "rotation", "shift", "scale", "select_by"):
        del old["recipe"][name]
    old["command"] = {"recipe": "modern"}  # whose select_by is not the default
    got = values("--config", write("old/config.json", old))
    assert (got["rotation"], got["beta2"], got["select_by"]) == (15.0, 0.999, "val_top1")


def test_the_command_line_overrides_the_file(place):
    got = values("--config", "old/config.json", "--lr", 0.5, "--augment", "--seeds", 1, 2, "--boxes", "other.h5")
    assert (got["lr"], got["epochs"], got["augment"], got["seeds"]) == (0.5, 7, True, (1, 2))
    assert str(got["boxes"]) == "other.h5" and got["root"] is None
    got = values("--recipe", "modern", "--epochs", 3, "--config", "old/config.json", "--model", "plain")
    assert (got["recipe"], got["lr"], got["epochs"], got["backbone"]) == ("modern", None, 3, "vgg16")
    assert got["model"] == "plain" and got["fusion"] is None


def test_options_by_name_and_sections_as_json_and_as_yaml(place):
    flat = {"boxes": "b.h5", "run": "out", "recipe": "paper", "lr": 2, "batch-size": 3, "no_self_attention": True}
    flat |= {"keep_states": True, "save_every": 5, "seeds": [3, 4], "nesterov": False, "workers": 1}
    for name in ("flat.json", "flat.yaml"):
        got = values("--config", write(name, flat))
        assert (str(got["boxes"]), str(got["run"]), got["recipe"], got["lr"]) == ("b.h5", "out", "paper", 2.0)
        assert (got["batch_size"], got["self_attention"], got["keep_states"], got["seeds"]) == (3, False, True, (3, 4))
        assert (got["save_every"], got["epochs"], got["workers"]) == (5.0, None, 1)
    mixed = "epochs: 2\nmodel: {model: plain, backbone: vgg16}\nrecipe:\n  lr: 1e-5\nrun: {device: cpu}\n"
    got = values("--config", write("mixed.yml", mixed))
    assert (got["model"], got["backbone"], got["lr"], got["epochs"]) == ("plain", "vgg16", 1e-5, 2)
    assert got["device"] == "cpu"
    assert values("--config", write("plain.yaml", "model: plain\nregions: cached\n"))["regions"] == "cached"
    for sizes in ("[448, 224]", "224 448"):
        assert values("--config", write("sizes.yaml", f"model: plain\nsizes: {sizes}\n"))["sizes"] == "224 448"
    assert values("--config", write("old/record.yaml", RECORD)) == values("--config", "old/config.json") | {
        "config": values("--config", "old/record.yaml")["config"]
    }


@pytest.mark.parametrize(
    "content",
    [
        {"bilinear": "full", "sketch": 512, "model": "bcnn"},
        {"model": {"bilinear": "full", "sketch": 512, "model": "bcnn"}},
    ],
)
def test_a_setting_is_checked_against_the_field_of_the_files_model(place, content):
    got = values("--config", write("bcnn.yaml", content))
    assert (got["model"], got["bilinear"], got["sketch"]) == ("bcnn", "full", 512)


def test_options_without_a_model_are_those_of_the_chosen_one(place):
    flat = write("flat.json", {"units": 64, "bilinear": "compact"})
    got = values("--config", flat, "--model", "srbn")
    assert (got["units"], got["bilinear"]) == (64, "compact")
    with pytest.raises(ConfigurationError, match="bilinear: the model agnet has no such setting"):
        values("--config", flat)


def recorded(name, **model):
    content = {**RECORD, "model": record_of(ModelSettings(classes=3, **model))}
    return write(f"old/{name}.json", content)


def test_only_backbones_are_passed_on_to_another_model(place):
    got = values("--config", recorded("agnet", units=48, backbone="vgg16"), "--model", "srbn")
    assert (got["model"], got["backbone"], got["units"], got["fusion"]) == ("srbn", "vgg16", None, None)
    assert got["lr"] == RECIPE.lr
    same = values("--config", "old/agnet.json", "--model", "agnet")
    assert (same["units"], same["backbone"]) == (48, "vgg16")
    flat = values("--config", write("flat.json", {"units": 48, "model": "agnet"}), "--model", "srbn")
    assert flat["units"] is None


def test_a_record_of_one_model_of_two_streams_serves_another(place):
    record = recorded("bcnn", model="bcnn", bilinear="full", second_backbone="vgg16-conv5", rank=3)
    for words, bilinear in (((), None), (("--bilinear", "lowrank"), "lowrank")):
        got = values("--config", record, "--model", "srbn", *words)
        assert (got["second_backbone"], got["bilinear"], got["rank"]) == ("vgg16-conv5", bilinear, None)
    assert values("--config", record, "--model", "plain")["second_backbone"] is None


ERRORS = [
    ("flat.json", {"model": "srbn", "bilinear": "full"}, "bilinear: wanted lowrank or compact, got 'full'"),
    ("nothing.json", None, "there is no configuration file nothing.json"),
    ("old", None, "old is a folder; name a file, such as the config.json"),
    ("empty.json", " \n", "empty.json is empty; a configuration file has names and values"),
    ("empty.yaml", "# nothing\n", "empty.yaml is empty"),
    ("list.json", [1, 2], "list.json holds a list; a configuration file"),
    ("text.yaml", "paper", "text.yaml holds 'paper'"),
    ("broken.json", '{"lr": 0.1,\n "epochs": }', "broken.json, line 2: broken JSON: Expecting value"),
    ("broken.yaml", "lr: 0.1\nepochs: [1\n", "broken.yaml, line 3: broken YAML: "),
    ("object.yaml", "lr: !!python/object:os.system 1", "object.yaml, line 1: broken YAML: could not determine"),
    ("twice.json", '{"lr": 1, "lr": 2}', "twice.json: 'lr' occurs 2 times"),
    ("twice.yaml", "recipe:\n  lr: 1\n  lr: 2\n", "twice.yaml: 'lr' occurs 2 times"),
    ("deep.json", "[" * 100_000, "deep.json is nested too deeply|deep.json, line 1"),
    ("large.json", " " * 1_000_001, "large.json is too large"),
    ("metrics.json", {"top1": 0.5, "images": 3}, "has no setting of agnet train, only 'top1'; use the config.json"),
    ("flat.json", {"epochs": 1, "epoch": 2}, "flat.json: unknown setting 'epoch'; did you mean epochs"),
    ("flat.json", {"epochs": 1, "config": "x"}, "unknown setting 'config'"),
    ("flat.json", {"recipe": {"rl": 1}}, r"unknown setting 'recipe\.rl'; did you mean recipe\.lr"),
    ("flat.json", {"model": {"unit": 1}}, r"unknown setting 'model\.unit'; did you mean model\.units"),
    ("flat.json", {"run": {"sed": 1}}, r"unknown setting 'run\.sed'; did you mean run\.seed"),
    ("flat.json", {"lr": "0.1"}, "flat.json: lr: wanted a number above 0, got '0.1'"),
    ("flat.json", {"recipe": {"lr": -1}}, r"recipe\.lr: wanted a number above 0, got -1"),
    ("flat.json", {"recipe": {"lr": True}}, r"recipe\.lr: wanted a number above 0, got true"),
    ("flat.json", '{"lr": NaN}', "lr: wanted a number above 0, got nan"),
    ("flat.json", {"epochs": 1.5}, "epochs: wanted a whole number, 1 or more, got 1.5"),
    ("flat.json", {"augment": 1}, "augment: wanted true or false, got 1"),
    ("flat.json", {"no_regions": "yes"}, "no_regions: wanted true or false, got 'yes'"),
    ("flat.yaml", "epochs:\n", "epochs: wanted a whole number, 1 or more, got nothing"),
    ("flat.json", {"optimizer": "adam"}, "optimizer: wanted sgd or adamw, got 'adam'"),
    ("flat.json", {"sizes": 224}, "sizes: wanted none, or two or more different multiples of 32 .*, got 224"),
    ("flat.json", {"sizes": [224, "x"]}, "sizes: wanted none, or two or more .*, got '224 x'"),
    ("flat.json", {"optimizer": ["sgd"]}, "optimizer: wanted sgd or adamw, got a list"),
    (
        "flat.json",
        {"model": {"model": "agnett"}},
        r"model\.model: wanted agnet or plain or .* or conv-alstm, got 'agnett'",
    ),
    (
        "flat.json",
        {"model": {"model": ["agnet"]}},
        r"model\.model: wanted agnet or plain or .* or conv-alstm, got a list",
    ),
    (
        "flat.json",
        {"recipe": "moderne"},
        "recipe: 'moderne' is not one of 'paper', 'modern', 'bilinear', 'reid', 'clips'; did you mean modern",
    ),
    ("flat.json", f'{{"lr": {"1" * 5000}}}', "flat.json: broken JSON: Exceeds the limit"),
    ("flat.json", {"epochs": {"a": 1}}, "epochs: wanted a whole number, 1 or more, got a section"),
    ("flat.json", {"epochs": 1, "versions": 3}, "versions: wanted a section of names and values, got 3"),
    ("flat.json", {"keep_states": "no"}, "keep_states: wanted true or false, got 'no'"),
    ("flat.json", {"stop_after": 0}, "stop_after: 0 is not in the range"),
    ("flat.json", {"seeds": 3}, "seeds: wanted a list, got 3"),
    ("flat.json", {"seeds": ["a"]}, "seeds: wanted a list, each a whole number, got 'a'"),
    ("flat.json", {"seed": 1, "seeds": [1]}, "seed and seeds exclude each other"),
    ("flat.json", {"boxes": 3}, "boxes: wanted text, got 3"),
    ("flat.json", {"batch-size": 3, "batch_size": 4}, "batch-size and batch_size are the same setting"),
    ("flat.json", {"lr": 3, "recipe": {"lr": 3}}, r"lr and recipe\.lr are the same setting"),
    ("flat.json", {"model": {"classes": 3}}, r"model\.classes: the boxes file decides it; leave it out"),
    ("flat.json", {"model": "plain", "units": 5}, "units: the model plain has no such setting; leave it out"),
    ("flat.json", {"model": {"model": "plain", "units": 5}}, r"model\.units: the model plain has no such setting"),
    ("old/config.json", {**RECORD, "run": {"weights": "pre"}}, "started from the weights 'pre', .*; add --weights"),
    (
        "old/config.json",
        {**RECORD, "run": {"processes": 0}},
        r"run\.processes: wanted a whole number, 1 or more, got 0",
    ),
    ("old/config.json", {**RECORD, "run": {"processes": "2"}}, r"run\.processes: wanted a whole number, .*, got '2'"),
    ("old/config.json", {**RECORD, "boxes": {"fingerprint": [1]}}, r"boxes\.fingerprint: wanted text, got a list"),
    ("flat.yaml", f"seed: 0x{'f' * 5000}", "seed: wanted a whole number, .*, got a number of thousands of digits"),
    ("flat.json", {"epochs": 1, "x" * 5000: 1}, r"unknown setting 'x{56}\.\.\.$"),
    ("moved.json", RECORD, r"moved.json: the boxes file of that run is no longer at \.\./boxes.h5; .*--boxes"),
    ("moved.json", {**RECORD, "boxes": {}}, r"the boxes file of that run is not recorded; give it with --boxes"),
]


@pytest.mark.parametrize(("name", "content", "complaint"), ERRORS)
def test_what_is_wrong_with_a_file_is_said_in_a_line(place, name, content, complaint):
    if content is not None:
        write(name, content)
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        values("--config", name)
    assert "\n" not in str(raised.value) and str(raised.value).startswith((name, "there is no"))


def test_aliases_that_would_unfold_without_end_do_not(place):
    lists = ["&a0 [x, x]"] + [f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(ConfigurationError, match="lr: wanted a number above 0, got a list"):
        values("--config", write("bomb.yaml", f"lr: [{', '.join(lists)}]"))
    record = write("old/bomb.yaml", f"versions: {{}}\nrun:\n  processes: [{', '.join(lists)}]")
    with pytest.raises(ConfigurationError, match="processes: wanted a whole number, 1 or more, got a list"):
        values("--config", record)


def test_a_record_from_weights_of_a_file_is_repeated_where_they_are_given(place):
    write("old/config.json", {**RECORD, "run": {**RECORD["run"], "weights": "pre.pth"}})
    assert values("--config", "old/config.json", "--weights", "here/pre.pth")["weights"] == "here/pre.pth"


def test_help_needs_no_file(place):
    with pytest.raises(click.exceptions.Exit):
        values("--config", "nothing.json", "--help")


def log_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_repeated_to_the_digit(agnet, boxes_file, folder, tmp_path):
    model = ["--model", "plain", "--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", 32]
    options = [*model, "--epochs", 2, "--batch-size", 3, "--seed", 3, "--rotation", 40, "--mixup", 0.3]
    machine = ["--device", "cpu", "--workers", 0]
    agnet("train", "--boxes", boxes_file, "--root", folder, "--run", "old", *options, *machine)
    assert (
        "already holds a run" in agnet("train", "--config", "old/config.json", "--run", "old", *machine, code=1).stderr
    )
    result = agnet("train", "--config", "old/config.json", "--run", "new/again", *machine)
    assert "configuration of old/config.json" in result.stderr and "Warning" not in result.stderr
    assert log_of(tmp_path / "new" / "again") == log_of(tmp_path / "old")
    one, other = read_config(tmp_path / "old"), read_config(tmp_path / "new" / "again")
    for section in ("model", "recipe", "run"):
        assert one[section] == other[section]
    assert other["boxes"]["fingerprint"] == one["boxes"]["fingerprint"]

    # Another boxes file is said; and what would be trained is printed, in numbers that are a configuration again.
    one["boxes"]["fingerprint"] = "0" * 32
    (tmp_path / "old" / "config.json").write_text(json.dumps(one))
    dry = agnet("train", "--config", "old/config.json", "--run", "third", "--dry-run", "--lr", 0.5, "--json", *machine)
    assert re.search(
        r"Warning: old/config.json will not be repeated exactly: \S+ is not the boxes file of that run", dry.stderr
    )
    told = json.loads(dry.stdout)
    assert told["settings"]["rotation"]["value"] == 40 and told["settings"]["lr"]["value"] == 0.5
    assert told["model"] == {
        **{"model": "plain", "backbone": "mobilenet-v3-small", "classes": 3},
        "neck": "none",
    }
    assert (told["run"]["seed"], told["run"]["weights"]) == (3, "none")
    assert not (tmp_path / "third").exists()

"""Options that are made from settings: one for each field, its help, its rule, and when it changes anything."""

import re
from collections import Counter
from dataclasses import dataclass, fields
from typing import ClassVar

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from agnet.cli import main
from agnet.commands.field_options import field_names
from agnet.commands.model_options import chosen_recipe, model_settings
from agnet.data.fields import AT_LEAST_1, choice, setting, type_name
from agnet.proposals.settings import ProposalSettings
from agnet.training.models.contract import ModelSpec, Needs, Settings
from agnet.training.models.registry import MODELS, ModelSettings
from agnet.training.recipes import REASONS, RECIPES, REGIONS_OF_THE_MODEL, Recipe, RunSettings

SETTINGS = [*(spec.settings for spec in MODELS.values()), Recipe, RunSettings, ProposalSettings]


def invoke(words, code=0):
    result = CliRunner().invoke(main, words.split(), prog_name="agnet")
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def context_of(words, command="train"):
    return main.commands[command].make_context(command, words.split())


def listed(page):
    """The options that a page of the help lists, by their first names."""
    text = CliRunner().invoke(main, page.split(), prog_name="agnet").output
    return re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_every_field_of_settings_has_metadata_and_one_option(kind):
    command = main.commands["propose" if kind is ProposalSettings else "train"]
    options = Counter(parameter.name for parameter in command.params)
    of_the_boxes_file = {"classes", "regions"} if issubclass(kind, Settings) else set()
    names = {one.name for one in fields(kind)}
    for field in fields(kind):
        section, about, (wanted, holds), needs = (field.metadata[one] for one in ("section", "about", "rule", "needs"))
        assert section and wanted and re.fullmatch(r"[A-Zt].*\.", about), field.name
        assert field.name == "classes" or kind is Recipe or holds(field.default), field.name
        assert needs is None or needs[0] in names | {REGIONS_OF_THE_MODEL}, field.name
        assert options[field.name] == 1 or field.name in of_the_boxes_file, field.name


@pytest.mark.parametrize(
    ("page", "others"),
    [
        ("train", ["train --model plain", "train --recipe modern"]),
        ("train --model plain", ["train --model agnet", "train --model plain --recipe modern"]),
        ("train --model srbn", ["train --model agnet", "train --model srbn --recipe modern"]),
        ("train --model srbn --recipe paper", ["train --model srbn", "train --model srbn --recipe modern"]),
        ("train --recipe modern", ["train", "train --recipe paper"]),
        ("train --recipe paper", ["train", "train --recipe modern"]),
        ("train --recipe bilinear", ["train", "train --recipe modern"]),
        ("train --recipe reid", ["train", "train --recipe modern"]),
        ("train --recipe clips", ["train", "train --recipe modern"]),
    ],
)
def test_no_page_is_too_long_and_each_names_the_others(page, others):
    of_a_kind = {"reid": 5, "clips": 3}.get(page.rpartition(" ")[2], 0)
    assert 10 < len({*listed(f"{page} --help")} - {"--help"}) <= 39 + of_a_kind
    assert listed(f"{page} --help") == listed(f"train --help {page.removeprefix('train')}")
    for other in others:
        assert f"agnet {other} --help" in invoke(f"{page} --help")


def test_a_page_has_the_options_of_its_model_or_recipe():
    whole, plain, modern = (set(listed(f"train {page} --help")) for page in ("", "--model plain", "--recipe modern"))
    assert {"--boxes", "--backbone", "--units", "--use-regions"} <= whole and "--epochs" not in whole
    assert whole - plain > {"--units", "--stages"} and not plain - whole
    assert {"--keep-states", "--save-every"} <= modern - whole and "--folds" in whole - modern
    every, paper = (
        {f"--{one.name.replace('_', '-')}" for one in fields(Recipe)},
        set(listed("train --recipe paper --help")),
    )
    of_phases = {"--head-optimizer", "--head-lr"}  # which change nothing in either
    of_phases |= {"--frames", "--sampling", "--frame-rate"}  # of clips
    retrieval = {"--images-per-class", "--triplet", "--margin", "--flip", "--erasing"}
    assert every - modern == retrieval | of_phases | {"--nesterov", "--step-epochs", "--step-factor"}
    assert every - paper == retrieval | of_phases | {"--beta2", "--warmup-start"}


@pytest.mark.parametrize("model", MODELS)
def test_a_page_has_the_options_of_its_model_in_the_order_of_its_fields(model):
    page = " ".join(listed(f"train --model {model} --help"))
    own = [one for one in fields(MODELS[model].settings) if one.name not in ("classes", "regions")]
    options = [field_names(one)[1].split("/")[0] for one in own]
    assert [one for one in page.split() if one in options] == options


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_a_page_with_its_values_and_their_reasons(recipe):
    told = invoke(f"train --recipe {recipe} --help")
    for field in fields(Recipe):
        if f"--{field.name.replace('_', '-')}" not in listed(f"train --recipe {recipe} --help"):
            continue
        assert " ".join(field.metadata["about"].split()) in told.replace("- ", "-") or "-" in field.metadata["about"]
    assert f"Peak learning rate of the head. [{recipe}: {RECIPES[recipe].lr:g}; " in told
    assert REASONS[recipe]["lr"] in told


def test_a_name_that_is_none_is_told_with_what_may_be_meant_even_for_help():
    assert "did you mean plain or agnet?" in invoke("train --model plane --help", code=2)
    assert "did you mean modern?" in invoke("train --help --recipe moderne", code=2)
    assert "did you mean learned or mean?" in invoke("train --fusion learnt", code=2)


def two_sides(text):
    sides = tuple(map(int, text.split("x")))
    if len(sides) != 2:
        raise ValueError(f"{text} is not of the form 30x20")
    return sides


@dataclass(frozen=True)
class ToySettings(Settings):
    model: ClassVar[str] = "toy"

    wheels: int = setting("Toy", "Number of wheels.", AT_LEAST_1, 4)
    fusion: str = choice("Toy", "Fusion of the wheels.", ("welded", "max"), "welded")
    size: tuple[int, int] = setting("Toy", "Size of a wheel.", ("two sides", all), (30, 20), parse=two_sides)


@pytest.fixture
def toy(monkeypatch):
    spec = ModelSpec(about="wheels", settings=ToySettings, needs=lambda settings: Needs(), builder="")
    monkeypatch.setitem(MODELS, "toy", spec)


def test_a_family_of_models_has_its_options_by_being_registered(toy):
    told = invoke("train --model toy --help")
    assert "Number of wheels. [default: 4]" in told and "--units" not in told
    assert "Size of a wheel. [default: 30x20]" in told and "--fusion [welded|max]" in told
    context = context_of("--model toy --wheels 3 --fusion max --size 5x4")
    assert model_settings(context, classes=7, regions=9) == ToySettings(classes=7, wheels=3, fusion="max", size=(5, 4))
    assert model_settings(context_of("--model toy"), classes=7) == ToySettings(classes=7)
    assert "--fusion: wanted welded or max, got mean" in invoke("train --model toy --fusion mean", code=2)
    assert "--fusion: wanted learned or max or mean, got welded" in invoke("train --fusion welded", code=2)
    assert "5 is not of the form 30x20" in invoke("train --model toy --size 5", code=2)
    assert "--wheels: wanted 1 or more, got 0" in invoke("train --model toy --wheels 0", code=2)
    assert "--model toy; --model agnet has no such option" in invoke("train --wheels 3", code=2)
    assert "--regions changes nothing with --model toy" in invoke("train --model toy --regions live", code=2)


def test_a_configuration_file_sets_fields_whose_annotations_are_types(toy, tmp_path):
    """This module has no ``from __future__ import annotations``, unlike the built-in families'."""
    assert [type_name(one) for one in fields(ToySettings)] == ["int", "str", "int", "str", "tuple"]
    file = tmp_path / "toy.yaml"
    file.write_text("model: toy\nwheels: 3\n")
    assert model_settings(context_of(f"--config {file}"), classes=2) == ToySettings(classes=2, wheels=3)


def test_a_family_that_is_gone_has_left_no_options():
    assert "--wheels" not in listed("train --help") and "toy" not in invoke("train --help")


def test_completion_offers_the_options_of_the_chosen_model():
    def offered(words):
        completion = ShellComplete(main, {}, "agnet", "_AGNET_COMPLETE")
        return {item.value for item in completion.get_completions(["train", *words.split()], "--s")}

    assert {"--se", "--stages", "--seed", "--schedule"} <= offered("")
    assert offered("") - offered("--model plain") > {"--se", "--stages"} and "--seed" in offered("--model plain")


def test_settings_are_what_was_given_and_defaults_for_the_rest():
    context = context_of("--units 5 --no-regions --spectral-norm --recipe paper --epochs 3 --no-augment")
    changed = {"units": 5, "use_regions": False, "spectral_norm": True}
    assert model_settings(context, classes=3, regions=6) == ModelSettings(classes=3, regions=6, **changed)
    assert chosen_recipe(context) == RECIPES["paper"].override(epochs=3, augment=False)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--units 0", "--units: wanted 1 or more, got 0"),
        ("--units many", "'many' is not a valid integer"),
        ("--lr -1", "--lr: wanted a number above 0, got -1"),
        ("--seed -1", "--seed: wanted 0 to 4294967295, got -1"),
        ("--workers -2", "--workers: wanted 0 or above, got -2"),
        ("--se none --se-ratio 8", "--se-ratio changes nothing with --se none; leave one of them out"),
        (
            "--step-epochs 3",
            "--step-epochs changes nothing with --schedule cosine of the recipe modern; add --schedule step, or leave "
            "it out",
        ),
        ("--schedule cosine --step-epochs 3", "--step-epochs changes nothing with --schedule cosine; leave one"),
        ("--ema-warmup 3", "with --ema-decay 0 of the recipe modern; add --ema-decay with a number above 0, or leave"),
        ("--no-augment --rotation 3", "--rotation changes nothing with --no-augment; leave one of them out"),
        ("--recipe paper --beta2 0.9", "--beta2 changes nothing with --optimizer sgd of the recipe paper; add --opt"),
        ("--nesterov", "--nesterov changes nothing with --optimizer adamw of the recipe modern; add --optimizer sgd"),
        ("--no-regions --regions live", "--regions changes nothing with --no-regions; leave one of them out"),
        ("--model plain --no-self-attention", "--no-self-attention is an option of --model agnet; --model plain has"),
    ],
)
def test_what_a_field_does_not_allow_and_what_changes_nothing_is_refused(words, complaint):
    assert complaint in invoke(f"train {words}", code=2)


@pytest.mark.parametrize(
    "words", ["--schedule step --step-epochs 3", "--recipe paper --nesterov", "--recipe paper", "--no-nesterov"]
)
def test_what_changes_something_or_is_the_recipes_own_is_accepted(words):
    assert chosen_recipe(context_of(words))


def test_values_of_a_configuration_file_are_defaults_that_need_change_nothing():
    """They come in by click's default map: checked against rules, overridden by the command line."""
    train = main.commands["train"]
    values = {"model": "plain", "units": 7, "step_epochs": 3, "epochs": 9, "lr": 0.5, "self_attention": False}
    context = train.make_context("train", ["--epochs", "4"], default_map=values)
    assert model_settings(context, classes=2) == ModelSettings(classes=2, model="plain")
    assert chosen_recipe(context) == RECIPES["modern"].override(step_epochs=3, epochs=4, lr=0.5)
    other = train.make_context("train", ["--model", "agnet", "--self-attention"], default_map=values)
    assert model_settings(other, classes=2, regions=1) == ModelSettings(classes=2, regions=1, units=7)
    with pytest.raises(click.UsageError, match="--regions changes nothing with --no-regions of the configuration fi"):
        train.make_context("train", ["--regions", "live"], default_map={"use_regions": False})
    with pytest.raises(click.UsageError, match="epochs of the configuration file: wanted 1 or more, got 0"):
        train.make_context("train", [], default_map={"epochs": 0})


def test_a_shared_option_is_checked_in_every_command():
    assert "--workers: wanted 0 or above, got -1" in invoke("evaluate --run run --workers -1", code=2)


def test_complexity_has_the_same_options_of_a_model():
    assert {"--region-count", "--classes", "--units", "--stages", "--se-ratio"} <= set(listed("complexity --help"))
    assert len(listed("complexity --help")) <= 33
    assert "--units: wanted 1 or more" in invoke("complexity --units 0", code=2)


def test_a_command_of_stage_1_has_a_page_and_refuses_what_its_method_does_not_use():
    assert 20 < len(listed("propose --help")) <= 33
    for method, idle in [
        ("none", "--kinds primary"),
        ("none", "--weights file"),
        ("grid", "--mixture scikit-learn"),
        ("mask-rcnn", "--seed 1"),
        ("random", "--tol 0.1"),
    ]:
        told = invoke(f"propose photos --method {method} {idle}", code=2)
        assert f"{idle.split()[0]} changes nothing with --method {method}; leave one of them out" in told
    assert "--weights changes nothing with --method sift, the default; add" in invoke(
        "propose photos --weights f", code=2
    )
    assert "--primary: wanted 2 to 36, got 1" in invoke("propose photos --primary 1", code=2)

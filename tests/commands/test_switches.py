"""The options of `agnet train` that take AG-Net's parts away: each reaches the network it names."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import agnet
from agnet.cli import main
from agnet.training.loop import fit as fitting
from agnet.training.models.registry import ModelSettings

PAGE = (Path(agnet.__file__).parent / "docs" / "models.md").read_text(encoding="utf-8")

# The rows of the paper's Table VII as the documentation has them, and the networks that they are.
TABLE_7 = {
    "base": {"model": "plain"},
    "+ SRs": {"self_attention": False, "inter_attention": False, "fusion": "mean"},
    "+ self-attention": {"inter_attention": False, "fusion": "mean"},
    "+ inter-attention": {"fusion": "mean"},
    "GMP only": {"fusion": "max"},
    "GAP & GMP": {},
}
BEYOND = {
    "--no-regions": {"use_regions": False},
    "--no-self-attention": {"self_attention": False},
    "--no-inter-attention": {"inter_attention": False},
    "--se shared": {"se": "shared"},
    "--se none": {"se": "none"},
    "--pooling-samples 2": {"pooling_samples": 2},
    "--pooling crop": {"pooling": "crop"},
    "--units 5": {"units": 5},
    "--spectral-norm": {"spectral_norm": True},
    "--attention-softmax": {"attention_softmax": True},
    "--shortcut": {"shortcut": True},
    "--stages 2": {"stages": 2},
    "--backbone vgg16": {"backbone": "vgg16"},
}


@pytest.fixture
def job_of(boxes_file, folder, monkeypatch):
    """The job that `agnet train` with these options would run."""

    class Asked(Exception):
        pass

    def fit(job, *others):
        raise Asked(job)

    monkeypatch.setattr(fitting, "fit", fit)

    def job(options):
        result = CliRunner().invoke(
            main, ["train", "--boxes", str(boxes_file), "--root", str(folder), *options.split()]
        )
        assert isinstance(result.exception, Asked), result.output
        return result.exception.args[0]

    return job


@pytest.fixture
def settings_of(job_of):
    """The settings of the network that `agnet train` with these options would train."""
    return lambda options: job_of(options).model


def options_of(row):
    cells = next(line for line in PAGE.splitlines() if line.startswith(f"| {row} "))
    return " ".join(re.findall(r"`([^`]*)`", cells.split("|")[2]))


@pytest.mark.parametrize("row", TABLE_7)
def test_the_options_of_table_7_give_its_networks(settings_of, row):
    options = options_of(row)
    assert bool(options) == bool(TABLE_7[row])
    assert settings_of(options) == ModelSettings(classes=3, regions=6, **TABLE_7[row])


@pytest.mark.parametrize("options", BEYOND)
def test_every_other_switch_changes_what_it_names_and_nothing_else(settings_of, options):
    assert settings_of(options) == ModelSettings(classes=3, regions=6, **BEYOND[options])


@pytest.mark.parametrize(("options", "live"), [("", True), ("--no-regions", False), ("--model srbn", False)])
def test_live_regions_of_a_configuration_file_are_for_models_that_use_regions(job_of, tmp_path, options, live):
    file = tmp_path / "live.yaml"
    file.write_text("regions: live\n")
    job = job_of(f"--config {file} --weights none {options}")
    assert (job.recipe.regions, job.proposes) == (("live", True) if live else ("cached", False))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            "--model plain --units 5",
            "--units is an option of --model agnet or srbn or alstm or conv-alstm; --model plain has no such option",
        ),
        ("--model plain --no-regions", "--no-regions is an option of --model agnet; --model plain has no such option"),
        ("--model plain --stages 2", "--stages is an option of --model agnet; --model plain has no such option"),
        ("--model plain --regions live", "--regions changes nothing with --model plain"),
        ("--no-self-attention --spectral-norm", "--spectral-norm changes nothing with --no-self-attention"),
        ("--no-inter-attention --attention-softmax", "--attention-softmax changes nothing with --no-inter-attention"),
        ("--pooling crop --pooling-samples 3", "--pooling-samples changes nothing with --pooling crop"),
        ("--no-regions --regions live", "--regions changes nothing with --no-regions"),
    ],
)
def test_a_switch_that_cannot_matter_is_refused(boxes_file, options, complaint):
    result = CliRunner().invoke(main, ["train", "--boxes", str(boxes_file), *options.split()])
    assert result.exit_code == 2 and complaint in result.output.replace("\n", " ")

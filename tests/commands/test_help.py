"""The help: every command under the heading of its stage, each in a line that a narrow terminal shows whole."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from agnet.cli import main

STAGE_1 = ["datasets", "propose", "inspect"]
LINE = 80


def sections(text):
    """The lines under each heading of a page of the help."""
    found = {}
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            heading = line[:-1]
            found[heading] = []
        elif line.startswith("  ") and found:
            found[heading].append(line)
    return found


def test_commands_are_listed_by_stage_each_in_one_whole_line():
    page = sections(CliRunner().invoke(main, ["--help"], prog_name="agnet", terminal_width=LINE).output)
    del page["Options"]
    assert {heading: [line.split()[0] for line in lines] for heading, lines in page.items()} == {
        "Data and stage 1": STAGE_1,
        "Stage 2": ["train", "evaluate", "report", "compare", "study", "labels", "figure", "runs", "complexity"],
        "Inference": ["predict", "explain", "export", "export-data"],
        "Sharing": ["push", "pull"],
        "Demo and bug reports": ["demo", "doctor"],
    }
    for line in (line for lines in page.values() for line in lines):
        name, summary = line.split(maxsplit=1)
        assert len(line) <= LINE and summary.endswith(".") and main.commands[name].short_help == summary


@pytest.mark.parametrize("command", main.commands.values(), ids=lambda one: one.name)
def test_a_command_says_in_sixty_letters_what_it_does_and_every_option_has_a_help(command):
    assert 20 <= len(command.short_help) <= 60
    assert all(one.help for one in command.params if isinstance(one, click.Option))


def test_a_command_loads_what_it_needs_and_no_other_command():
    """Start-up, as benchmarks/startup.py measures it."""
    program = """
import sys
from agnet.cli import main
main(["inspect", "--help"], standalone_mode=False)
print(*sys.modules)
import agnet.training.answers.predict_files, agnet.training.measure.evaluation
print(*sys.modules)
"""
    lines = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    first, second = (set(line.split()) for line in lines.splitlines()[-2:])
    assert "agnet.commands.inspect" in first and not first & {"agnet.commands.train", "torch", "numpy", "h5py"}
    assert not second & {"scipy.stats", "sklearn", "matplotlib", "pandas"}

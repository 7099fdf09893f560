"""What the package offers at its top, and that the example does what it says."""

import importlib.util
import re
from pathlib import Path

import pytest

import agnet

EXAMPLE = Path(agnet.__file__).parent / "examples" / "own_backbone.py"


@pytest.mark.usefixtures("one_thread")
def test_the_example_learns(capsys):
    spec = importlib.util.spec_from_file_location("own_backbone", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main()
    told = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", told)]
    assert len(losses) == 6 and losses[-1] < losses[0] / 2
    assert int(re.findall(r"(\d+) of 8 correct", told)[-1]) >= 7


@pytest.mark.parametrize("name", sorted(agnet._HOMES))
def test_every_name_offered_is_there(name):
    assert getattr(agnet, name).__name__ == name
    assert name in dir(agnet)


def test_other_names_are_missed_as_usual():
    with pytest.raises(AttributeError, match="no attribute 'AGNets'"):
        _ = agnet.AGNets

"""Commands of agnet as processes of their own, run as a user would run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# The current folder, which Python puts first for -c, may have a folder or file with the name of a module.
_START = "import sys\nsys.path[:] = [place for place in sys.path if place]\n"
# The parent's number is given, since this process may see another one if that ends at once.
_COMMAND = f"""\
{_START}
from agnet.cli import main
from agnet.data.workers import end_with
end_with(int(sys.argv.pop(1)))
main(prog_name="agnet")
"""
_NOTHING = f"{_START}import agnet.training.loop.fit, agnet.training.measure.evaluation_plots, matplotlib.figure"


def process_of(words: Sequence[str]) -> list[str]:
    """Return the words that start a process for an agnet command; it ends when this process is gone."""
    return [sys.executable, "-c", _COMMAND, str(os.getpid()), *words]


def process_of_nothing() -> list[str]:
    """Return the words that start a process which loads what training and evaluation load, and ends."""
    return [sys.executable, "-c", _NOTHING]

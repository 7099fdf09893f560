"""Run the command line: ``python -m agnet`` is the same as ``agnet``."""

import os
import sys

# Python puts the current folder first on sys.path. Its modules are the user's: remove it unless agnet was found there.
_home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
if sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir) != _home:
    del sys.path[0]

from .cli import main  # noqa: E402

main(prog_name="agnet")

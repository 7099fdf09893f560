"""``python -m agnet`` is ``agnet``."""

import os
import sys

# Python has put the current folder first, whose modules are the user's own, unless agnet itself was found there.
_home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
if sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir) != _home:
    del sys.path[0]

from .cli import main  # noqa: E402

main(prog_name="agnet")

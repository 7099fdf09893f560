"""``python -m agnet`` is ``agnet``."""

from .cli import main

main(prog_name="agnet")

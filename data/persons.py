"""Persons and cameras in the file names of Market-1501."""

from __future__ import annotations

import re

JUNK, DISTRACTOR = "-1", "0000"  #: persons of boxes that show no whole person, and of everybody who is not searched for

_MARKET_NAME = re.compile(r"(-1|\d{4})_c(\d+)s\d+_\d+_\d+\.\w+")


def person_and_camera(file_name: str) -> tuple[str, str] | None:
    """Parse a file name such as ``0002_c1s1_000451_03.jpg``: person, camera, sequence, frame and box.

    Returns: person and camera, ``("0002", "1")``; None for any other name.
    """
    found = _MARKET_NAME.fullmatch(file_name)
    return found and (found[1], found[2])

"""How artefacts name the files they belong to, without telling whose machine this is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def relative_hint(target: Path, start: Path) -> str:
    """``target`` relative to the folder ``start``; empty where that path would name a user or does not exist.

    It names one when it leads into a home folder that ``start`` is not in itself.
    """
    target, start = target.resolve(), start.resolve()
    try:
        shared = Path(os.path.commonpath([target, start]))
    except ValueError:  # other drives
        return ""
    if any(target.is_relative_to(home) and not shared.is_relative_to(home) for home in _homes(target)):
        return ""
    return Path(os.path.relpath(target, start)).as_posix()


def own_name(folder: Path) -> str:
    """What a folder is called by whoever named it; empty where that names a user, or it is a whole disk."""
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - a link keeps its own name
    return "" if place.resolve() in _homes(place.resolve()) or place in _homes(place) else place.name


def _homes(target: Path) -> set[Path]:
    """This user's home folder, and the one of whoever's ``target`` is in."""
    homes = set()
    with suppress(RuntimeError):  # a container's user may have no home
        homes.add(Path.home().resolve())
    for place in (Path("/home").resolve(), Path("/Users").resolve()):
        if target.is_relative_to(place) and target != place:
            homes.add(place / target.relative_to(place).parts[0])
    return homes


def follow_hint(hint: object, start: Path) -> Path | None:
    """The existing place a hint leads to from the folder ``start``, or None."""
    place = hinted_place(hint, start)
    return place if place is not None and (start / str(hint)).exists() else None


def hinted_place(hint: object, start: Path) -> Path | None:
    """The place a hint leads to from the folder ``start``, whether something is there or not; None for no hint."""
    if not isinstance(hint, str) or not hint or Path(hint).is_absolute():
        return None
    return Path(os.path.normpath(start / hint))

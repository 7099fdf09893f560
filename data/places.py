"""Paths by which artefacts refer to related files, without revealing a user's name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .text import printable

_ABSOLUTE = re.compile(r"(?<![\w.:/~-])(?:/|[A-Za-z]:[\\/])[^\s'\"]*[\\/]")


def relative_hint(target: Path, start: Path) -> str:
    """``target`` relative to the folder ``start``; empty if that path would reveal a user or does not exist.

    It reveals one if it leads into a home folder that does not contain ``start`` itself.
    """
    target, start = target.resolve(), start.resolve()
    try:
        shared = Path(os.path.commonpath([target, start]))
    except ValueError:  # on different drives
        return ""
    if any(target.is_relative_to(home) and not shared.is_relative_to(home) for home in _homes(target)):
        return ""
    return Path(os.path.relpath(target, start)).as_posix()


def own_name(folder: Path) -> str:
    """The folder's name; empty if it would reveal a user or the folder is a whole disk."""
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps the name of a link
    return "" if place.resolve() in _homes(place.resolve()) or place in _homes(place) else place.name


def _homes(target: Path) -> set[Path]:
    """This user's home folder, and the home folder that contains ``target``."""
    homes = set()
    with suppress(RuntimeError):  # a container's user may have no home
        homes.add(Path.home().resolve())
    for place in (Path("/home").resolve(), Path("/Users").resolve()):
        if target.is_relative_to(place) and target != place:
            homes.add(place / target.relative_to(place).parts[0])
    return homes


def follow_hint(hint: object, start: Path) -> Path | None:
    """The existing path that a hint leads to from the folder ``start``, or None."""
    place = hinted_place(hint, start)
    return place if place is not None and (start / str(hint)).exists() else None


def hinted_place(hint: object, start: Path) -> Path | None:
    """The path that a hint leads to from the folder ``start``, existing or not; None without a hint."""
    if not isinstance(hint, str) or not hint or Path(hint).is_absolute():
        return None
    return Path(os.path.normpath(start / hint))


def without_paths(value: Any) -> Any:
    """JSON values without absolute paths: of each, the last part is kept. Text is made printable."""
    if isinstance(value, Mapping):
        return {str(name): without_paths(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(one) for one in value]
    if not isinstance(value, str):
        return value
    text = printable(value)
    # A path by itself may have spaces, one within a sentence ends at the first.
    return re.split(r"[\\/]", text)[-1] if _ABSOLUTE.match(text) else _ABSOLUTE.sub("", text)

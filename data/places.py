"""How artefacts name the files they belong to, without telling where this machine keeps them."""

from __future__ import annotations

import os
from pathlib import Path


def relative_hint(target: Path, start: Path) -> str:
    """``target`` relative to the folder ``start``, or empty where that would name users or spell out a whole path.

    The two must share a folder below the home folders and the file system's root.
    """
    target, start = target.resolve(), start.resolve()
    try:
        shared = Path(os.path.commonpath([target, start]))
    except ValueError:  # other drives
        return ""
    if shared == Path(shared.anchor) or shared == Path.home().resolve().parent:
        return ""
    return Path(os.path.relpath(target, start)).as_posix()


def follow_hint(hint: object, start: Path) -> Path | None:
    """The existing place a hint leads to from the folder ``start``, or None."""
    if not isinstance(hint, str) or not hint:
        return None
    place = start / hint
    return Path(os.path.normpath(place)) if place.exists() else None

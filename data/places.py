"""Paths by which artefacts refer to related files, without revealing a user's name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .text import printable

_ABSOLUTE = re.compile(r"(?<![\w.:/~-])(?:/|[A-Za-z]:[\\/])[^\s'\"]*[\\/]")
#: An absolute path in a person's text, which may be Markdown or HTML; not the path of a web address.
_IN_TEXT = re.compile(r"(?:(?<![\w.:/~<-])|(?<=file://))(?:/|[A-Za-z]:[\\/])[^\s'\"`<>()\[\]{}|*,;]+")
_OF_A_HOME = re.compile(r"/home/\w|/Users/\w|[A-Za-z]:[\\/]Users[\\/]\w")
_EVERYWHERE = {"bin", "dev", "etc", "lib", "proc", "sys", "usr"}  # folders of every machine, which tell nothing of one


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


def private_place(text: str, own: Iterable[Path] = ()) -> str:
    """Return the first private folder or file that a person's text names; empty if there is none.

    A path is private if it is in anybody's home folder, or exists on this machine outside the folders of its system.

    Args:
        text: Text, such as Markdown.
        own: Absolute paths that are private, too. They are also found if they have spaces.
    """
    for place in own:
        if str(place) in text:
            return str(place)
    for found in _IN_TEXT.findall(text):
        place = Path(found.rstrip(".:!?"))
        told = (one for one in (place, place.parent) if len(one.parts) > 2 and one.parts[1] not in _EVERYWHERE)
        if _OF_A_HOME.match(found) or any(os.path.exists(one) for one in told):  # noqa: PTH110 - of any length
            return str(place)
    return ""


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

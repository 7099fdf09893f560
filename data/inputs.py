"""Expansion of command-line inputs, such as files, folders, patterns and lists, into one list of files."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .images import IMAGE_SUFFIXES
from .listing import is_a_systems, suffix_of
from .text import tally
from .videos import VIDEO_SUFFIXES

LIST = "-"  # the argument that means a list on stdin


@dataclass(frozen=True)
class Input:
    """A file to process, or an argument that matched nothing."""

    name: str  #: path as given or as it may be given again; without a match, the argument
    problem: str = ""  #: why nothing was found

    @property
    def is_video(self) -> bool:
        return not self.problem and suffix_of(self.name) in VIDEO_SUFFIXES


def find_inputs(arguments: Sequence[str], listed: BinaryIO, passed_over: Counter[str] | None = None) -> Iterator[Input]:
    """Yield the files that the arguments refer to, in order. A file that is named twice comes twice.

    An argument is a file, a folder (every image and video in it by suffix, at any depth, sorted; links to folders are
    not followed), a pattern with ``*``, ``?``, ``[...]`` or ``**`` (like a folder, but links are followed), or `LIST`.
    Hidden and system files are included only if named. The name of an existing file is used literally, even if it
    looks like a pattern. Whether a named file exists is not checked here: reading it will show.

    Args:
        listed: Stream that is read to its end if `LIST` is among the arguments: one path per line, or NUL-terminated
            paths. The paths are files, folders or patterns, like arguments. Blank lines are skipped.
        passed_over: Counter of the files in folders and patterns that are neither images nor videos by their suffix,
            by suffix; it is updated in place.
    """
    passed_over = Counter() if passed_over is None else passed_over
    for argument in arguments:
        if argument == LIST:
            names = read_list(listed.read())
            if not names:
                yield Input(LIST, "the list on stdin names nothing")
            for name in names:
                yield from _find(name, passed_over)
        else:
            yield from _find(argument, passed_over)


def read_list(content: bytes) -> list[str]:
    """Parse paths, one per line or NUL-terminated as from ``find -print0``, in the file system's encoding."""
    by_nul = b"\0" in content
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\0" if by_nul else b"\n")
    # A line written on Windows ends with a carriage return; a NUL-terminated name may end with any character.
    names = lines if by_nul else [line.removesuffix(b"\r") for line in lines]
    return [os.fsdecode(name) for name in names if name.strip()]


def _find(name: str, passed_over: Counter[str]) -> Iterator[Input]:
    if os.path.isdir(name):  # noqa: PTH112 - returns False for impossible names, where Path raises
        yield from _found(name, _files_below(name), f"no images or videos in {name}", passed_over)
    elif glob.has_magic(name) and not os.path.lexists(name):
        matches = glob.iglob(name, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        named = set(Path(name).parts)
        files = (
            match
            for match in matches
            if not any(map(is_a_systems, set(Path(match).parts) - named)) and os.path.isfile(match)  # noqa: PTH113
        )
        yield from _found(name, files, f"no images or videos match {name}", passed_over)
    else:
        yield Input(name)


def _found(argument: str, files: Iterable[str], otherwise: str, passed_over: Counter[str]) -> Iterator[Input]:
    names, others = [], Counter[str]()
    for name in files:
        suffix = suffix_of(name)
        if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            names.append(name)
        else:
            others[suffix or "without a suffix"] += 1
    passed_over += others
    yield from map(Input, sorted(names))
    if not names:
        yield Input(argument, f"{otherwise}, but {tally(others)}" if others else otherwise)


def _files_below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_a_systems(name)]
        yield from (str(Path(place, name)) for name in files if not is_a_systems(name))

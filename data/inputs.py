"""What a person names to a program: files, folders, patterns and lists, as one list of files."""

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

LIST = "-"  # the argument that stands for a list on stdin


@dataclass(frozen=True)
class Input:
    """A file to look at, or an argument under which nothing was found."""

    name: str  #: a path as the user gave it or may give it again; of an argument that found nothing, the argument
    problem: str = ""  #: why there is nothing

    @property
    def is_video(self) -> bool:
        return not self.problem and suffix_of(self.name) in VIDEO_SUFFIXES


def find_inputs(arguments: Sequence[str], listed: BinaryIO, passed_over: Counter[str] | None = None) -> Iterator[Input]:
    """The files that arguments mean, in their order; what is named twice comes twice.

    An argument is a file, a folder (everything in it, at any depth, whose suffix is a picture's or a video's, sorted;
    links to folders are not followed), a pattern with ``*``, ``?``, ``[...]`` or ``**`` (as a folder, but links are
    followed), or `LIST`. What is hidden or a system's is seen only where it is named. A file that exists is taken
    at its word, also when its name looks like a pattern. Whether a file is there is not asked: reading it will tell.

    Args:
        listed: read to its end when `LIST` is among the arguments: paths, one a line, or ended by NUL where there is
            one. Lists hold files, folders and patterns as arguments do. Blank lines are skipped.
        passed_over: grows by the files in folders and of patterns that are neither pictures nor videos by their
            suffix, by that suffix.
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
    """Paths, one a line, or ended by NUL as ``find -print0`` writes them; in the file system's encoding."""
    by_nul = b"\0" in content
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\0" if by_nul else b"\n")
    # A line that Windows wrote ends with a carriage return; a name between NULs may end as it likes.
    names = lines if by_nul else [line.removesuffix(b"\r") for line in lines]
    return [os.fsdecode(name) for name in names if name.strip()]


def _find(name: str, passed_over: Counter[str]) -> Iterator[Input]:
    if os.path.isdir(name):  # noqa: PTH112 - says no, where Path raises, to names that cannot be
        yield from _found(name, _files_below(name), f"no images or videos in {name}", passed_over)
    elif glob.has_magic(name) and not os.path.lexists(name):
        matches = glob.iglob(name, recursive=True)  # noqa: PTH207 - Path's takes no absolute pattern
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

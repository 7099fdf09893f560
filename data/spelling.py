"""Names that a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 3


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are spelt most like ``name``, three at most, whatever their letters' case."""
    by_fold = {one.casefold(): one for one in known}
    return [by_fold[fold] for fold in difflib.get_close_matches(name.casefold(), by_fold, _SHOWN)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, such as ``; did you mean resnet50?``; empty where none is alike."""
    close = close_names(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else ""

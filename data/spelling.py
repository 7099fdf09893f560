"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable

_SHOWN = 3
_COMPARED = 1000  # candidates compared letter by letter, at 0.1 ms each; of many names, only the likeliest


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names closest in spelling to ``name``, at most three, ignoring case."""
    by_fold = {one.casefold(): one for one in known}
    wanted, folds = name.casefold(), list(by_fold)
    if len(folds) > _COMPARED:
        folds = heapq.nlargest(_COMPARED, folds, lambda fold: _same(wanted, fold) + _same(wanted[::-1], fold[::-1]))
    return [by_fold[fold] for fold in difflib.get_close_matches(wanted, folds, _SHOWN)]


def _same(first: str, second: str) -> int:
    """Length of the common prefix of two words."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suffix for a message about an unknown name, such as ``; did you mean resnet50?``; empty if no name is close."""
    close = close_names(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else ""

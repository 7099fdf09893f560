"""Texts that strangers chose, such as the names of files and classes, where a program would obey them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

_KINDS = 8
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would obey; letters that are none become �."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def tally(counts: Mapping[str, int]) -> str:
    """How many there are of each kind, the most first: ``3 .pdf, 1 .cr2``. Kinds past the eighth are one number."""
    kinds = sorted(counts.items(), key=lambda kind: -kind[1])
    told = [f"{count:,} {printable(kind)}" for kind, count in kinds[:_KINDS]]
    rest = sum(count for _, count in kinds[_KINDS:])
    return ", ".join([*told, f"{rest:,} of {len(kinds) - _KINDS:,} other kinds"] if rest else told)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """CSV for people: rows of texts, numbers and None (an empty cell), a line each.

    A text that begins as a formula does and is no number gets an apostrophe before it, so that no spreadsheet computes
    it; and each is `printable`.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_BEGIN_FORMULAS) and not _is_number(value) else value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()

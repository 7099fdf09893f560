"""Texts that strangers chose, such as the names of files and classes, where a program would obey them."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence

_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would obey; letters that are none become �."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def composed(label: str) -> str:
    """A class's name in Unicode's composed form (NFC), which tells letters apart as readers do.

    Macs write é as e and an accent, others as one letter: the same name. Cases and look-alikes (NFKC) stay apart.
    """
    return unicodedata.normalize("NFC", label)


def composed_all(labels: Iterable[str]) -> tuple[str, ...]:
    """Names of classes as older versions and other programs wrote them, `composed` if that leaves them all apart."""
    found = tuple(labels)
    alike = tuple(map(composed, found))
    return alike if len(set(alike)) == len(set(found)) else found


def file_name(text: str) -> str:
    """``text`` as part of a file's name on any system: letters, digits, and ``-_.`` inside; 60 at most."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)[:60].strip(".") or "_"


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

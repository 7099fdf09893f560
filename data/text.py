"""Texts for people: what strangers chose, such as names of files, where a program would obey it, and what we say."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence

_KINDS = 8
_LONGEST_REASON = 300
_JOINERS = "\u200c\u200d"
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would obey; letters that are none become �."""
    return "".join(
        letter if _is_shown(letter) or _joins(text, place) else "\N{REPLACEMENT CHARACTER}"
        for place, letter in enumerate(text)
    )


def _is_shown(letter: str) -> bool:
    return (
        letter.isprintable() or unicodedata.category(letter) == "Zs"
    )  # spaces of any width, as in names of screenshots


def _joins(text: str, place: int) -> bool:
    """Whether it is a joiner, or keeps letters from being joined, where that belongs to spelling: in Persian and Indic
    words and in emoji, not between Latin letters, where nobody sees it.
    """
    return text[place] in _JOINERS and 0 < place < len(text) - 1 and min(text[place - 1], text[place + 1]) >= "\u0590"


def columns(text: str) -> int:
    """How many columns of a terminal `printable` text takes: East Asian letters two, marks over others none."""
    return sum(map(_columns, printable(text)))


def _columns(letter: str) -> int:
    if letter in _JOINERS or unicodedata.category(letter) in ("Mn", "Me") or "\u1160" <= letter <= "\u11ff":
        return 0  # the last are vowels and endings inside a Hangul syllable
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def padded(text: str, width: int, right: bool = False) -> str:
    """`printable` text in at least ``width`` columns, flush left, or flush right."""
    space = " " * (width - columns(text))
    return space + printable(text) if right else printable(text) + space


def table(rows: Sequence[Sequence[str]], right: Container[int] | None = None) -> list[str]:
    """A line for each row of `printable` cells, the columns two spaces apart.

    Args:
        rows: of as many cells each, the first row the heads of the columns.
        right: the columns that are flush right; all but the first unless given, and but those whose last cell begins
            with a letter.
    """
    if right is None:
        right = [place for place, cell in enumerate(rows[-1]) if place and not cell[:1].isalpha()]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        line = (padded(cell, width, right=place in right) for place, (cell, width) in enumerate(cells))
        lines.append("  ".join(line).rstrip())
    return lines


def duration(seconds: float) -> str:
    """Minutes and seconds, 4:05, or hours as well, 1:04:05."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def rough_time(seconds: float) -> str:
    """A time that was reckoned, such as ``3.5 hours``."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def rough_size(number: int) -> str:
    """So many bytes in three digits, such as ``25.6 MB``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"


def percent(share: float, digits: int = 1) -> str:
    """A share as people read it in percent, such as ``33.3%``."""
    return f"{share:.{digits}%}"


def first_line(error: BaseException, nothing: str = "") -> str:
    """What a library's error begins with, 300 letters at most.

    Args:
        error: whatever was raised.
        nothing: what to say where it says nothing; its type's name unless given.
    """
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else nothing or type(error).__name__)[:_LONGEST_REASON]


def tally(counts: Mapping[str, int]) -> str:
    """How many there are of each kind, the most first: ``3 .pdf, 1 .cr2``. Kinds past the eighth are one number."""
    kinds = sorted(counts.items(), key=lambda kind: -kind[1])
    told = [f"{count:,} {printable(kind)}" for kind, count in kinds[:_KINDS]]
    rest = sum(count for _, count in kinds[_KINDS:])
    return ", ".join([*told, f"{rest:,} more of {len(kinds) - _KINDS:,} other kinds"] if rest else told)


def composed(label: str) -> str:
    """A class's name in Unicode's composed form (NFC), which tells letters apart as readers do.

    Macs write é as e and an accent, others as one letter: the same name. Cases and look-alikes (NFKC) stay apart.
    """
    return unicodedata.normalize("NFC", label)


def composed_all(labels: Iterable[str]) -> tuple[str, ...]:
    """Names of classes as other programs write them, `composed` if that leaves them all apart."""
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

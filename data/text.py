"""Text for display: file names and class names made safe to print, tables, and numbers with units."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence

_KINDS = 8
_LONGEST_REASON = 300
_JOINERS = "\u200c\u200d"
# What is counted, after at most one word about it; a folder's own name is no noun.
_PLURAL = re.compile(
    r"^(?!folder )((?:\w+ )?"
    r"(?:box|class|clip|file|folder|frame|image|label|other|person|photograph|picture|region|score))e?s\b"
)
_IN_MARKDOWN = str.maketrans({letter: f"\\{letter}" for letter in "\\|*_`["} | {"<": "&lt;"})
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Return ``text`` in one line, with control characters and invalid characters replaced by �."""
    return "".join(
        letter if _is_shown(letter) or _joins(text, place) else "\N{REPLACEMENT CHARACTER}"
        for place, letter in enumerate(text)
    )


def _is_shown(letter: str) -> bool:
    return (
        letter.isprintable() or unicodedata.category(letter) == "Zs"
    )  # spaces of any width, as in the names of screenshots


def _joins(text: str, place: int) -> bool:
    """Whether the character is a joiner or non-joiner that spelling requires: in Persian and Indic words and in emoji,
    not between Latin letters, where it is invisible.
    """
    return text[place] in _JOINERS and 0 < place < len(text) - 1 and min(text[place - 1], text[place + 1]) >= "\u0590"


def columns(text: str) -> int:
    """Return the width of `printable` text in terminal columns: 2 for East Asian characters, 0 for combining marks."""
    return sum(map(_columns, printable(text)))


def _columns(letter: str) -> int:
    if letter in _JOINERS or unicodedata.category(letter) in ("Mn", "Me") or "\u1160" <= letter <= "\u11ff":
        return 0  # the last are vowels and endings inside a Hangul syllable
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def padded(text: str, width: int, right: bool = False) -> str:
    """Pad `printable` text to at least ``width`` columns, flush left or right."""
    space = " " * (width - columns(text))
    return space + printable(text) if right else printable(text) + space


def table(rows: Sequence[Sequence[str]], right: Container[int] | None = None) -> list[str]:
    """Format rows of `printable` cells as lines, with the columns two spaces apart.

    Args:
        rows: Rows with equal numbers of cells; the first row has the headings.
        right: Columns that are flush right; by default all except the first and those whose last cell begins with a
            letter.
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


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as a Markdown table; the first row has the headings."""
    lines = [f"| {' | '.join(map(markdown, row))} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def markdown(text: str) -> str:
    """Return `printable` text that Markdown shows as it is."""
    return printable(text).translate(_IN_MARKDOWN)


def duration(seconds: float) -> str:
    """Format a time in minutes and seconds, 4:05, or also hours, 1:04:05."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def rough_time(seconds: float) -> str:
    """Format an estimated time, such as ``3.5 hours``."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def rough_size(number: int) -> str:
    """Format a number of bytes with three digits, such as ``25.6 MB``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"


def percent(share: float, digits: int = 1) -> str:
    """Format a fraction in per cent, such as ``33.3%``."""
    return f"{share:.{digits}%}"


def first_line(error: BaseException, nothing: str = "") -> str:
    """Return the first line of an error message, `printable`, at most 300 characters; it may quote a stranger's file.

    Args:
        error: Exception that was raised.
        nothing: Text for an exception without a message; the name of its type by default.
    """
    lines = str(error).strip().splitlines()
    return printable((lines[0] if lines else nothing or type(error).__name__)[:_LONGEST_REASON])


def counted(count: int, plural: str) -> str:
    """Format a count of what ``plural`` names: ``1 clip``, ``2 clips``, ``1,000 unreadable images``."""
    return f"{count:,} {_PLURAL.sub(lambda found: found[1], plural, count=1) if count == 1 else plural}"


def tally(counts: Mapping[str, int]) -> str:
    """Format counts by kind, largest first: ``3 .pdf, 1 .cr2``. Kinds after the eighth are added up."""
    kinds = sorted(counts.items(), key=lambda kind: -kind[1])
    told = [counted(count, printable(kind)) for kind, count in kinds[:_KINDS]]
    rest = sum(count for _, count in kinds[_KINDS:])
    return ", ".join([*told, f"{rest:,} more of {len(kinds) - _KINDS:,} other kinds"] if rest else told)


def widest(texts: Iterable[str]) -> int:
    """Byte length of the longest text as UTF-8; 0 without any."""
    return max((len(text.encode()) for text in texts), default=0)


def rows_called(of_clips: bool) -> str:
    """What the rows of a data set are called in outputs: images, or clips."""
    return "clips" if of_clips else "images"


def composed(label: str) -> str:
    """Return a class name in Unicode's composed form (NFC), so that equal names compare equal.

    macOS writes é as e and an accent, other systems as one character: both are the same name. Upper and lower case, and
    compatibility forms (NFKC), stay distinct.
    """
    return unicodedata.normalize("NFC", label)


def composed_all(labels: Iterable[str]) -> tuple[str, ...]:
    """Return class names written by other programs, `composed` if they all stay distinct."""
    found = tuple(labels)
    alike = tuple(map(composed, found))
    return alike if len(set(alike)) == len(set(found)) else found


def file_name(text: str) -> str:
    """Return ``text`` as part of a file name for any system: letters, digits and ``-_.``, at most 60 characters."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)[:60].strip(".") or "_"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Format rows of text, numbers and None (an empty cell) as CSV for spreadsheets.

    Text is made `printable`. If it begins like a formula and is not a number, an apostrophe is put before it, so that
    spreadsheets do not evaluate it.
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

"""Names of strangers in terminals and spreadsheets."""

import csv
import io

import pytest

from agnet.data.text import (
    columns,
    counted,
    csv_text,
    first_line,
    padded,
    printable,
    rough_size,
    rough_time,
    table,
    tally,
)


def cells(*row):
    (read,) = csv.reader(io.StringIO(csv_text([row])))
    return read


@pytest.mark.parametrize("name", ["=1+1", '=HYPERLINK("x")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_is_a_formula(name):
    (cell,) = cells(name)
    assert cell[0] == "'" and cell[1:] == printable(name)


@pytest.mark.parametrize("name", ["", "ant", "a=b", "-1", "+1.5e3", "'", "côté 空", 'a, "b"'])
def test_other_texts_and_numbers_stay_what_they_are(name):
    assert cells(name) == [name]


def test_numbers_and_nothing_are_no_texts():
    assert cells(-1, -0.5, None, 0) == ["-1", "-0.5", "", "0"]


def test_a_row_is_a_line_whatever_is_in_it():
    assert csv_text([["a\nb", "\x1b[2J"], ["\u202egpj.exe", "\udcff"]]) == "a�b,�[2J\n�gpj.exe,�\n"


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("clips", "1 clip"),
        ("unreadable images", "1 unreadable image"),
        ("clips in neither train nor test (label 0)", "1 clip in neither train nor test (label 0)"),
        ("junk boxes (person -1)", "1 junk box (person -1)"),
        ("test frames of a driver in train", "1 test frame of a driver in train"),
        (
            "images of test persons in view 2",
            "1 image of test persons in view 2",
        ),
        ("folders among images", "1 folder among images"),
        ("classes", "1 class"),
        ("others", "1 other"),
        (".xls", "1 .xls"),
        (".xls that no list names", "1 .xls that no list names"),
        ("folder cats", "1 folder cats"),
        ("folder images", "1 folder images"),
    ],
)
def test_one_is_counted_in_the_singular(plural, one):
    assert counted(1, plural) == one == tally({plural: 1})
    assert counted(2, plural) == f"2 {plural}" and counted(0, plural) == f"0 {plural}"


def test_a_tally_tells_the_most_first_and_the_rest_as_one():
    assert tally({".a": 1, ".pdf": 2_000, ".b\x1b": 1}) == "2,000 .pdf, 1 .a, 1 .b�"
    assert tally({}) == ""
    assert tally({f".{number}": 20 - number for number in range(10)}).endswith("13 .7, 23 more of 2 other kinds")


@pytest.mark.parametrize(
    "word",
    ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937", "\U0001f469\u200d\U0001f52c"],
)
def test_joiners_that_belong_to_the_spelling_stay(word):
    assert printable(word) == word and cells(word) == [word]


@pytest.mark.parametrize(("name", "width"), [("9.41\u202fAM", 7), ("a\u00a0b", 3), ("\u7a7a\u3000\u7a7a", 6)])
def test_spaces_of_any_width_stay(name, width):
    assert printable(name) == name and columns(name) == width


@pytest.mark.parametrize("name", ["\u2028", "\u2029", "\u0085", "\u200b", "\ufeff"])
def test_ends_of_lines_and_what_has_no_width_are_shown(name):
    assert printable(f"a{name}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("name", ["pay\u200dpal", "\u200cant", "ant\u200d", "\u0645\u200c", "\u0645\u200ca"])
def test_joiners_that_nobody_would_see_are_shown(name):
    assert "\N{REPLACEMENT CHARACTER}" in printable(name)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        *(("ant", 3), ("\u7a7a\u7a7a", 4), ("\uff21b", 3), ("\uff71", 1), ("e\u0301", 1), ("\u0436\u0443\u043a", 3)),
        *(
            ("\ud55c", 2),
            ("\u1112\u1161\u11ab", 2),
            ("\U0001f436", 2),
            ("\u0645\u200c\u062e", 2),
            ("a\x1b", 2),
            ("", 0),
        ),
    ],
)
def test_columns_are_a_terminals(text, width):
    """By hand: Han, full and half width, an accent, Cyrillic, Hangul whole and in parts, a dog, a joiner."""
    assert columns(text) == width
    assert columns(padded(text, 9)) == columns(padded(text, 9, right=True)) == 9
    assert padded(text, 0) == printable(text) and padded("a", 3, right=True) == "  a"


def test_an_error_says_its_first_line():
    assert first_line(ValueError("\nit is late\nand dark")) == "it is late"
    assert first_line(MemoryError()) == "MemoryError" and first_line(MemoryError(" \n"), "no memory") == "no memory"
    assert first_line(ValueError("x" * 999)) == "x" * 300


def test_columns_begin_with_their_heads_and_numbers_end_with_theirs():
    assert table([("", "n", "state"), ("a", "10", "there"), ("bb", "", "gone")]) == [
        *("     n  state", "a   10  there", "bb      gone"),
    ]
    assert table([("a", "b"), ("1", "22")], right={0}) == ["a  b", "1  22"]


def test_times_and_sizes_are_said_roughly():
    assert [rough_time(seconds) for seconds in (1, 119, 120, 7200, 200_000)] == [
        *("1.0 seconds", "119.0 seconds", "2.0 minutes", "2.0 hours", "2.3 days"),
    ]
    assert [rough_size(size) for size in (999, 1_000, 25_600_000)] == ["999 bytes", "1 kB", "25.6 MB"]

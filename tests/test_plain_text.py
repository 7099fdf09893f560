"""Names of strangers in terminals and spreadsheets."""

import csv
import io

import pytest

from agnet.data.plain_text import csv_text, printable, tally


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


def test_a_tally_tells_the_most_first_and_the_rest_as_one():
    assert tally({".a": 1, ".pdf": 2_000, ".b\x1b": 1}) == "2,000 .pdf, 1 .a, 1 .b�"
    assert tally({}) == ""
    assert tally({f".{number}": 20 - number for number in range(10)}).endswith("13 .7, 23 of 2 other kinds")

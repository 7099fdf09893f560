"""Names of strangers in terminals and spreadsheets."""

import csv
import io

import pytest

from agnet.data.plain_text import csv_text, printable


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

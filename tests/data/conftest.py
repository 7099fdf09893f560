"""Fixtures of the tests of data sets."""

import pytest

from copies import COPIES, shrink_the_book


@pytest.fixture(params=COPIES)
def copy(request, tmp_path, monkeypatch):
    """(data set, root) of a copy of each data set, whose book is as small as the copy."""
    root = tmp_path / "sets"
    shrink_the_book(monkeypatch, request.param, *COPIES[request.param](root))
    return request.param, root


@pytest.fixture
def copy_of(tmp_path, monkeypatch):
    """A function of a data set's name that makes its copy and gives the root."""

    def make(dataset, content=None):
        shrink_the_book(monkeypatch, dataset, *COPIES[dataset](tmp_path / "sets", content))
        return tmp_path / "sets"

    return make

import io
import os
import sys
from collections import Counter

import pytest

from agnet.data.inputs import Input, find_inputs, read_list

NOTHING = io.BytesIO()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "in/deep/c.webp",
        "in/d.mp4",
        ".trash/e.jpg",
        "in/[1].jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*arguments, listed=NOTHING):
    found = list(find_inputs(arguments, listed))
    assert not any(one.problem for one in found), found
    return [one.name.replace(os.sep, "/") for one in found]


def test_files_come_as_they_are_named_twice_if_named_twice(here):
    assert names("b.jpg", "notes.txt", "b.jpg", "not-there.jpg") == ["b.jpg", "notes.txt", "b.jpg", "not-there.jpg"]


def test_a_folder_is_all_that_can_be_looked_at_in_it(here):
    assert names(".") == ["a.PNG", "b.jpg", "in/[1].jpg", "in/d.mp4", "in/deep/c.webp"]
    assert names("in", "in/deep") == ["in/[1].jpg", "in/d.mp4", "in/deep/c.webp", "in/deep/c.webp"]


def test_patterns_are_expanded_here_for_shells_that_do_not(here):
    assert names("*") == ["a.PNG", "b.jpg"]
    assert names("**/*.webp") == ["in/deep/c.webp"]
    assert names("**") == ["a.PNG", "b.jpg", "in/[1].jpg", "in/d.mp4", "in/deep/c.webp"]
    assert names("[ab].???") == ["a.PNG", "b.jpg"]
    assert names(str(here / "*.jpg")) == [str(here / "b.jpg").replace(os.sep, "/")]


def test_a_file_that_looks_like_a_pattern_is_a_file(here):
    (here / "in" / "1.jpg").touch()
    assert names("in/[1].jpg") == ["in/[1].jpg"]
    (here / "in" / "[1].jpg").unlink()
    assert names("in/[1].jpg") == ["in/1.jpg"]


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("empty", "no images or videos in empty"),
        ("*.gif", "no images or videos match *.gif"),
        ("-", "the list on stdin names nothing"),
    ],
)
def test_what_finds_nothing_says_so_and_the_rest_goes_on(here, argument, problem):
    found = list(find_inputs([argument, "b.jpg"], io.BytesIO(b"\n \n")))
    assert found == [Input(argument, problem), Input("b.jpg")]


def test_files_that_are_passed_over_are_counted_by_suffix(here):
    for name in ("raw.CR2", "in/raw.cr2", "in/deep/README", "empty/b.pdf", "in/.DS_Store"):
        (here / name).touch()
    passed_over = Counter()
    found = [one.name for one in find_inputs([".", "in/*", "empty", "raw.CR2"], NOTHING, passed_over)]
    assert len(found) == 5 + 2 + 1 + 1 and found[-1] == "raw.CR2"  # what is named is taken at its word
    assert passed_over == {".cr2": 3, ".txt": 1, "without a suffix": 1, ".pdf": 2}
    (nothing,) = find_inputs(["empty"], NOTHING)
    assert nothing.problem == "no images or videos in empty, but 1 .pdf"


def test_photographs_of_telephones_are_images(here):
    (here / "empty" / "IMG_1.HEIC").touch()
    assert names("empty") == ["empty/IMG_1.HEIC"]


def test_a_list_on_stdin_stands_where_its_hyphen_stands(here):
    listed = io.BytesIO("b.jpg\r\n\n   \nnö.jpg\n*.PNG".encode())
    assert names("in/d.mp4", "-", "b.jpg", listed=listed) == ["in/d.mp4", "b.jpg", "nö.jpg", "a.PNG", "b.jpg"]


def test_a_list_may_end_its_names_with_nul():
    assert read_list(b"a b.jpg\0two\nlines.jpg\0\0") == ["a b.jpg", "two\nlines.jpg"]
    assert read_list("\ufeffa.jpg\n".encode()) == ["a.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_find_their_files(tmp_path):
    odd = os.path.join(os.fsencode(tmp_path), b"\xff.jpg")  # noqa: PTH118
    with open(odd, "wb"):  # noqa: PTH123
        pass
    ((found,), (listed,)) = (list(find_inputs([str(tmp_path)], NOTHING)), read_list(odd))
    assert os.fsencode(found.name) == os.fsencode(listed) == odd


def test_videos_are_known_by_their_suffix():
    found = find_inputs(["a.MP4", "a.jpg", "mp4", "a.webm"], NOTHING)
    assert [one.is_video for one in found] == [True, False, False, True]


def test_names_longer_than_any_file_has_are_no_crash():
    assert names("a" * 5000) == ["a" * 5000]

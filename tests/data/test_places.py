from pathlib import Path

import pytest

from agnet.data.places import follow_hint, private_place, relative_hint


def test_a_hint_leads_back(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "work").mkdir()
    hint = relative_hint(tmp_path / "photos", tmp_path / "work")
    assert hint == "../photos"
    assert follow_hint(hint, tmp_path / "work") == tmp_path / "photos"


@pytest.mark.parametrize(
    ("target", "start", "expected"),
    [
        ("/home/ann/photos", "/home/ann/work", "../photos"),
        ("/home/ann/photos", "/data", ""),
        ("/home/ann/photos", "/home/bob", ""),
        ("/Users/ann/photos", "/tmp", ""),
        ("/data/food", "/home/ann/work", "../../../data/food"),
        ("/srv/a", "/srv/b", "../a"),
    ],
)
def test_a_hint_never_names_a_user(target, start, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert relative_hint(Path(target), Path(start)) == expected


def test_the_home_of_root_is_a_home_too(monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    assert relative_hint(Path("/root/photos"), Path("/data")) == ""
    assert relative_hint(Path("/root/photos"), Path("/root/work")) == "../photos"


def test_a_user_without_a_home_has_hints_too(monkeypatch):
    """As in a container that is run by a number: there is neither HOME nor a line in /etc/passwd."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert relative_hint(Path("/srv/a"), Path("/srv/b")) == "../a"
    assert relative_hint(Path("/home/ann/photos"), Path("/srv/b")) == ""


@pytest.mark.parametrize("hint", ["", None, 3, "not/there"])
def test_a_hint_that_leads_nowhere_is_none(hint, tmp_path):
    assert follow_hint(hint, tmp_path) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in /home/someone/photos, a folder", "/home/someone/photos"),
        ("<img src='file:///Users/someone/a.png'>", "/Users/someone/a.png"),
        (r"[photos](C:\Users\someone\photos)", r"C:\Users\someone\photos"),
        ("`HERE/photos/lost.jpg`.", "HERE/photos/lost.jpg"),  # its folder is there
        ("lies in HERE/photos.", "HERE/photos"),
        ("--root=HERE/photos/", "HERE/photos"),
        ("/some where/with spaces", "/some where/with"),
        ("see https://a.b/home/someone and [the page](/docs/hub) or ./home/someone", ""),
        ("<b>bold</b></i> 2>/dev/null; #!/usr/bin/env python3; 1/2/3; /" + "x" * 999 + "/y", ""),
        ("HERE-not/photos", ""),
    ],
)
def test_private_places_are_found_in_a_persons_text(text, found, tmp_path):
    (tmp_path / "photos").mkdir()
    text, found = (one.replace("HERE", str(tmp_path)) for one in (text, found))
    assert private_place(text, [Path("/some where/with")]) == found

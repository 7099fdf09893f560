import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from agnet.data import fonts
from agnet.data.fonts import drawable, font_with


def drawn(text, font):
    page = Image.new("L", (200, 40), 0)
    ImageDraw.Draw(page).text((5, 5), text, fill=255, font=font)
    return np.asarray(page)


def test_plain_names_stay_as_they_are():
    assert drawable("tabby cat, 3 x…") == "tabby cat, 3 x…"


def test_letters_of_other_scripts_are_drawn_where_a_font_has_them():
    text = "жук"
    if drawable(text) != text:
        pytest.skip("no font on this machine has Cyrillic letters")
    pictures = [drawn(letter, font_with(text, 20)) for letter in text]
    assert all(picture.any() for picture in pictures)
    assert not any(np.array_equal(one, other) for one, other in itertools.pairwise(pictures))
    assert not np.array_equal(drawn(text, font_with(text, 20)), drawn("???", font_with("???", 20)))


def test_letters_that_no_font_has_are_marked():
    assert drawable("a\U0010fffeb\n").replace(" ", "?") == "a?b?"  # a code that will never be a letter


def test_without_any_font_it_is_as_before(monkeypatch):
    monkeypatch.setattr(fonts, "_fonts", lambda size: [])
    assert drawable("côté 犬") == "cote ?"
    assert drawn("ant", font_with("犬", 20)).any()

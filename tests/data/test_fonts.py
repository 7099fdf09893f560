"""Letters of any script in pictures: in a font that has them, or said to be in none. The fonts are made here: a machine
may have others, or none.
"""

import itertools

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont, features

from agnet.data import fonts
from agnet.data.fonts import cannot_draw, draw_text, font_files, shortened, text_width, wrapped

DEJAVU = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"
CAT, DOG, KA = "猫", "狗", "क"
with_layout = pytest.mark.skipif(not features.check("raqm"), reason="Pillow without libraqm")


def build_font(path, letters):
    """A font of 1,000 units an em whose letters are filled rectangles: ``letters`` maps each to its width, in units."""
    builder = FontBuilder(1000, isTTF=True)
    names = {letter: f"u{ord(letter):04X}" for letter in letters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    glyphs, widths = {}, {}
    for name, width in ((".notdef", 500), *((names[letter], width) for letter, width in letters.items())):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 1000), (width, 1000), (width, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name], widths[name] = pen.glyph(), (width, 0)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(widths)
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that gives this machine fonts, name -> letters, instead of its own; at first it has none."""
    cached = (fonts._face_with, fonts._files, fonts._typeset)
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path / "fonts"])

    def have(**named):
        for name, letters in named.items():
            build_font(tmp_path / "fonts" / "truetype" / f"{name}.ttf", letters)
        for function in cached:
            function.cache_clear()

    have()
    yield have
    monkeypatch.undo()
    for function in cached:
        function.cache_clear()


def drawn(text, size=20, width=400):
    page = Image.new("RGB", (width, 60), "white")
    draw_text(page, (10, 50), text, size, "black", "ls")
    return 255 - np.asarray(page.convert("L"))


def drawn_by_pillow(text, font):
    page = Image.new("L", (400, 60), 0)
    ImageDraw.Draw(page).text((10, 50), text, fill=255, font=font, anchor="ls")
    return np.asarray(page)


def ink(picture):
    """Left, top, right, bottom of what is darker than half."""
    rows, columns = np.nonzero(picture > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(
    ("text", "font"),
    [
        *((text, ImageFont.truetype(DEJAVU, 20)) for text in ("tabby cat, 3 x…", "кошка", "côté", "Ωμέγα", "3×4")),
        *(pytest.param(text, ImageFont.truetype(DEJAVU, 20), marks=with_layout) for text in ("قطة cat", "חתול")),
    ],
)
def test_a_text_is_drawn_in_one_font_that_has_all_of_it(machine, text, font):
    assert cannot_draw([text]) == ""
    assert np.abs(drawn(text).astype(int) - drawn_by_pillow(text, font)).max() <= 2
    assert text_width(text, 20) == font.getlength(text)


def test_a_script_is_drawn_in_the_machines_font(machine):
    machine(NotoSansCJK={CAT: 1000, DOG: 500})
    assert ink(drawn(CAT)) == (10, 30, 30, 50)
    assert ink(drawn(DOG)) == (10, 30, 20, 50)
    assert cannot_draw([CAT, DOG, "cat"]) == ""
    assert [path.rsplit("/")[-1] for path in font_files(["cat", f"ж{CAT}"])] == ["NotoSansCJK.ttf"]


def test_each_word_is_drawn_in_a_font_that_has_it(machine):
    machine(One={CAT: 1000}, Two={DOG: 500})
    dejavu = ImageFont.truetype(DEJAVU, 20)
    width = dejavu.getlength("a ") + 20 + dejavu.getlength(" ") + 10 + dejavu.getlength(" ж")
    assert text_width(f"a {CAT} {DOG} ж", 20) == pytest.approx(width)
    together = drawn(f"{CAT}{DOG}a")
    assert ink(together)[0] == 10 and (together[32, 12:38] == 255).all() and cannot_draw([f"{CAT}{DOG}"]) == ""


def test_letters_that_no_font_has_are_marked_and_told_with_their_script(machine):
    assert np.array_equal(drawn(f"a {CAT}!"), drawn("a ?!"))
    told = cannot_draw(["plain", f"a {CAT}{DOG}", KA])
    assert told.count("\n") == 0 and f"Chinese ({CAT})" in told and f"Devanagari ({KA})" in told
    machine(Any={CAT: 1000, DOG: 1000})
    assert "Chinese" not in cannot_draw([CAT, KA]) and "Devanagari" in cannot_draw([CAT, KA])


def test_marks_stay_with_their_letters(machine):
    machine(Bare={KA: 1000})  # without the vowel sign
    assert "Devanagari" in cannot_draw([f"{KA}\u093f"])
    assert fonts._clusters(f"e\u0301{KA}\u093fx") == ["e\u0301", f"{KA}\u093f", "x"]
    assert fonts._clusters("\U0001f469\u200d\U0001f52c\U0001f1e9\U0001f1ea") == [
        "\U0001f469\u200d\U0001f52c",
        "\U0001f1e9\U0001f1ea",
    ]


def test_what_would_steer_the_layout_is_shown(machine):
    assert np.array_equal(drawn("a\u202eb\nc"), drawn("a\ufffdb\ufffdc"))
    assert np.array_equal(drawn("9.41\u202fAM\u3000x"), drawn("9.41 AM x")) and cannot_draw(["9\u202fAM"]) == ""


def test_what_is_no_font_and_fonts_of_empty_frames_are_passed_over(machine, tmp_path):
    folder = tmp_path / "fonts"
    for name in ("LastResort", "Adobe-Blank", "Zz"):
        build_font(folder / f"{name}.ttf", {CAT: 1000 if name == "Zz" else 100})
    (folder / "Aa.ttf").write_bytes(b"no font")
    (folder / "in circles").symlink_to(folder)
    (folder / "Ab.otf").write_bytes((folder / "Zz.ttf").read_bytes()[:200])
    machine()
    assert text_width(CAT, 20) == 20


@with_layout
def test_parts_in_several_fonts_stand_as_their_script_goes(machine):
    """Hebrew (in DejaVu) from right to left, in a line that goes as its first letter does."""
    machine(Any={CAT: 1000, KA: 1000})
    order = lambda text: "".join(run.text[0] for run in fonts._typeset(text, 20).runs if run.text.strip())  # noqa: E731
    assert order(f"a {CAT} \u05d0 \u05d1") == f"a{CAT}\u05d1\u05d0"
    assert order(f"\u05d0 {CAT} b") == f"{CAT}b\u05d0"


def test_what_cannot_be_laid_out_is_told(machine, monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: False)
    machine()
    told = cannot_draw(["\u05d0"])
    assert "Hebrew" in told and "libraqm" in told and np.array_equal(drawn("\u05d0"), drawn("?"))


@pytest.mark.parametrize("text", ["a photograph/of/somebody/with a long name.jpg", "кошка" * 20, "i" * 300])
@pytest.mark.parametrize("width", [60, 61.5, 200, 10_000])
def test_a_long_text_loses_as_much_of_its_middle_as_it_must(machine, text, width):
    short = shortened(text, 14, width)
    assert text_width(short, 14) <= width
    if text_width(text, 14) <= width:
        assert short == text
        return
    head, tail = short.split("…")
    assert text.startswith(head) and text.endswith(tail) and len(tail) - len(head) in (0, 1)
    more = text[: len(short) // 2] + "…" + text[len(text) - (len(short) - len(short) // 2) :]
    assert text_width(more, 14) > width


def test_no_accent_is_parted_from_its_letter(machine):
    short = shortened("e\u0301" * 50, 14, 80)
    assert all(part.count("e") == part.count("\u0301") for part in short.split("…"))


def test_lines_are_broken_between_words(machine):
    text = "the quick brown fox jumps over the lazy dog"
    lines = wrapped(text, 14, 120, 9)
    assert " ".join(lines) == text and len(lines) > 2 and max(text_width(line, 14) for line in lines) <= 120
    for line, after in itertools.pairwise(lines):
        assert text_width(f"{line} {after.split()[0]}", 14) > 120
    two = wrapped(text, 14, 120, 2)
    assert two[0] == lines[0] and "…" in two[1] and text_width(two[1], 14) <= 120
    assert wrapped("", 14, 100, 3) == [] and "…" in wrapped("w" * 90, 14, 100, 3)[0]


@pytest.mark.parametrize(("anchor", "left"), [("ls", 100), ("ms", 90), ("rs", 80)])
def test_a_text_is_anchored_at_its_ends_and_middle(machine, anchor, left):
    machine(Any={CAT: 1000})
    page = Image.new("RGB", (200, 60), "white")
    draw_text(page, (100, 50), CAT, 20, "black", anchor)
    assert ink(255 - np.asarray(page.convert("L")))[0] == left

"""Text in matplotlib figures: fonts that have all the letters, and names shortened to fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from matplotlib import ft2font
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font

from ...data.fonts import broken, cannot_draw, font_files, needs_layout, without_middle

DPI = 120  #: resolution of figures; widths of letters are rounded to its pixels
_LONGEST = 2.6  # inches, width of a class name


def class_labels(classes: Sequence[str], points: float, inches: float = _LONGEST) -> tuple[list[str], list[str]]:
    """Class names shortened to at most ``inches`` at ``points``, all different, and the font families to draw them in.

    A name with letters that no installed font has is replaced by its number in ``classes``, counted from 0.
    """
    family = families(classes)
    names = []
    for number, name in enumerate(classes):
        drawn = name if _is_known(name, family) else f"class {number}"
        names.append(_fitted(drawn, family, points, inches))
    several = {name for name, count in Counter(names).items() if count > 1}
    for number, name in enumerate(names):
        if name in several:  # names that differ only in the middle, which was cut
            names[number] = _fitted(f"{number}: {classes[number]}", family, points, inches)
    return names, family


def line(text: str, points: float, inches: float) -> tuple[str, list[str]]:
    """``text`` shortened to ``inches`` at ``points``, "?" for letters that no font has, and its font families."""
    text, family = _drawable(text)
    return _fitted(text, family, points, inches), family


def paragraph(text: str, points: float, inches: float, lines: int) -> tuple[str, list[str]]:
    """As `line`, but broken between words into at most ``lines`` lines."""
    text, family = _drawable(text)
    return "\n".join(broken(text, lambda shorter: inches_of(shorter, family, points) <= inches, lines)), family


def _drawable(text: str) -> tuple[str, list[str]]:
    family = families([text])
    return "".join(letter if _is_known(letter, family) else "?" for letter in text), family


def inches_of(text: str, family: Sequence[str], points: float) -> float:
    """Width of ``text`` as drawn by matplotlib, in inches."""
    font = FontProperties(family=list(family), size=points)
    return float(_renderer().get_text_width_height_descent(text, font, ismath=False)[0]) / DPI


@cache
def _renderer() -> RendererAgg:
    return FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()


def cannot_label(classes: Iterable[str]) -> str:
    """One-line notice of the class names that `class_labels` replaces by numbers; empty if there are none."""
    return cannot_draw(classes, instead="the class's number", in_colour=False)


def families(texts: Iterable[str]) -> list[str]:
    """Font families for ``texts``: matplotlib's own, then installed fonts that have the remaining letters."""
    found = list(FontProperties().get_family())
    there = {entry.fname for entry in fontManager.ttflist}
    for file in font_files(texts):
        if file not in there:
            fontManager.addfont(file)
        found.append(get_font(file).family_name)
    return found


def _is_known(text: str, family: Sequence[str]) -> bool:
    if needs_layout(text) and not hasattr(ft2font, "__libraqm_version__"):
        return False  # matplotlib before 3.11 does not shape complex scripts
    return all(any(ord(letter) in _letters(name) for name in family) for letter in text)


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(get_font(fontManager.findfont(FontProperties(family=[family]))).get_charmap())


def _fitted(text: str, family: Sequence[str], points: float, inches: float) -> str:
    return without_middle(text, lambda shorter: inches_of(shorter, family, points) <= inches)

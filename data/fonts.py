"""Fonts for texts that a person wrote: Pillow's own for ASCII, and for other letters one that this machine has."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from PIL import ImageFont

from .drawing import Font, legible

# Looked for by name where the system keeps its fonts. DejaVu has the Latin, Greek, Cyrillic, Arabic and Hebrew letters.
_FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "segoeui.ttf",
    "msyh.ttc",
)
_IN_NO_FONT = "\U0010fffd"  # the last letter of private use


def font_with(text: str, size: int) -> Font:
    """A font of ``size`` pixels that has the letters of ``text``, or most of them."""
    if legible(text) == text:
        return ImageFont.load_default(size=size)
    here = _fonts(size)
    if not here:
        return ImageFont.load_default(size=size)
    return max(here, key=lambda font: sum(_has(font, letter) for letter in text))


def drawable(text: str) -> str:
    """``text`` as `font_with` can draw it: without the letters, marked by "?", that no font here has.

    Where no font has more than ASCII, accents are taken off as `legible` does.
    """
    plain = legible(text)
    if plain == text or not _fonts(12):
        return plain
    font = font_with(text, 12)
    return "".join(letter if _has(font, letter) else "?" for letter in text)


@cache
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    found = []
    for name in (*_FILES, *_bundled()):
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # not on this machine
            continue
    return found


def _bundled() -> list[str]:
    """DejaVu Sans as other packages bring it along, which need not be installed."""
    places = (("matplotlib", "mpl-data/fonts/ttf"), ("cv2", "qt/fonts"))
    specs = ((importlib.util.find_spec(package), inside) for package, inside in places)
    return [str(Path(spec.origin).parent / inside / _FILES[0]) for spec, inside in specs if spec and spec.origin]


@cache
def _has(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether the font has a picture of its own for a letter: others all look like one that no font has."""
    if letter.isspace():
        return letter == " "
    mask, none = (font.getmask(one) for one in (letter, _IN_NO_FONT))
    return letter.isprintable() and (mask.size, bytes(mask)) != (none.size, bytes(none))

"""Text drawn in fonts that contain its letters: any script for which this machine has a font.

No single font covers every script. A text is drawn in the first font that covers all of it; failing that, each word,
and then each letter, in the first font that covers it. The order is DejaVu Sans (Latin, Greek, Cyrillic, Arabic,
Hebrew), which comes with matplotlib and is the font of its plots, Pillow's own font, which covers little more than
ASCII, then the machine's fonts. A letter that no font covers is drawn as "?", and `cannot_draw` reports it.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

_OWN = ""  # stands for Pillow's own font instead of a file name
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Fonts with an empty or placeholder glyph for every letter.
_BLANK = ("lastresort", "adobeblank", "notdef", "tofu")
_PLAIN = ("regular", "sans")  # words in file names of preferred fonts
_STYLED = ("bold", "italic", "oblique", "mono", "condensed", "light", "thin", "black", "serif", "ui-", "medium")
# Scripts that font file names do not mention.
_EAST_ASIAN = (
    *("cjk", "hei", "gothic", "ming", "song", "simsun", "yahei", "hiragino", "pingfang", "meiryo", "malgun", "wqy"),
    *("nanum", "takao", "ipa", "fallback", "unicode", "arphic", "uming", "ukai"),
)
_FILES_OF_SCRIPTS = {
    **dict.fromkeys(("cjk", "hiragana", "katakana", "hangul", "bopomofo"), _EAST_ASIAN),
    **dict.fromkeys(("devanagari", "bengali", "tamil", "telugu", "gujarati"), ("nirmala", "mangal", "lohit", "gargi")),
    "emoji": ("emoji", "symbol"),
}
# Letters that join, reorder or stack: from Hebrew to Myanmar, Khmer and Mongolian, and the presentation forms.
_LAID_OUT = ((0x0590, 0x109F), (0x1780, 0x18AF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFC))
_JOINERS = "\u200c\u200d"
_ELLIPSIS = "…"


class _Face(NamedTuple):
    """A font file and the letters it covers."""

    file: str
    letters: frozenset[int]
    strike: int = 0  #: the only size in pixels of a bitmap font (colour emoji); 0: any size


class _Run(NamedTuple):
    text: str
    face: _Face


@dataclass(frozen=True)
class _Line:
    """A text split into runs of one font each, ordered from left to right."""

    runs: tuple[_Run, ...]
    size: int

    @property
    def width(self) -> float:
        return sum(_run_width(run, self.size) for run in self.runs)


def text_width(text: str, size: int) -> float:
    """Width of ``text`` in pixels when drawn at ``size`` pixels."""
    return _typeset(text, size).width


def ascent(size: int) -> int:
    """Distance in pixels from the ascender to the baseline of a text of ``size`` pixels."""
    return _load(_first_faces()[0], size).getmetrics()[0]


def draw_text(
    page: Image.Image, place_xy: tuple[float, float], text: str, size: int, fill: str, anchor: str = "la"
) -> None:
    """Draw one line of text into ``page``, in fonts that cover its letters.

    Args:
        page: RGB image.
        place_xy: Position of ``anchor``.
        text: Text to draw; line breaks in it do not start new lines.
        size: Letter size in pixels.
        fill: Text colour.
        anchor: Two letters as in Pillow: l, m or r (left, middle or right end of the text), then a or s (ascender or
            baseline).
    """
    line = _typeset(text, size)
    x, base = place_xy
    x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * line.width
    base += {"a": ascent(size), "s": 0}[anchor[1]]
    pen = ImageDraw.Draw(page)
    for run in line.runs:
        if run.face.strike:
            _paste_pictures(page, run, (x, base), size)
        else:
            pen.text((x, base), run.text, fill=fill, font=_load(run.face, size), anchor="ls")
        x += _run_width(run, size)


def digit_height(size: int) -> int:
    """Height of a digit in pixels when drawn at ``size`` pixels."""
    _, top, _, bottom = _load(_first_faces()[0], size).getbbox("0")
    return round(bottom - top)


def shortened(text: str, size: int, width: float) -> str:
    """``text`` if it fits in ``width`` pixels, else with as much of its middle left out as necessary."""
    return without_middle(text, lambda shorter: text_width(shorter, size) <= width)


def without_middle(text: str, fits: Callable[[str], bool]) -> str:
    """``text`` if it fits, else with as much of its middle left out as necessary: names differ mostly at their ends."""
    if fits(text):
        return text
    letters = _clusters(text)
    low, high = 0, len(letters)
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if fits(_kept_ends(letters, kept)) else (low, kept - 1)
    return _kept_ends(letters, low)


def wrapped(text: str, size: int, width: float, lines: int) -> list[str]:
    """Break ``text`` between words into at most ``lines`` lines of at most ``width`` pixels.

    Text that does not fit is left out of the middle of the last line.
    """
    return broken(text, lambda shorter: text_width(shorter, size) <= width, lines)


def broken(text: str, fits: Callable[[str], bool], lines: int) -> list[str]:
    """Break ``text`` between words into at most ``lines`` lines that fit; the middle of the last may be left out."""
    words, found = text.split(), list[str]()
    while words and len(found) < lines - 1:
        count = 1
        while count < len(words) and fits(" ".join(words[: count + 1])):
            count += 1
        found.append(without_middle(" ".join(words[:count]), fits))
        words = words[count:]
    return [*found, without_middle(" ".join(words), fits)] if words else found


def cannot_draw(texts: Iterable[str], instead: str = "?", in_colour: bool = True) -> str:
    """One line that reports letters which no font on this machine covers; empty if there are none.

    Args:
        texts: All texts that pictures will show.
        instead: Replacement shown for such a letter.
        in_colour: Whether colour bitmap fonts count; `draw_text` can draw them.
    """
    # Of a hundred thousand names, most are ASCII, and together they use few distinct letters.
    others = [text for text in texts if not text.isascii()]
    letters = dict.fromkeys("".join(others))
    marks = set(filter(_belongs_to_letter, letters))
    marked = (text for text in others if not marks.isdisjoint(text))
    found = itertools.chain(letters, *map(_clusters, marked))
    scripts: dict[str, str] = {}
    for cluster in map(_one_line, found):
        alone = len(cluster) == 1 and _belongs_to_letter(cluster)
        if not (cluster.isspace() or alone or _drawable(cluster, in_colour)):
            scripts.setdefault(_script(cluster), cluster)
    if not scripts:
        return ""
    named = ", ".join(f"{script} ({cluster})" for script, cluster in scripts.items())
    if not _lays_out() and all(map(needs_layout, scripts.values())):
        return (
            f"Note: this Pillow cannot join or turn letters of {named} (it was built without libraqm); pictures show "
            f"{instead}: install Pillow from pip, whose builds include it, and the library fribidi"
        )
    return (
        f"Note: no font on this machine has letters of {named}; pictures show {instead}. Fonts that have them: "
        f"{_remedy(list(scripts), in_colour)}"
    )


def _drawable(cluster: str, in_colour: bool) -> bool:
    face = _face_with(cluster)
    return face is not None and (in_colour or not face.strike)


def font_files(texts: Iterable[str]) -> list[str]:
    """The font files, besides DejaVu Sans, in which `draw_text` would draw letters of ``texts`` that DejaVu lacks.

    Colour bitmap fonts are excluded: no other program used here can draw them.
    """
    files = {}
    for text in texts:
        for cluster in _clusters(_one_line(text)):
            face = _face_with(cluster)
            if face is not None and face.file not in (_OWN, *_dejavu()) and not face.strike:
                files[face.file] = True
    return list(files)


@lru_cache(4096)
def _typeset(text: str, size: int) -> _Line:
    text = _one_line(text)
    clusters = [cluster if cluster.isspace() or _face_with(cluster) else "?" for cluster in _clusters(text)]
    letters = frozenset("".join(clusters))
    faces = list(dict.fromkeys(filter(None, map(_face_with, [" ", *clusters]))))
    whole = next((face for face in faces if _covers(face, letters)), None)
    if whole is not None:
        return _Line((_Run("".join(clusters), whole),) if clusters else (), size)
    runs: list[_Run] = []
    for word in _words(clusters):
        face = next((face for face in faces if _covers(face, frozenset("".join(word)))), None)
        parts = itertools.groupby(word, key=lambda cluster: face or _face_with(cluster))
        runs += [_Run("".join(part), own) for own, part in parts if own is not None]
    return _Line(tuple(_from_left_to_right(runs)), size)


def _words(clusters: Sequence[str]) -> Iterator[list[str]]:
    word: list[str] = []
    for cluster in clusters:
        if cluster.isspace() != bool(word and word[-1].isspace()) and word:
            yield word
            word = []
        word.append(cluster)
    if word:
        yield word


def _from_left_to_right(runs: Sequence[_Run]) -> list[_Run]:
    """Runs in visual order, from left to right.

    Right-to-left runs keep their own order, and the direction of the text is that of its first letter. Runs without a
    direction take that of their neighbours if these agree. Within a run, Pillow's layout handles direction.
    """
    found = [_goes_left(run.text) for run in runs]
    text_goes_left = next((goes for goes in found if goes is not None), False)
    directions = []
    for place in range(len(found)):
        before = next((other for other in found[place::-1] if other is not None), text_goes_left)
        after = next((other for other in found[place:] if other is not None), text_goes_left)
        directions.append(before if before == after else text_goes_left)
    ordered = []
    for goes_left, group in itertools.groupby(zip(directions, runs, strict=True), key=lambda pair: pair[0]):
        in_turn = [run for _, run in group]
        ordered.append(in_turn[::-1] if goes_left else in_turn)
    return [run for group in (ordered[::-1] if text_goes_left else ordered) for run in group]


def _goes_left(text: str) -> bool | None:
    """Whether the first letter with a direction runs from right to left; None if no letter has a direction."""
    kinds = (unicodedata.bidirectional(letter) for letter in text)
    return next((kind in ("R", "AL") for kind in kinds if kind in ("L", "R", "AL")), None)


def _one_line(text: str) -> str:
    """Replace other spaces by plain ones, and line breaks and layout controls by the replacement character."""
    return "".join(map(_plain, text))


def _plain(letter: str) -> str:
    if unicodedata.category(letter) == "Zs":
        return " "
    return letter if letter.isprintable() or letter in _JOINERS else "\N{REPLACEMENT CHARACTER}"


def _clusters(text: str) -> list[str]:
    """Letters with the marks that belong to them, which must stay in one font: accents, vowel signs, joined emoji."""
    clusters: list[str] = []
    for letter in text:
        joined = clusters and (
            _belongs_to_letter(letter)
            or clusters[-1].endswith("\u200d")
            or (_is_flag(letter) and len(clusters[-1]) == 1 and _is_flag(clusters[-1]))
        )
        if joined:
            clusters[-1] += letter
        else:
            clusters.append(letter)
    return clusters


def _belongs_to_letter(letter: str) -> bool:
    """Whether a letter modifies the one before it: an accent, a vowel sign, a joiner, an emoji's skin tone."""
    mark = unicodedata.category(letter) in ("Mn", "Mc", "Me") or letter in _JOINERS
    return mark or "\U0001f3fb" <= letter <= "\U0001f3ff"


def _is_flag(letter: str) -> bool:
    return "\U0001f1e6" <= letter <= "\U0001f1ff"


def _kept_ends(clusters: Sequence[str], kept: int) -> str:
    head, tail = clusters[: kept // 2], clusters[len(clusters) - (kept - kept // 2) :]
    return "".join([*head, _ELLIPSIS, *tail])


def _run_width(run: _Run, size: int) -> float:
    if run.face.strike:
        return math.ceil(_load(run.face, size).getlength(run.text) * size / run.face.strike)
    return float(_load(run.face, size).getlength(run.text))


def _paste_pictures(page: Image.Image, run: _Run, place_xy: tuple[float, float], size: int) -> None:
    """Draw colour emoji in the only size their font has, scaled down."""
    font = _load(run.face, size)
    ascent, descent = font.getmetrics()
    whole = Image.new("RGBA", (math.ceil(font.getlength(run.text)), ascent + descent))
    ImageDraw.Draw(whole).text((0, ascent), run.text, font=font, anchor="ls", embedded_color=True)
    scale = size / run.face.strike
    wanted = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    small = whole.resize(wanted, Image.Resampling.LANCZOS)
    page.paste(small, (round(place_xy[0]), round(place_xy[1] - ascent * scale)), small)


@lru_cache(256)
def _load(face: _Face, size: int) -> ImageFont.FreeTypeFont:
    if face.file == _OWN:
        font = ImageFont.load_default(size=size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font
    return ImageFont.truetype(face.file, face.strike or size)


def _covers(face: _Face, letters: Iterable[str]) -> bool:
    return all(ord(letter) in face.letters for letter in letters if not _draws_nothing(letter))


def _draws_nothing(letter: str) -> bool:
    return letter in _JOINERS or "\ufe00" <= letter <= "\ufe0f"  # joiners and variation selectors


@cache
def _face_with(cluster: str) -> _Face | None:
    """The first font that covers a letter with all its marks."""
    if needs_layout(cluster) and not _lays_out():
        return None
    for first in _first_faces():
        if _covers(first, cluster):
            return first
    hints = _FILES_OF_SCRIPTS.get(_script_word(cluster), (_script_word(cluster),))
    for file in sorted(_files(), key=lambda file: _preference(file, hints)):
        face = _face(file)
        if face is not None and _covers(face, cluster):
            return face
    return None


def _preference(file: str, hints: Sequence[str]) -> tuple[bool, int, str]:
    """Sort key: files named after the script first, plain styles before others."""
    name = Path(file).name.lower()
    style = sum(word in name for word in _STYLED) - sum(word in name for word in _PLAIN)
    return not any(hint in name for hint in hints), style, name


def _first_faces() -> list[_Face]:
    """The fonts that every machine has, in order; the last one is part of every Pillow build."""
    return [face for face in map(_face, [*_dejavu(), _OWN]) if face is not None]


@cache
def _face(file: str) -> _Face | None:
    """The font in ``file``, or None if it cannot be used for drawing."""
    from fontTools.ttLib import TTFont

    try:
        with _opened(file) as source, TTFont(source, fontNumber=0, lazy=True) as font:
            letters = frozenset(font.getBestCmap() or ())
            strike = _strike(font)
            if not strike and not any(outlines in font for outlines in ("glyf", "CFF ", "CFF2")):
                return None
            if "COLR" in font and font["COLR"].version > 0:  # its outlines are layers of pictures
                return None
        face = _Face(file, letters, strike)
        _load(face, 12)
    except Exception:  # broken bytes raise anything in the parser; treat the file as absent
        return None
    return face


def _opened(file: str) -> BinaryIO:
    if file != _OWN:
        return Path(file).open("rb")
    own = ImageFont.load_default(size=12)
    if not isinstance(own, ImageFont.FreeTypeFont):
        raise ValueError("a Pillow without FreeType")
    return io.BytesIO(own.font_bytes)


def _strike(font: Any) -> int:
    """Bitmap size of a font without outlines; 0 for other fonts."""
    if "CBLC" in font:
        sizes = [strike.bitmapSizeTable.ppemY for strike in font["CBLC"].strikes]
    elif "sbix" in font:
        sizes = list(font["sbix"].strikes)
    else:
        return 0
    return max(sizes)


@cache
def _dejavu() -> list[str]:
    """DejaVu Sans as distributed with matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    file = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if spec and spec.origin else None
    return [str(file)] if file and file.is_file() else []


@cache
def _files() -> list[str]:
    """Every font file in the system's font folders."""
    found: dict[str, None] = {}
    seen = set()
    for folder in _folders():
        for place, below, names in os.walk(folder, followlinks=True):
            if os.path.realpath(place) in seen:  # links may lead in circles
                below.clear()
                continue
            seen.add(os.path.realpath(place))
            for name in sorted(names):
                blank = any(word in name.lower().replace(" ", "").replace("-", "") for word in _BLANK)
                if name.lower().endswith(_SUFFIXES) and not blank:
                    found[str(Path(place, name))] = None
    return list(found)


def _folders() -> list[Path]:
    """Font folders, the user's own first. They need not exist."""
    try:
        home = Path.home()
    except RuntimeError:  # a container's user may have no home
        home = Path()
    if sys.platform == "win32":
        local, windows = os.environ.get("LOCALAPPDATA", home), os.environ.get("WINDIR", r"C:\Windows")
        return [Path(local, "Microsoft/Windows/Fonts"), Path(windows, "Fonts")]
    if sys.platform == "darwin":
        return [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    own = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    shared = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    return [Path(own, "fonts"), home / ".fonts", *(Path(folder, "fonts") for folder in shared if folder)]


def _lays_out() -> bool:
    """Whether Pillow joins letters and lays out right-to-left text."""
    return bool(features.check("raqm"))


def needs_layout(text: str) -> bool:
    """Whether ``text`` has letters that join, stack or run from right to left and are unreadable without layout."""
    return any(first <= ord(letter) <= last for letter in text for first, last in _LAID_OUT)


def _script_word(cluster: str) -> str:
    """The script of a letter as named by Unicode, in lower case."""
    if ord(cluster[0]) >= 0x1F000 and unicodedata.category(cluster[0]) == "So":
        return "emoji"
    return unicodedata.name(cluster[0], "unknown").split()[0].split("-")[0].lower()


def _script(cluster: str) -> str:
    word = _script_word(cluster)
    return {"cjk": "Chinese", "emoji": "emoji", "unknown": "an unknown script"}.get(word, word.capitalize())


def _remedy(scripts: Sequence[str], in_colour: bool) -> str:
    folder = _folders()[0]
    if sys.platform in ("win32", "darwin"):
        return f"Noto, from https://fonts.google.com/noto, to be put into {folder}"
    east_asian = {"Chinese", "Hiragana", "Katakana", "Hangul", "Bopomofo"}
    packages = ["fonts-noto-cjk"] if east_asian & set(scripts) else []
    packages += ["fonts-noto-color-emoji" if in_colour else "fonts-symbola"] if "emoji" in scripts else []
    packages += ["fonts-noto-core"] if set(scripts) - east_asian - {"emoji"} else []
    return f"apt install {' '.join(packages)} (Debian, Ubuntu), or files such as Noto's in ~/.local/share/fonts"

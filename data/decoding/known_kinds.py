"""Refusal of TIFF and JPEG 2000 kinds other than those that Pillow is known to decode correctly without a warning."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from PIL import TiffImagePlugin

from ..errors import ImageError
from ..faults import OTHER_KIND

_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES = 254, 258, 259, 262, 277, 284
_COLOUR_MAP, _INKS, _EXTRA, _FORMAT, _DNG_VERSION = 320, 332, 338, 339, 50706
_TAGS = (
    *(_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES),
    *(_COLOUR_MAP, _INKS, _EXTRA, _FORMAT, _DNG_VERSION),
)

_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRICS = {
    _WHITE_IS_0: "grey with white as 0",
    _BLACK_IS_0: "grey",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "a transparency mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "a camera's raw",
    34892: "a camera's linear raw",
}
_PREMULTIPLIED, _OPACITY = 1, 2  # kinds of extra samples; 0 means unspecified
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_FORMATS = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float", 4: "undefined"}
# None, CCITT (3), LZW, JPEG, deflate (2), PackBits, LZMA, Zstandard, WebP. Old JPEG (6) and rarer ones are untested.
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32946, 32773, 34925, 50000, 50001)

# (compressed, in separate planes, big-endian)
_ANY = frozenset(product((False, True), repeat=3))
_ONE_PLANE = frozenset(layout for layout in _ANY if not layout[1])
_NOT_BARE_PLANES = frozenset(layout for layout in _ANY if layout[0] or not layout[1])
_NOT_TURNED_TWICE = frozenset(layout for layout in _ONE_PLANE if not (layout[0] and layout[2]))
_COMPRESSED = frozenset(layout for layout in _ANY if layout[0])
# (photometric interpretation, sample format, bits) -> layouts. The tests compare each with known values.
_READ_RIGHT = {
    **{(_WHITE_IS_0, _UNSIGNED, bits): _ONE_PLANE for bits in (1, 2, 4, 8)},
    **{(_BLACK_IS_0, _UNSIGNED, bits): _ONE_PLANE for bits in (1, 2, 4, 8, 12, 16)},
    **{(_BLACK_IS_0, _SIGNED, bits): _NOT_TURNED_TWICE for bits in (16, 32)},
    (_BLACK_IS_0, _UNSIGNED, 32): _ONE_PLANE,
    (_BLACK_IS_0, _FLOAT, 32): _NOT_TURNED_TWICE,
    **{(_PALETTE, _UNSIGNED, bits): _ONE_PLANE for bits in (1, 2, 4, 8)},
    (_RGB, _UNSIGNED, 8): _ANY,
    (_RGB, _UNSIGNED, 16): _NOT_BARE_PLANES,
    (_CMYK, _UNSIGNED, 8): _ANY,
    (_CMYK, _UNSIGNED, 16): _ONE_PLANE,
    (_YCBCR, _UNSIGNED, 8): _COMPRESSED,
}
_REMEDY = "save it as an 8-bit RGB TIFF or PNG"


@dataclass(frozen=True)
class _Kind:
    """Sample layout of a TIFF according to its tags."""

    photometric: int
    formats: tuple[int, ...]  #: distinct sample formats, sorted
    bits: tuple[int, ...]
    samples: int  #: per pixel
    compression: int
    planes: bool
    big_end_first: bool

    @classmethod
    def of(cls, tags: dict[int, Any], big_end_first: bool) -> _Kind:
        return cls(
            photometric=tags.get(_PHOTOMETRIC, _WHITE_IS_0),
            formats=tuple(sorted(set(tags.get(_FORMAT, (_UNSIGNED,))))),
            bits=tuple(sorted(set(tags.get(_BITS, (1,))))),
            samples=tags.get(_SAMPLES, 1),
            compression=tags.get(_COMPRESSION, 1),
            planes=tags.get(_PLANES, 1) == 2,
            big_end_first=big_end_first,
        )

    def name(self) -> str:
        meaning = _PHOTOMETRICS.get(self.photometric, f"photometric interpretation {self.photometric}")
        numbers = _listed(_FORMATS.get(one, f"format {one}") for one in self.formats)
        bits = _listed(map(str, self.bits))
        parts = [
            f"{meaning}, {numbers}, {bits} bits",
            f"{self.samples} sample{'s' if self.samples > 1 else ''} a pixel",
            "in separate planes" if self.planes and self.samples > 1 else "",
            "not compressed" if self.compression == 1 else f"compression {self.compression}",
            "big end first" if self.big_end_first and max(self.bits) > 8 else "",
        ]
        return ", ".join(filter(None, parts))


def _listed(words: Iterable[str]) -> str:
    """Join at most four words; a broken file may have a thousand."""
    first, rest = (shown := list(words))[:4], shown[4:]
    return " and ".join([*first, *(["others"] if rest else [])])


def refuse_other_tiffs(content: bytes) -> None:
    """Raise `ImageError`, which names the kind, for a TIFF of a kind that is not known to be decoded correctly.

    Other formats, and TIFFs whose tags cannot be read, pass.
    """
    tags = _tags(content)
    if not tags:
        return
    # The first image of a camera's raw file is a thumbnail or a preview, developed by the camera.
    if content[8:10] == b"CR" or _DNG_VERSION in tags or tags.get(_SUBFILE, 0) & 1:
        raise ImageError(
            "it is a camera's raw file, or begins with a thumbnail; develop it to a JPEG, PNG or TIFF", OTHER_KIND
        )
    kind = _Kind.of(tags, big_end_first=content[:1] == b"M")
    extra = tags.get(_EXTRA, ())
    planes = kind.planes and kind.samples - sum(one == 0 for one in extra) > 1  # unspecified samples are ignored
    layout = kind.compression != 1, planes, kind.big_end_first
    # Of opacity in a separate plane, Pillow keeps 8 bits, and divides premultiplied colours by it.
    coarse = planes and (_PREMULTIPLIED in extra or (_OPACITY in extra and 16 in kind.bits))
    known = len(kind.bits) == len(kind.formats) == 1 and kind.compression in _COMPRESSIONS and tags.get(_INKS, 1) == 1
    right = _READ_RIGHT.get((kind.photometric, kind.formats[0], kind.bits[0]), ())
    if not known or coarse or layout not in right:
        raise _refusal(kind)
    if kind.photometric == _PALETTE and 0 < max(tags.get(_COLOUR_MAP, (0,))) < 256:
        raise ImageError(f"it is a TIFF whose palette has 8 bits where the format has 16; {_REMEDY}", OTHER_KIND)


def refuse_tiff(content: bytes) -> None:
    """Raise `ImageError`, which names the kind, for any TIFF."""
    if tags := _tags(content):
        raise _refusal(_Kind.of(tags, big_end_first=content[:1] == b"M"))


def refuse_deep_jpeg2000(content: bytes) -> None:
    """Raise `ImageError` for a JPEG 2000 of several channels beyond 8 bits: their brightest values turn black."""
    size = content.find(b"\xff\x4f\xff\x51") + 2  # the SIZ marker follows that of the stream's start
    count = int.from_bytes(content[size + 38 : size + 40], "big")
    bits = [(sample & 0x7F) + 1 for sample in content[size + 40 : size + 40 + 3 * count : 3]]
    if count > 1 and max(bits, default=0) > 8:
        raise ImageError(
            f"it is a JPEG 2000 of {count} channels of {max(bits)} bits, which cannot be read here; save it as PNG",
            OTHER_KIND,
        )


def _tags(content: bytes) -> dict[int, Any]:
    """The tags of the first image that define its kind; empty if the content is not a TIFF."""
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return {}
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if b"+" in content[2:4] else 8])
        file = io.BytesIO(content)
        file.seek(directory.next)
        directory.load(file)
        # Other tags may be large or broken, and are not needed.
        return {tag: directory[tag] for tag in _TAGS if tag in directory}
    except Exception:  # broken bytes raise anything; opening the file will report it
        return {}


def _refusal(kind: _Kind) -> ImageError:
    return ImageError(f"it is a TIFF of {kind.name()}, which cannot be read here; {_REMEDY}", OTHER_KIND)

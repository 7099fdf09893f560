"""Decoding of JPEG files with a check that every pixel came from the file.

libjpeg fills missing data with grey and reports it in warnings that Pillow drops. The check uses the decoder's state at
the end of a scan's bytes: a decoder that needs more had too few, and one that finished earlier was given data that do
not belong to it. This costs microseconds per scan, and nothing is decoded twice. A gap after which the codes happen to
resynchronise at the right block remains undetected, as in libjpeg.

Most files are ordinary, and decoded faster by simplejpeg, which makes errors of libjpeg's warnings. There are none for
missing scans, zeros that code values and surplus restarts: files that may have them are left to the check above.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from ..errors import ImageError
from ..faults import BROKEN, CUT_OFF
from .pillow_internals import Decoder, end_loading, is_unloaded, rows_made

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # except restart markers, which occur within data
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PROGRESSIVE = 0xC2
_HUFFMAN = (0xC0, 0xC1, _PROGRESSIVE)  # frame markers; the first two are baseline and extended
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # other markers in the range of frames
_BODILESS = (0x01, 0xD8)
_FRAMES, _CODES, _END, _SCAN, _INTERVAL = range(0xC0, 0xD0), 0xC4, 0xD9, 0xDA, 0xDD

# The decoder reads eight bytes ahead, so that many are appended after the last. Ones, which form no code, end a block
# within five bytes. Zeros are better where they code values, of which a block has 63: an incomplete block needs more.
_AHEAD = 8
_COMPONENTS, _COEFFICIENTS = 4, 64  # maximum in a scan, and in a block; a hostile header may name more
_ONES, _ZEROS = b"\xff\x00" * _AHEAD, bytes(_AHEAD)
_NO_PIXELS = bytes(16)  # where zeros code values: dozens of equal values other than 0
_LEFT_OVER = "data of its pixels are left over when the last of them is made: it is damaged in its middle"
# Sampling of the components of ordinary JPEGs: 4:2:0, and in a progressive one also 4:4:4, 4:2:2 and grey. libjpeg is
# silent about up to seven left-over bytes that it has read ahead; `load_jpeg` finds some where blocks are few.
_ORDINARY = (((2, 2), (1, 1), (1, 1)),)
_ORDINARY_PROGRESSIVE = (*_ORDINARY, ((1, 1), (1, 1), (1, 1)), ((2, 1), (1, 1), (1, 1)), ((1, 1),))
_MAX_PIECES = 500  # per scan: checking more one by one costs as much as decoding a small image


@dataclass(frozen=True)
class _Scan:
    """A part of a JPEG's data, from ``start`` to ``end``."""

    start: int
    end: int
    pieces: int  #: number of pieces between restart markers; 0 without restarts
    zeros_are_values: tuple[bool, ...]  #: per component, whether a run of zero bits codes values


@dataclass
class _Frame:
    """Content of a JPEG's headers."""

    kind: int = 0  #: its marker
    size_wh: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  #: per component, horizontal and vertical
    digits: dict[tuple[int, int], int] = field(default_factory=dict)  #: lowest bit so far of (component, coefficient)
    zeros: dict[int, int] = field(default_factory=dict)  #: symbol coded by zero bits, per AC table
    scans: list[_Scan] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether the scans cover every component and, in a progressive JPEG, all coefficients to their last bit."""
        places = range(_COEFFICIENTS if self.kind == _PROGRESSIVE else 1)
        return not any(self.digits.get((one, place), 1) for one in self.sampling for place in places)


def decode_ordinary(image: ImageFile.ImageFile, content: bytes) -> np.ndarray | None:
    """Decode an ordinary, undamaged JPEG, to the pixels that `load_jpeg` makes of it.

    Args:
        image: Image that Pillow has opened, not loaded.
        content: Bytes of its file.

    Returns: RGB, uint8 ``(height, width, 3)``, not yet upright; None for a file that only `load_jpeg` can judge.
    """
    frame = _read_headers(content)
    if (
        frame.kind not in _HUFFMAN
        or frame.size_wh != image.size
        or tuple(frame.sampling.values()) not in (_ORDINARY_PROGRESSIVE if frame.kind == _PROGRESSIVE else _ORDINARY)
        or not frame.is_complete
        or any(scan.pieces or content.find(_NO_PIXELS, scan.start, scan.end) >= 0 for scan in frame.scans)
    ):
        return None
    width, height = image.size
    try:
        pixels = np.empty((height, width, 3), np.uint8)
        made = simplejpeg.decode_jpeg(content, "RGB", buffer=pixels, strict=True)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels if made.shape == pixels.shape else None


def load_jpeg(image: ImageFile.ImageFile, content: bytes) -> None:
    """Decode a JPEG that Pillow has opened. A file that lacks only its end marker counts as complete.

    Args:
        image: Opened image that is not loaded; it holds its pixels afterwards.
        content: Bytes of its file.

    Raises: `ImageError` if pixels are missing from the file, or if it contains more data than they need.
    """
    if not is_unloaded(image):
        raise ImageError("it has headers, but no pixels", CUT_OFF)
    frame = _read_headers(content)
    decoder = Decoder(image)
    if frame.kind in _HUFFMAN:
        fed = 0
        for number, scan in enumerate(frame.scans):
            found = _RESTART.finditer(content, scan.start, scan.end) if scan.pieces else ()
            restarts = [restart.start() for restart in found]
            _refuse_missing_pieces(content, restarts, scan.pieces)
            cuts = [scan.start, *(restarts if scan.pieces <= _MAX_PIECES else ()), scan.end]
            for begin, stop in pairwise(cuts):
                decoder.feed(content[fed:begin])
                fed = stop
                if problem := _problem_of_piece(decoder, content[begin:stop], scan.zeros_are_values):
                    several = f" (scan {number + 1} of {len(frame.scans)})" if len(frame.scans) > 1 else ""
                    if problem == _LEFT_OVER:
                        raise ImageError(problem + several, BROKEN)
                    raise ImageError(problem + (several or _share(image)), CUT_OFF)
        if not frame.is_complete:
            raise ImageError("scans that complete its pixels are not in the file: it is cut off", CUT_OFF)
    else:
        decoder.feed(content)
    decoder.feed(b"\xff\xd9")
    if not decoder.finished:
        raise ImageError("its data end before its pixels do: the file is cut off or damaged", CUT_OFF)
    end_loading(image)


def _problem_of_piece(decoder: Decoder, data: bytes, zeros_are_values: tuple[bool, ...]) -> str:
    """Feed a scan's data, or those between two restarts. Returns what is wrong with them, or an empty text."""
    bare = len(data.rstrip(b"\0\xff"))  # some cameras pad to a whole block
    if any(zeros_are_values) and data.find(_NO_PIXELS, 0, bare) >= 0:
        return "zeros, which are not pixels, occur among its data: it is damaged in its middle"
    near = max(0, bare - _AHEAD)
    decoder.feed(data[:near])
    short = _RESTART.search(data, max(0, near - 1), bare)  # a decoder needs few bytes before a restart
    if _ready(decoder, data[near:bare]) and not short:
        return _LEFT_OVER
    padding = data[bare + _AHEAD :]  # earlier zeros may belong to the last pixel
    decoder.feed(data[bare : bare + _AHEAD])
    if len(padding) > 4 * _AHEAD:
        if _ready(decoder, padding[:_AHEAD]):
            return ""
        decoder.feed(padding[_AHEAD:-_AHEAD])
        if _ready(decoder, padding[-_AHEAD:]):
            return "its data end in zeros, which are not pixels: it is cut off or damaged"
    else:
        decoder.feed(padding)
    more = _ZEROS if zeros_are_values[-1:] == (True,) else _ONES
    decoder.feed(more)
    return "" if _ready(decoder, more[:_AHEAD]) else "its data end before its pixels do: it is cut off or damaged"


def _ready(decoder: Decoder, data: bytes) -> bool:
    """Whether the decoder already had all pixels before ``data``, which must have `_AHEAD` bytes.

    The data are fed in two halves: a decoder that waits for more keeps at least one of them.
    """
    halves = [decoder.feed(data[at : at + _AHEAD // 2]) for at in range(0, len(data), _AHEAD // 2)]
    return len(data) == _AHEAD and all(halves)


def _refuse_missing_pieces(content: bytes, restarts: list[int], pieces: int) -> None:
    """Raise `ImageError` if restarts are missing. They are numbered from 0 to 7 in turn, which reveals a lost one."""
    in_order = all(content[at + 1] == 0xD0 + number % 8 for number, at in enumerate(restarts))
    if pieces and (len(restarts) + 1 != pieces or not in_order):
        found = f"{len(restarts) + 1:,} of the {pieces:,} pieces of its data are there"
        reason = f"{found}{'' if in_order else ', out of order'}: it is cut off or damaged"
        raise ImageError(reason, CUT_OFF if in_order else BROKEN)


def _share(image: Image.Image) -> str:
    return f" (about {rows_made(image) / image.height:.0%} of its rows are there)"


def _read_headers(content: bytes) -> _Frame:
    """Read the frame and the position of each scan's data, up to the end marker."""
    frame, interval = _Frame(), 0
    for marker, start, body in _segments(content):
        if marker in _FRAMES and marker not in _NO_FRAMES and len(body) >= 6:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame.kind, frame.size_wh = marker, (width, height)
            frame.sampling = {body[at]: (body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, len(body) - 2, 3)}
        elif marker == _CODES:
            frame.zeros.update(_zeros_of(body))
        elif marker == _INTERVAL:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _SCAN and len(body) >= 4:
            components = list(body[1 : 1 + 2 * min(body[0], _COMPONENTS) : 2])
            first, last, bits = body[-3:] if frame.kind == _PROGRESSIVE else (0, 0, 0)
            places = range(first, min(last + 1, _COEFFICIENTS))
            frame.digits.update({(one, at): bits & 15 for one in components for at in places})
            found = _MARKER.search(content, start)
            end = found.start() if found else len(content)
            tables = [one & 15 for one in body[2 : 2 + 2 * min(body[0], _COMPONENTS) : 2]]
            # The scans of a progressive JPEG give zeros other meanings.
            values = tuple(frame.kind != _PROGRESSIVE and frame.zeros.get(one, 0) & 15 > 0 for one in tables)
            frame.scans.append(_Scan(start, end, _pieces(frame, components, interval) if interval else 0, values))
    return frame


def _zeros_of(body: bytes) -> Iterator[tuple[int, int]]:
    """For a segment of Huffman tables, yield the number of each AC table and the symbol coded by zero bits.

    The lower half of a symbol is the number of bits of a value; if it is 0, the symbol ends a block or skips values.
    """
    at = 0
    while at + 17 < len(body):
        if body[at] >> 4:
            yield body[at] & 15, body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])


def _segments(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield markers with a body: (marker, end of its body, body)."""
    found = _MARKER.search(content, 2)
    while found:
        at, marker = found.start(), content[found.end() - 1]
        if marker == _END:
            return
        end = at + 2
        if marker not in _BODILESS:
            end += int.from_bytes(content[at + 2 : at + 4], "big")
            yield marker, end, content[at + 4 : end]
        found = _MARKER.search(content, end)


def _pieces(frame: _Frame, components: list[int], interval: int) -> int:
    """Number of pieces that restarts divide a scan into; 0 if its size is not known yet."""
    sampling = [frame.sampling[one] for one in components if one in frame.sampling]
    if not sampling or not all(frame.size_wh):
        return 0
    most = [max(both[axis] for both in frame.sampling.values()) for axis in (0, 1)]
    # A scan of one component goes through its blocks one by one; a scan of several, through minimum coded units.
    alone = sampling[0] if len(sampling) == 1 else (1, 1)
    across, down = (-(-size * alone[axis] // most[axis]) for axis, size in enumerate(frame.size_wh))
    return -(-(-(-across // 8) * -(-down // 8)) // interval)

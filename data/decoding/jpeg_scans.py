"""The pixels of a JPEG, and whether all of them came out of the file.

libjpeg fills what is missing with grey and says so in warnings that Pillow does not pass on. What tells is where the
decoder stands when a scan's bytes end: a decoder that wants more had too few, one that was ready before had some that
were not its own. Asking costs some microseconds a scan, and nothing is decoded twice. A hole after which the codes come
into step again at just the right block stays unseen, by libjpeg too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from PIL import Image, ImageFile

from ..errors import ImageError
from ..faults import BROKEN, CUT_OFF

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # but for restarts, which stand in the midst of data
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PROGRESSIVE = 0xC2
_HUFFMAN = (0xC0, 0xC1, _PROGRESSIVE)  # frames; the others are baseline and extended
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # among the markers of frames
_BODILESS = (0x01, 0xD8)
_FRAMES, _END, _SCAN, _INTERVAL = range(0xC0, 0xD0), 0xD9, 0xDA, 0xDD

# The decoder looks eight bytes ahead. Ones, which no code consists of: they make no pixels, as zeros may.
_AHEAD = 8
_ONE = b"\xff\x00"
_LEFT_OVER = "data of its pixels are left over when the last of them is made: it is damaged in its middle"
_MAX_PIECES = 500  # of a scan: looked at one by one they cost as much as a small photograph


@dataclass
class _Frame:
    """What a JPEG's headers say. A scan is where its data begin and end, and how many pieces it is cut into."""

    kind: int = 0  #: its marker
    size_wh: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  #: of each component, across and down
    digits: dict[tuple[int, int], int] = field(default_factory=dict)  #: of (component, coefficient): lowest bit there
    scans: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether scans bring every component, and of a progressive JPEG all coefficients to their last bit."""
        places = range(64 if self.kind == _PROGRESSIVE else 1)
        return not any(self.digits.get((one, place), 1) for one in self.sampling for place in places)


def load_jpeg(image: ImageFile.ImageFile, content: bytes) -> None:
    """Decode a JPEG that Pillow has opened; a file that lacks only its end marker is whole.

    Args:
        image: opened, not loaded; afterwards it holds its pixels.
        content: the bytes of its file.

    Raises: `ImageError` where not all pixels are in the file, or where more data than they need are.
    """
    if not image.tile:
        raise ImageError("it has headers, but no pixels", CUT_OFF)
    frame = _read_headers(content)
    decoder = _Decoder(image)
    if frame.kind in _HUFFMAN:
        fed = 0
        for number, (start, end, pieces) in enumerate(frame.scans):
            restarts = [found.start() for found in _RESTART.finditer(content, start, end)] if pieces else []
            _refuse_missing_pieces(content, restarts, pieces)
            cuts = [start, *(restarts if pieces <= _MAX_PIECES else ()), end]
            for begin, stop in pairwise(cuts):
                decoder.feed(content[fed:begin])
                fed = stop
                if problem := _problem_of_piece(decoder, content[begin:stop]):
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
    image.tile = []  # there is nothing left to load


class _Decoder:
    """Pillow's decoder, fed by hand."""

    def __init__(self, image: ImageFile.ImageFile) -> None:
        image.load_prepare()
        name, box, _, arguments = image.tile[0]
        self.finished = False
        self._left = b""
        self._decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
        self._decoder.setimage(image.im, box)

    def feed(self, data: bytes) -> bool:
        """Whether it has use for none of ``data``: it took them at once, as it does only with what is no pixels'."""
        if not self.finished:
            self._left += data
            taken, error = self._decoder.decode(self._left)
            if error < 0:
                raise ImageError("its data are broken: the file is damaged", BROKEN)
            self.finished = taken < 0
            self._left = b"" if self.finished else self._left[taken:]
        return not self._left


def _problem_of_piece(decoder: _Decoder, data: bytes) -> str:
    """Feed a scan's data, or those between two restarts; what is wrong with them, or nothing."""
    bare = len(data.rstrip(b"\0\xff"))  # some cameras fill up to a whole block
    near = max(0, bare - _AHEAD)
    decoder.feed(data[:near])
    if _ready(decoder, data[near:bare]):
        return _LEFT_OVER
    padding = data[bare + _AHEAD :]  # zeros before it may belong to the last pixel
    decoder.feed(data[bare : bare + _AHEAD])
    if len(padding) > 4 * _AHEAD:
        if _ready(decoder, padding[:_AHEAD]):
            return ""
        decoder.feed(padding[_AHEAD:-_AHEAD])
        if _ready(decoder, padding[-_AHEAD:]):
            return "its data end in zeros, which are no pixels: it is cut off or damaged"
    else:
        decoder.feed(padding)
    decoder.feed(_ONE * _AHEAD)
    return (
        "" if _ready(decoder, _ONE * (_AHEAD // 2)) else "its data end before its pixels do: it is cut off or damaged"
    )


def _ready(decoder: _Decoder, data: bytes) -> bool:
    """Whether the decoder has all pixels before ``data``, `_AHEAD` bytes; fewer do not tell.

    In two halves: where it waits for more, it keeps one of them at least.
    """
    halves = [decoder.feed(data[at : at + _AHEAD // 2]) for at in range(0, len(data), _AHEAD // 2)]
    return len(data) == _AHEAD and all(halves)


def _refuse_missing_pieces(content: bytes, restarts: list[int], pieces: int) -> None:
    """Restarts are numbered from 0 to 7, again and again, so that a lost one is seen."""
    in_order = all(content[at + 1] == 0xD0 + number % 8 for number, at in enumerate(restarts))
    if pieces and (len(restarts) + 1 != pieces or not in_order):
        found = f"{len(restarts) + 1:,} of the {pieces:,} pieces of its data are there"
        reason = f"{found}{'' if in_order else ', out of order'}: it is cut off or damaged"
        raise ImageError(reason, CUT_OFF if in_order else BROKEN)


def _share(image: Image.Image) -> str:
    box = image.im.getbbox()  # rows that are not made yet are zeros
    return f" (about {(box[3] if box else 0) / image.height:.0%} of its rows are there)"


def _read_headers(content: bytes) -> _Frame:
    """The frame, and the place of each scan's data: all that stands before the end marker."""
    frame, interval = _Frame(), 0
    for marker, start, body in _segments(content):
        if marker in _FRAMES and marker not in _NO_FRAMES and len(body) >= 6:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame.kind, frame.size_wh = marker, (width, height)
            frame.sampling = {body[at]: (body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, len(body) - 2, 3)}
        elif marker == _INTERVAL:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _SCAN and len(body) >= 4:
            components = list(body[1 : 1 + 2 * body[0] : 2])
            first, last, bits = body[-3:] if frame.kind == _PROGRESSIVE else (0, 0, 0)
            frame.digits.update({(one, at): bits & 15 for one in components for at in range(first, last + 1)})
            found = _MARKER.search(content, start)
            end = found.start() if found else len(content)
            frame.scans.append((start, end, _pieces(frame, components, interval) if interval else 0))
    return frame


def _segments(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Markers with a body: (marker, where its body ends, body)."""
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
    """How many pieces a scan is cut into by restarts; 0 where its size is not known yet."""
    sampling = [frame.sampling[one] for one in components if one in frame.sampling]
    if not sampling or not all(frame.size_wh):
        return 0
    most = [max(both[axis] for both in frame.sampling.values()) for axis in (0, 1)]
    # A scan of one component goes block by block through it, one of several through the least that all of them share.
    alone = sampling[0] if len(sampling) == 1 else (1, 1)
    across, down = (-(-size * alone[axis] // most[axis]) for axis, size in enumerate(frame.size_wh))
    return -(-(-(-across // 8) * -(-down // 8)) // interval)

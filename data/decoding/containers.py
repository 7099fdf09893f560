"""Completeness and picture counts of video files, from container headers alone; nothing is decoded.

A duration in seconds is unreliable: it is that of the longest track, counts from an arbitrary start, or is a guess.
Sizes are reliable: a truncated file ends in a box, element, chunk, tag, page or packet that announces bytes beyond it.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

_STEPS = 20_000_000  # limit of headers read: a day of video has that many, a hostile file might have more
_MOST_TRACKS = 10_000  # limit for an MP4 file; a real one has a handful
_LOST = 0.01  # share of a stream: a recorded broadcast lacks some packets without being damaged
_TAIL = 2**18  # bytes at the end of a file that are searched for the last page or packet
_TRIMMED = 0.98  # share of the pictures' time: an edit list that shows less leaves pictures out on purpose


@dataclass(frozen=True)
class Container:
    """Result of the inspection of a file."""

    missing: int = 0  #: least number of bytes announced beyond the end of the file
    broken: bool = False  #: whether something else was found where a header must be
    pictures: int | None = None  #: in the video track (the shortest of several); None if not counted


def look_into(path: str | Path) -> Container:
    """Inspect a container; the result is empty for an unknown kind. Raises `OSError` if the file cannot be read."""
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = _at(file, 0, 1024)
        for looks_like, walk in _KINDS:
            if looks_like(start):
                return walk(file, size)
    return Container()


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


# MP4, MOV, 3GP: boxes with a size and a name; those in _BOXES contain further boxes.
_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"})
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"sidx"})


@dataclass
class _Track:
    """A track of an MP4 file."""

    number: int = 0
    is_video: bool = False
    samples: int = 0
    timescale: int = 0
    duration: int = 0
    shown: int = 0  # in units of the movie's time scale
    shown_twice: bool = False


@dataclass
class _Film:
    """Information collected from the boxes of an MP4 file so far."""

    timescale: int = 0
    tracks: list[_Track] = field(default_factory=list)
    fragment_of: int = 0  # number of the track that the latest fragment belongs to
    in_fragments: Counter[int] = field(default_factory=Counter)  # number of samples by track number

    def container(self, missing: int, broken: bool) -> Container:
        videos = [track for track in self.tracks if track.is_video]
        counts = [track.samples + self.in_fragments[track.number] for track in videos]
        whole = [
            count
            for track, count in zip(videos, counts, strict=True)
            if count and not _is_trimmed(track, self.timescale)
        ]
        return Container(missing, broken, min(whole, default=None) if len(whole) == len(videos) else None)


def _mp4(file: BinaryIO, size: int) -> Container:
    film = _Film()
    place, missing, broken = 0, 0, False
    moof_waits = False
    for _ in range(_STEPS):
        if place + 8 > size:
            break
        head = _at(file, place, 16)
        length, name = struct.unpack(">I4s", head[:8])
        body = place + 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
            body = place + 16
        end = place + length if length else size
        if end < body or not name.isascii():
            broken = name != bytes(4)  # zeros at the end of a list of boxes are allowed
            break
        missing = max(missing, end - size)
        moof_waits = name == b"moof" or (moof_waits and name != b"mdat")
        if name == b"trak":
            if len(film.tracks) == _MOST_TRACKS:
                return Container(missing, True)
            film.tracks.append(_Track())
        if name in _BOXES:
            place = body
            continue
        _read_box(file, name, body, film)
        place = end
    return film.container(missing or int(moof_waits), broken)


def _read_box(file: BinaryIO, name: bytes, body: int, film: _Film) -> None:
    """Record the content of a box."""
    content = _at(file, body, 40).ljust(40, b"\0")
    long = content[0] == 1  # version of the box with 8-byte times
    if name == b"mvhd":
        (film.timescale,) = struct.unpack_from(">I", content, 20 if long else 12)
    elif name == b"tfhd":
        (film.fragment_of,) = struct.unpack_from(">I", content, 4)
    elif name == b"trun":
        film.in_fragments[film.fragment_of] += struct.unpack_from(">I", content, 4)[0]
    elif film.tracks:
        _read_tracks_box(file, name, body, content, film.tracks[-1])


def _read_tracks_box(file: BinaryIO, name: bytes, body: int, content: bytes, track: _Track) -> None:
    long = content[0] == 1
    if name == b"tkhd":
        (track.number,) = struct.unpack_from(">I", content, 20 if long else 12)
    elif name == b"mdhd":
        track.timescale, track.duration = struct.unpack_from(">IQ" if long else ">II", content, 20 if long else 12)
    elif name == b"hdlr":
        track.is_video |= content[8:12] == b"vide"
    elif name in (b"stsz", b"stz2"):
        (track.samples,) = struct.unpack_from(">I", content, 8)
    elif name == b"elst":
        _read_edits(file, body, long, struct.unpack_from(">I", content, 4)[0], track)


def _read_edits(file: BinaryIO, body: int, long: bool, count: int, track: _Track) -> None:
    layout = struct.Struct(">Qqi" if long else ">Iii")
    content = _at(file, body + 8, layout.size * min(count, 1000))
    edits = [
        (time, start) for time, start, _ in layout.iter_unpack(content[: len(content) // layout.size * layout.size])
    ]
    shown = [time for time, start in edits if start >= 0]
    track.shown += sum(shown)
    track.shown_twice |= len(shown) > 1


def _is_trimmed(track: _Track, film_timescale: int) -> bool:
    if not track.shown or not track.timescale or not film_timescale:
        return False
    return track.shown_twice or track.shown / film_timescale < _TRIMMED * track.duration / track.timescale


# Matroska, WebM: elements with an ID and a size; these contain further elements and may have an unknown size.
_SEGMENT, _CLUSTER, _GROUP, _TRACKS, _ENTRY = 0x18538067, 0x1F43B675, 0xA0, 0x1654AE6B, 0xAE
_ELEMENTS = frozenset({_SEGMENT, _CLUSTER, _GROUP, _TRACKS, _ENTRY})
_TRACK_NUMBER, _TRACK_TYPE, _BLOCKS = 0xD7, 0x83, (0xA3, 0xA1)


def _matroska(file: BinaryIO, size: int) -> Container:
    place, missing, broken, last = 0, 0, False, size
    number, videos, blocks = 0, set(), Counter[int]()
    for _ in range(_STEPS):
        if place >= last:
            break
        head = _at(file, place, 13)
        identity_bytes, size_bytes = _width(head, 0, 4), 0
        if identity_bytes:
            size_bytes = _width(head, identity_bytes, 8)
        if not size_bytes:
            broken = place + 12 < size  # otherwise the element's own header is truncated
            missing = max(missing, int(not broken))
            break
        identity = int.from_bytes(head[:identity_bytes], "big")
        body = place + identity_bytes + size_bytes
        if body > size:
            missing = max(missing, body - size)
            break
        length = int.from_bytes(head[identity_bytes : identity_bytes + size_bytes], "big") & (1 << 7 * size_bytes) - 1
        unknown = length == (1 << 7 * size_bytes) - 1
        if not unknown:
            missing = max(missing, body + length - size)
        if identity == _SEGMENT and not unknown:
            last = min(size, body + length)  # data appended behind it is not part of the video
        if identity == _ENTRY:
            number = 0
        if identity in (_TRACK_NUMBER, _TRACK_TYPE):
            value = int.from_bytes(_at(file, body, min(length, 8)), "big")
            number = value if identity == _TRACK_NUMBER else number
            if identity == _TRACK_TYPE and value == 1:
                videos.add(number)
        elif identity in _BLOCKS:
            first = _at(file, body, 8)
            width = _width(first, 0, 8)
            blocks[int.from_bytes(first[:width], "big") & (1 << 7 * width) - 1] += 1
        elif unknown and identity not in _ELEMENTS:
            broken = True
            break
        place = body if identity in _ELEMENTS else body + length
    pictures = [blocks[video] for video in videos if blocks[video]]
    return Container(missing, broken, min(pictures, default=None))


def _width(content: bytes, at: int, most: int) -> int:
    """Number of bytes of the integer at ``at``, from the leading zeros of its first byte; 0 if it is invalid."""
    if at >= len(content) or not content[at]:
        return 0
    width = 9 - content[at].bit_length()
    return width if width <= most and at + width <= len(content) else 0


# AVI: chunks with a name and a size, padded to even; a RIFF or LIST contains further chunks.
_OPEN_END = (0, 0xFFFF_FFFF)  # size of a list that was written to a pipe, or is still being written
_SLACK = 8  # bytes: many writers count the header in the size


def _avi(file: BinaryIO, size: int) -> Container:
    place, end, missing, broken = 0, size, 0, False
    streams, videos, chunks = 0, set(), Counter[int]()
    for _ in range(_STEPS):
        if place + 8 > size:
            break
        head = _at(file, place, 12)
        name, length = struct.unpack("<4sI", head[:8])
        if name in (b"RIFF", b"LIST"):
            if name == b"RIFF":
                end = size if length in _OPEN_END else place + 8 + length
            missing = max(missing, place + 8 + length - size - _SLACK if length not in _OPEN_END else 0)
            # The content of an index or a header list is not needed.
            inside = head[8:] in (b"AVI ", b"AVIX", b"hdrl", b"strl", b"movi", b"rec ")
            place += 12 if inside or length in _OPEN_END else 8 + length + length % 2
            continue
        if not all(32 <= letter < 127 for letter in name):
            broken = place < end  # behind the content, some writers fill up the last sector
            break
        missing = max(missing, place + 8 + length - size)
        if name == b"strh":
            if head[8:12] == b"vids":
                videos.add(streams)
            streams += 1
        elif name[:2].isdigit() and name[2:] in (b"dc", b"db") and length:
            chunks[int(name[:2])] += 1
        place += 8 + length + length % 2
    pictures = [chunks[video] for video in videos if chunks[video]]
    return Container(max(missing, 0), broken, min(pictures, default=None))


def _flv(file: BinaryIO, size: int) -> Container:
    """FLV: tags, each followed by its size."""
    place, pictures = struct.unpack(">I", _at(file, 5, 4))[0] + 4, 0
    for _ in range(_STEPS):
        if place + 11 > size:
            break
        head = _at(file, place, 13)
        kind, length = head[0] & 0x1F, int.from_bytes(head[1:4], "big")
        if kind not in (8, 9, 18):
            return Container(0, True, pictures or None)
        end = place + 11 + length
        if end > size:
            return Container(end - size, False, pictures or None)
        pictures += kind == 9 and length > 1 and _is_flv_picture(head[11], head[12])
        place = end + 4
    return Container(max(0, place + 11 - size) if place < size else 0, False, pictures or None)


def _is_flv_picture(first: int, second: int) -> bool:
    """Whether a video tag with these bytes holds a picture rather than decoder settings, an end marker or a command."""
    if first & 0x80:  # enhanced format: the lower half holds the packet type
        return first >> 4 & 7 != 5 and first & 0x0F in (1, 3)
    return first >> 4 != 5 and (first & 0x0F != 7 or second == 1)


_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _asf(file: BinaryIO, size: int) -> Container:
    """ASF: objects with an ID and a size. Streamed files have no size for their data."""
    place = 0
    for _ in range(1000):
        head = _at(file, place, 24) if place < size else b""
        if len(head) < 24:
            break
        (length,) = struct.unpack("<Q", head[16:])
        if head[:16] in (_ASF, _ASF_DATA) and place + length > size:
            return Container(place + length - size)
        if length < 24 or (head[:16] == _ASF_DATA and length <= 50):
            break
        place += length
    return Container()


def _ogg(file: BinaryIO, size: int) -> Container:
    """Ogg: pages whose headers hold the lengths of their segments."""
    place = 0
    for _ in range(_STEPS):
        head = _at(file, place, 27 + 255)
        if not head:
            break
        if not head.startswith(b"OggS"[: len(head)]):
            return Container(0, True)
        pieces = head[27 : 27 + head[26]] if len(head) > 26 else b""
        place += 27 + len(pieces) + sum(pieces)
        if len(head) < 27 or len(pieces) < head[26] or place > size:
            return Container(max(1, place - size))
    return Container()


_PACK = 2048  # bytes: a sector of a disc


def _program_stream(file: BinaryIO, size: int) -> Container:
    """MPEG program stream: packs of equal length with sized packets; the last is padded, shorter or an end code."""
    broken = _between_packets(file, size) > _LOST * size
    tail = _at(file, max(0, size - _TAIL), _TAIL)
    at = tail.find(b"\0\0\1\xba")
    packs, filled = [], False
    while 0 <= at < len(tail) - 3 and tail[at : at + 3] == b"\0\0\1":
        kind, head = tail[at + 3], tail[at : at + 14].ljust(14, b"\0")
        filled = kind in (0xB9, 0xBE)
        if kind == 0xBA:
            packs.append(at)
            at += 12 if head[4] >> 6 != 1 else 14 + (head[13] & 7)
        else:
            at += 4 if kind == 0xB9 else 6 + int.from_bytes(head[4:6], "big")
    if at >= len(tail) and packs and not filled:
        lengths = {int(length) for length in np.diff([*packs, len(tail)])}
        goes_on = len(lengths) == 1 and (len(packs) > 1 or _PACK in lengths)
        return Container(max(at - len(tail), int(goes_on)), broken)
    return Container(max(0, at - len(tail)) or int(0 < len(tail) - at < 4 and any(tail[at:])), broken)


def _between_packets(file: BinaryIO, size: int) -> int:
    """Number of bytes before the last pack that belong to no packet."""
    place, lost = 0, 0
    for _ in range(_STEPS):
        head = _at(file, place, 14)
        if len(head) < 14:
            break
        if head[:3] == b"\0\0\1" and head[3] == 0xBA:
            place += 12 if head[4] >> 6 != 1 else 14 + (head[13] & 7)
        elif head[:3] == b"\0\0\1" and head[3] >= 0xB9:
            place += 4 if head[3] == 0xB9 else 6 + int.from_bytes(head[4:6], "big")
        else:
            pack = _next_pack(file, place, size)
            lost += max(0, pack - place)
            place = pack if pack > place else size
    return lost


def _next_pack(file: BinaryIO, place: int, size: int) -> int:
    """Position of the first pack at or after ``place``; -1 if there is none."""
    for start in range(place, size, _TAIL):
        found = _at(file, start, _TAIL + 3).find(b"\0\0\1\xba")
        if found >= 0:
            return start + found
    return -1


def _transport_stream(file: BinaryIO, size: int) -> Container:
    """MPEG transport stream: packets of equal length, each with a sync byte, that carry longer packets of media."""
    first, length = _packets(_at(file, 0, 1024)) or (0, 188)
    clock = length - 188 if length == 192 else 0  # precedes the sync byte
    count, over = divmod(size - first + clock, length)
    if over:
        return Container(length - over)
    file.seek(0)
    signs = np.memmap(file, np.uint8, "r")[first : first + (count - 1) * length + 1 : length]
    broken = float(np.mean(signs != 0x47)) > _LOST
    # For each stream, walk back from the end to the start of its last media packet, which may announce its length.
    waiting, carried = _streams(_at(file, first, 8 * _TAIL), length), Counter[int]()
    for number in range(count - 1, max(-1, count - 1 - 8 * _TAIL // length), -1):
        packet = _at(file, first + number * length, 188)
        stream, begins, content = _carried(packet)
        if stream not in waiting:
            continue
        if not carried[stream] and not _is_filled_up(packet):
            waiting[stream] = True
        carried[stream] += len(content)
        if begins:
            announced = int.from_bytes(content[4:6], "big")
            if carried[stream] < announced + 6 if announced else waiting[stream]:
                return Container(max(1, announced + 6 - carried[stream]), broken)
            del waiting[stream]
    return Container(0, broken)


def _carried(packet: bytes) -> tuple[int, bool, bytes]:
    """Stream number of a 188-byte packet, whether a media packet begins in it, and its payload."""
    content = packet[5 + packet[4] if packet[3] & 0x20 else 4 :] if packet[3] & 0x10 else b""
    return int.from_bytes(packet[1:3], "big") & 0x1FFF, bool(packet[1] & 0x40), content


def _is_filled_up(packet: bytes) -> bool:
    """Whether the adaptation field is longer than its content, because the payload did not fill the packet."""
    if not packet[3] & 0x20 or len(packet) < 188:
        return False
    length, says, needed = packet[4], packet[5], 1
    needed += 6 * bool(says & 0x10) + 6 * bool(says & 0x08) + bool(says & 0x04)
    for flag in (0x02, 0x01):  # fields with their own length
        needed += 1 + packet[min(5 + needed, 187)] if says & flag else 0
    return not length or length > needed


def _streams(start: bytes, length: int) -> dict[int, bool]:
    """Numbers of the streams that begin a media packet here."""
    found = {}
    for at in range(0, len(start) - 187, length):
        stream, begins, content = _carried(start[at : at + 188])
        if begins and content[:3] == b"\0\0\1":
            found[stream] = False  #: whether its last packet is full, so that the media packet may continue
    return found


def _packets(start: bytes) -> tuple[int, int] | None:
    """Position of the first sync byte, and the packet length."""
    for length in (188, 192, 204):
        for first in range(length):
            if start[first : first + 4 * length + 1 : length] == b"\x47" * 5:
                return first, length
    return None


def _ends_with(*ends: bytes) -> Callable[[BinaryIO, int], Container]:
    """Build a check for consecutive pictures, the last of which must end with a marker."""

    def walk(file: BinaryIO, size: int) -> Container:
        tail = _at(file, max(0, size - 4096), 4096).rstrip(b"\0\r\n")
        return Container(int(not tail.endswith(ends)))

    return walk


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], Container]], ...] = (
    (lambda start: start[4:8] in _FIRST_BOXES, _mp4),
    (lambda start: start[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda start: start[:4] == b"RIFF" and start[8:12] == b"AVI ", _avi),
    (lambda start: start[:3] == b"FLV" and len(start) > 13, _flv),
    (lambda start: start[:16] == _ASF, _asf),
    (lambda start: start[:4] == b"OggS", _ogg),
    (lambda start: start[:4] == b"\0\0\1\xba", _program_stream),
    (lambda start: start[:3] == b"\xff\xd8\xff", _ends_with(b"\xff\xd9")),
    (lambda start: start[:4] == b"GIF8", _ends_with(b";")),
    (lambda start: _packets(start) is not None, _transport_stream),
)

"""PNG features that Pillow ignores: the checksums of pixel chunks, and the transparent colour at full bit depth."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from ..errors import ImageError
from ..faults import BROKEN

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STEP = 2**20  # bytes decompressed at once, as a file may announce any amount
_PIXEL = 8  # maximum bytes per pixel


def refuse_damaged_png(content: bytes) -> None:
    """Raise `ImageError` if the checksum of a pixel chunk is wrong. Other formats pass.

    A chunk cut off by the end of the file is left to the decoder, as are pixels whose own checksum is right.
    """
    chunks = list(_chunks(content, b"IDAT"))
    wrong = [number for number, (body, checksum) in enumerate(chunks) if zlib.crc32(body) != checksum]
    if wrong and not _unpacks([body for body, _ in chunks], _most_bytes(content)):
        raise ImageError(
            f"{len(wrong):,} of its {len(chunks):,} chunks of pixels have a wrong checksum: it is damaged",
            BROKEN,
        )


def transparent_colour(content: bytes) -> list[int]:
    """The single transparent colour of a grey or RGB PNG, at its own bit depth; empty if it has none."""
    for chunk, _ in _chunks(content, b"tRNS"):
        return [int.from_bytes(chunk[at : at + 2], "big") for at in range(4, len(chunk) - 1, 2)]
    return []


def _chunks(content: bytes, name: bytes) -> Iterator[tuple[memoryview, int]]:
    """Yield all complete chunks of a name: name and body, and the checksum of both. Other formats have none."""
    if not content.startswith(_SIGNATURE):
        return
    view, at = memoryview(content), len(_SIGNATURE)
    while at + 12 <= len(view):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if end + 4 > len(view):
            return
        if view[at + 4 : at + 8] == name:
            yield view[at + 4 : end], int.from_bytes(view[end : end + 4], "big")
        at = end + 4


def _most_bytes(content: bytes) -> int:
    """Maximum number of bytes of a PNG's pixels, from its header."""
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    return height * (_PIXEL * width + 2)  # each row begins with a filter byte, and an interlaced one with two


def _unpacks(bodies: list[memoryview], most: int) -> bool:
    """Whether the compressed stream is complete by its own checksum, and at most ``most`` bytes long."""
    stream, made = zlib.decompressobj(), 0
    try:
        for body in bodies:
            made += len(stream.decompress(body[4:], _STEP))
            while stream.unconsumed_tail and made <= most:
                made += len(stream.decompress(stream.unconsumed_tail, _STEP))
    except zlib.error:
        return False
    return stream.eof and made <= most

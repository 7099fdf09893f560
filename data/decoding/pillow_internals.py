"""Undocumented behaviour of Pillow that agnet relies on: manual feeding of decoders, load state, error messages.

An upgrade may change any of it without notice. It is therefore collected here, each item with a test that provokes the
real behaviour (`tests/test_pillow_internals.py`), and `setup.cfg` excludes Pillow's next major version.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

from ..errors import ImageError
from ..faults import BROKEN


class Decoder:
    """Decoder of a file that Pillow has opened but not loaded, fed step by step.

    Pillow's own loop does not report how many bytes were used, and feeds zeros after the end.

    Args:
        image: Image that receives the pixels.
    """

    def __init__(self, image: ImageFile.ImageFile) -> None:
        image.load_prepare()
        name, box, _, arguments = image.tile[0]
        self.finished = False
        self._left = b""
        self._decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
        self._decoder.setimage(image.im, box)

    def feed(self, data: bytes) -> bool:
        """Feed data. Returns whether all of it was consumed at once, which happens only to data without pixels.

        Raises: `ImageError` for data that cannot be decoded.
        """
        if not self.finished:
            self._left += data
            taken, error = self._decoder.decode(self._left)
            if error < 0:
                raise ImageError("its data are broken: the file is damaged", BROKEN)
            self.finished = taken < 0
            self._left = b"" if self.finished else self._left[taken:]
        return not self._left


def is_unloaded(image: Image.Image) -> bool:
    """Whether the pixels are still to be read from a file, according to its headers."""
    return bool(getattr(image, "tile", None))


def is_drafted(image: Image.Image) -> bool:
    """Whether a JPEG that is not loaded yet will be loaded as a smaller draft (`Image.draft`)."""
    return bool(getattr(image, "decoderconfig", ()))


def end_loading(image: ImageFile.ImageFile) -> None:
    """Mark an image as loaded after a `Decoder` has filled its pixels."""
    image.tile = []


def rows_made(image: Image.Image) -> int:
    """Number of rows decoded so far: rows that are not decoded yet are zeros."""
    box = image.im.getbbox()
    return box[3] if box else 0


def raw_mode_of(image: ImageFile.ImageFile) -> str:
    """Pillow's interpretation of the samples of an ``image`` that is opened but not loaded; empty if it has none."""
    arguments = image.tile[0][3] if is_unloaded(image) else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def take_for(image: ImageFile.ImageFile, raw_mode: str) -> None:
    """Make Pillow interpret the samples of an opened ``image`` as another raw mode with as many bits."""
    image.tile = [_tile_of(tile, raw_mode) for tile in image.tile]


def is_of_a_cut_file(error: Exception) -> bool:
    """Whether a file ended too early: Pillow has one exception class for all damage, and only the message differs."""
    return "truncated" in str(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a C decoder ran out of memory, which Pillow reports as an `OSError`."""
    return "out of memory" in str(error).lower()


def _tile_of(tile: Any, raw_mode: str) -> Any:
    decoder, box, offset, arguments = tile
    arguments = (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
    return type(tile)(decoder, box, offset, arguments) if type(tile) is not tuple else (decoder, box, offset, arguments)

"""What agnet uses of Pillow that it does not promise: its decoders fed by hand, what an image is yet to load, the words
of an error.

An upgrade may change any of it without a word. So all of it is here, each with a test that provokes the real thing
(`tests/test_pillow_internals.py`), and `setup.cfg` ends before Pillow's next major version.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

from ..errors import ImageError
from ..faults import BROKEN


class Decoder:
    """The decoder of a file that Pillow has opened and not loaded, fed by hand: Pillow's own loop does not tell how
    many bytes it took, and feeds zeros where they end.

    Args:
        image: holds the pixels as they are made.
    """

    def __init__(self, image: ImageFile.ImageFile) -> None:
        image.load_prepare()
        name, box, _, arguments = image.tile[0]
        self.finished = False
        self._left = b""
        self._decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
        self._decoder.setimage(image.im, box)

    def feed(self, data: bytes) -> bool:
        """Whether it has use for none of ``data``: it took them at once, as it does only with what is no pixels'.

        Raises: `ImageError` for data that it cannot make pixels of.
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
    """Whether pixels are yet to come from a file, as its headers say they do."""
    return bool(getattr(image, "tile", None))


def is_drafted(image: Image.Image) -> bool:
    """Whether a JPEG that is not loaded yet is to become a smaller draft of itself (`Image.draft`)."""
    return bool(getattr(image, "decoderconfig", ()))


def end_loading(image: ImageFile.ImageFile) -> None:
    """Tell an image that a `Decoder` has given it its pixels: there is nothing left to load."""
    image.tile = []


def rows_made(image: Image.Image) -> int:
    """How many rows a decoder has got to: those that are not made yet are zeros."""
    box = image.im.getbbox()
    return box[3] if box else 0


def raw_mode_of(image: ImageFile.ImageFile) -> str:
    """What Pillow, which has opened but not loaded ``image``, will take its samples for; empty where it has no word."""
    arguments = image.tile[0][3] if is_unloaded(image) else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def take_for(image: ImageFile.ImageFile, raw_mode: str) -> None:
    """Have Pillow, which has opened but not loaded ``image``, take its samples for others of as many bits."""
    image.tile = [_tile_of(tile, raw_mode) for tile in image.tile]


def is_of_a_cut_file(error: Exception) -> bool:
    """Whether a file ended too early: Pillow has one class of error for all damage, and says this in a word alone."""
    return "truncated" in str(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice for a decoder written in C, which is an `OSError` of Pillow's."""
    return "out of memory" in str(error).lower()


def _tile_of(tile: Any, raw_mode: str) -> Any:
    decoder, box, offset, arguments = tile
    arguments = (raw_mode, *arguments[1:]) if isinstance(arguments, tuple) else raw_mode
    return type(tile)(decoder, box, offset, arguments) if type(tile) is not tuple else (decoder, box, offset, arguments)

"""Conversion of Pillow's images to 8-bit RGB by explicit rules; Pillow's own conversion is wrong beyond 8 bits.

16-bit values are divided by 257, values of fewer bits scaled to 0 to 255. Transparency is composited over white. The
single transparent colour of a PNG is compared at the file's own bit depth.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from ..errors import ImageError
from ..faults import OTHER_KIND
from .png_chunks import transparent_colour

_TIFF_BITS_PER_SAMPLE, _TIFF_SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1
_BAND = 2**20  # pixels converted at once from 16 bits

ReadAs = Callable[[str], np.ndarray]  #: raw mode -> uint8 ``(height, width, channels)``, upright

# Raw modes of which Pillow keeps the upper bytes. Reading with the opposite byte order gives the lower bytes.
_DEEP = re.compile(r"(RGBA|RGBa|CMYK);16([BLN])")
_LOWER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def to_rgb(image: Image.Image, content: bytes, raw_mode: str, read_as: ReadAs) -> np.ndarray:
    """Convert an image to a uint8 array ``(height, width, 3)``.

    Args:
        image: Loaded, upright image.
        content: Bytes of its file; empty if they are no longer available.
        raw_mode: Pillow's interpretation of the file's samples; see `pillow_internals.raw_mode_of`.
        read_as: Function that reads the file again with another interpretation of its samples.
    """
    if image.mode not in ("P", "RGBA", "LA") and (colour := transparent_colour(content)):
        return _without_colour(image, content[24], colour, read_as)
    if deep := _DEEP.fullmatch(raw_mode):
        kind, end = deep.groups()
        # Premultiplied colours are read unchanged, too; Pillow would divide them and lose precision.
        plain = kind.upper()
        upper, lower = (read_as(f"{plain};16{one}") for one in (end, _LOWER[end]))
        return _from_16_bits(upper, lower, kind)
    if raw_mode == "LA;16B":
        upper, lower = np.split(read_as("RGBA").reshape(*image.size[::-1], 2, 2), 2, axis=-1)
        return _from_16_bits(upper[..., 0], lower[..., 0], "LA")
    if raw_mode.startswith("RGBa"):
        return _premultiplied(read_as(raw_mode.replace("a", "A")))
    if image.mode == "La":
        return _premultiplied(np.asarray(image))
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return np.repeat(_grey(image)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _without_colour(image: Image.Image, depth: int, colour: list[int], read_as: ReadAs) -> np.ndarray:
    """Convert a grey or RGB PNG of ``depth`` bits and show its single transparent ``colour`` as white."""
    key = np.array(colour, dtype=np.uint16)
    if depth < 16:
        largest = 2**depth - 1
        values = np.asarray(image).astype(np.uint8) * (255 if image.mode == "1" else 1)
        hidden, eight = values == (key & largest) * (255 // largest), values  # below 8 bits, all bits count
    elif image.mode == "RGB":
        upper, lower = read_as("RGB;16B"), read_as("RGB;16L")
        hidden, eight = (upper.astype(np.uint16) << 8 | lower) == key, upper
    else:
        values = np.asarray(image)
        hidden, eight = values == key, (values.astype(np.uint16) >> 8).astype(np.uint8)
    if eight.ndim == 2:
        hidden, eight = hidden[..., None], np.repeat(eight[..., None], 3, axis=2)
    return np.where(hidden.all(axis=-1, keepdims=True), np.uint8(255), eight)


def _from_16_bits(upper: np.ndarray, lower: np.ndarray, kind: str) -> np.ndarray:
    """Composite 16-bit samples, given as two bytes, over white; ``kind`` is RGBA, RGBa (premultiplied), LA or CMYK."""
    height, width = upper.shape[:2]
    made = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _BAND // width)
    for band in (slice(at, at + rows) for at in range(0, height, rows)):
        values = (upper[band].astype(np.uint16) << 8 | lower[band]).astype(np.float32) / 65535
        colours, last = values[..., :-1], values[..., -1:]
        if kind == "CMYK":
            shown = (1 - colours) * (1 - last)
        else:
            shown = (colours if kind == "RGBa" else colours * last) + (1 - last)
        made[band] = np.round(np.minimum(shown, 1) * 255)
    return made


def _premultiplied(values: np.ndarray) -> np.ndarray:
    """Composite colours that are already multiplied with their opacity over white."""
    over_white = np.minimum(values[..., :-1].astype(np.uint16) + (255 - values[..., -1:]), 255).astype(np.uint8)
    return over_white if over_white.shape[2] == 3 else np.repeat(over_white, 3, axis=2)


def _grey(image: Image.Image) -> np.ndarray:
    """Convert samples of more than 8 bits to uint8 ``(height, width)``."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or (image.format in ("PNG", "PPM") and image.mode == "I"):
        # Cameras and scanners store 10 to 14 bits in 16: the tag gives the number, the mode does not.
        bits = tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
        return (values.astype(np.uint16) >> (max(int(bits), 8) - 8)).astype(np.uint8)
    if image.mode == "I" and image.format == "TIFF" and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        values = values.view(np.uint32)
    return _stretch(values.astype(np.float64))


def _stretch(values: np.ndarray) -> np.ndarray:
    """Scale 32-bit integers and floats, which have no white point: 8-bit and 16-bit ranges are recognised."""
    if not np.isfinite(values).all():
        raise ImageError("it has pixels that are not finite numbers", OTHER_KIND)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 255 and high > 1:
        low, high = 0.0, 255.0
    elif low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return np.round((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)

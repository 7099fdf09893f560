"""The one place where an image becomes pixels, so that boxes and pixels always share a frame."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError

# What a data set's folder scan takes for an image; the decoder goes by content, not by this name.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".mpo", ".avif"}
)

# About 8× the largest camera picture in the data sets; decoding needs 3 bytes a pixel.
MAX_PIXELS = 100_000_000

_TIFF_BITS_PER_SAMPLE = 258


def pixel_limit(proposals: Mapping[str, object]) -> int:
    """The most pixels that an image may have, by the settings that regions were proposed with."""
    found = proposals.get("max_pixels")
    return found if type(found) is int and 0 < found < 2**31 else MAX_PIXELS


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the file at ``path``; see `decode_image`. Raises `ImageError`, also for a missing file."""
    try:
        return decode_image(read_content(path), max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def read_content(path: str | Path) -> bytes:
    """The bytes of an image file. Raises `ImageError`, which does not name the file, where there is none."""
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for, a device never ends
            raise ImageError("is not a file")
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file's bytes to upright RGB.

    Orientation in the metadata is applied. Grey, palette, CMYK and 16-bit images become 8-bit RGB;
    transparency is laid over white; of an animation the first frame counts.

    Returns: uint8 array ``(height, width, 3)``.
    Raises: `ImageError` when the bytes are no image, are truncated or corrupt, or when the header
    announces more than ``max_pixels`` (checked before anything is decoded).
    """
    if not content:
        raise ImageError("the file is empty")
    # Broken metadata and odd palettes make Pillow warn; the pixels are what counts here, and a
    # decompression bomb is refused below by our own limit.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content))
            if image.format == "EPS":  # Pillow would hand the program inside to Ghostscript
                raise ImageError("its content is PostScript, which is run rather than decoded; refused")
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"the header announces {width} x {height} pixels, more than the limit of {max_pixels:,}, which "
                    "agnet propose --max-pixels raises"
                )
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return np.ascontiguousarray(_to_rgb(image))
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"the header announces more pixels than the limit of {max_pixels:,}") from None
        except UnidentifiedImageError:
            raise ImageError("its content is in no image format that can be read here") from None
        except MemoryError:
            raise ImageError("not enough memory to decode it") from None
        # Decoders of two dozen formats raise whatever broken bytes lead them to.
        except Exception as error:
            raise ImageError(f"not a readable image ({_first_line(error)})") from None


def pixels_of(image: Image.Image) -> np.ndarray:
    """An image of Pillow's as `decode_image` gives a file's: upright RGB, uint8 ``(height, width, 3)``.

    Raises: `ImageError` when its file cannot be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.ascontiguousarray(_to_rgb(ImageOps.exif_transpose(image)))
        except ImageError:
            raise
        except MemoryError:
            raise ImageError("not enough memory to decode it") from None
        except Exception as error:  # as of files
            raise ImageError(f"not a readable image ({_first_line(error)})") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        # Cameras and scanners store 10 to 14 bits in 16: the tag tells, the mode does not.
        bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
        grey = np.asarray(image).astype(np.uint16) >> (max(int(bits), 8) - 8)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        return np.repeat(_stretch(np.asarray(image, dtype=np.float64))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _stretch(values: np.ndarray) -> np.ndarray:
    """32-bit integers and floats name no white point: 8-bit and 16-bit ranges are recognised, others stretched."""
    if not np.isfinite(values).all():
        raise ImageError("it has pixels that are not finite numbers")
    low, high = values.min(), values.max()
    if low >= 0 and high <= 255 and high > 1:
        low, high = 0.0, 255.0
    elif low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return np.round((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

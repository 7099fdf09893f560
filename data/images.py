"""The only module that decodes images, so that boxes and pixels always share a frame."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from .decoding.eight_bits import to_rgb
from .decoding.jpeg_scans import decode_ordinary, load_jpeg
from .decoding.known_kinds import refuse_deep_jpeg2000, refuse_other_tiffs, refuse_tiff
from .decoding.pillow_internals import (
    is_drafted,
    is_of_a_cut_file,
    is_out_of_memory,
    is_unloaded,
    raw_mode_of,
    take_for,
)
from .decoding.png_chunks import refuse_damaged_png
from .errors import ImageError, PassingError
from .faults import BROKEN, CUT_OFF, EMPTY, NO_IMAGE, NOT_OPENED, OTHER_KIND, TOO_LARGE, unread
from .text import first_line

# File names that count as images when a folder is scanned. The decoder looks at the content, not at the name.
IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jfif",
        ".png",
        ".bmp",
        ".webp",
        ".gif",
        ".tif",
        ".tiff",
        ".mpo",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    }
)

# About 8× the largest camera image in the data sets; decoding needs 3 bytes per pixel.
MAX_PIXELS = 100_000_000

# Pillow opens four dozen formats. For these, the tests compare the decoded pixels with the original ones.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM", "JPEG2000", "ICO")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def pixel_limit(proposals: Mapping[str, object]) -> int:
    """The maximum number of pixels of an image, from the settings that regions were proposed with."""
    found = proposals.get("max_pixels")
    return found if type(found) is int and 0 < found < 2**31 else MAX_PIXELS


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the file at ``path``; see `decode_image`. Raises `ImageError`, also for a missing file."""
    try:
        return decode_image(read_content(path), max_pixels)
    except ImageError as error:
        raise type(error)(f"{path}: {error}", error.fault) from None


def read_content(path: str | Path) -> bytes:
    """The bytes of an image file. Raises `ImageError`, without the file's name, if it cannot be read."""
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would block, a device never ends
            raise ImageError("is not a file", NOT_OPENED)
        return Path(path).read_bytes()
    except (OSError, MemoryError) as error:
        raise unread(error) from None


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the bytes of an image file to upright RGB.

    The orientation in the metadata is applied. Grey, palette, CMYK and 16-bit images become 8-bit RGB; transparency is
    composited over white; of an animation, the first frame is used.

    Returns: uint8 array ``(height, width, 3)``.
    Raises: `ImageError` if the bytes are not an image, or of a kind that is not known to be decoded correctly; if some
    pixels are missing; or if the header announces more than ``max_pixels`` (checked before anything is decoded).
    """
    if not content:
        raise ImageError("the file is empty", EMPTY)
    # Pillow warns about broken metadata and odd palettes, which do not matter here. Decompression bombs are refused
    # below by our own limit.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _open(content)
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"the header announces {width} x {height} pixels, more than the limit of {max_pixels:,}, which "
                    "agnet propose --max-pixels raises",
                    TOO_LARGE,
                )
            raw_mode = raw_mode_of(image)
            if image.format in ("JPEG", "MPO"):
                if (pixels := decode_ordinary(image, content)) is None:
                    load_jpeg(image, content)
                    pixels = to_rgb(image, content, raw_mode, partial(_read_as, content))
                return _upright(pixels, image)
            refuse_damaged_png(content)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return np.ascontiguousarray(to_rgb(image, content, raw_mode, partial(_read_as, content)))
        except ImageError:
            raise
        except Image.DecompressionBombError:
            reason = f"the header announces more pixels than the limit of {max_pixels:,}"
            raise ImageError(reason, TOO_LARGE) from None
        except UnidentifiedImageError:
            raise ImageError("its content is not in a supported image format", NO_IMAGE) from None
        except MemoryError:
            raise PassingError("not enough memory to decode it") from None
        # Decoders of two dozen formats raise arbitrary exceptions on broken bytes.
        except Exception as error:
            if is_out_of_memory(error):
                raise PassingError("not enough memory to decode it") from None
            fault = CUT_OFF if is_of_a_cut_file(error) else BROKEN
            raise ImageError(f"not a readable image ({first_line(error)})", fault) from None


def read_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of an image file, 1 (upright) to 8, without decoding its pixels.

    Raises `ImageError`, also for a missing file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = _open(read_content(path)).getexif().get(ExifTags.Base.Orientation, 1)
        except ImageError as error:
            raise type(error)(f"{path}: {error}", error.fault) from None
        except Exception as error:  # as for pixels
            raise ImageError(f"{path}: not a readable image ({first_line(error)})", BROKEN) from None
    return found if type(found) is int and 1 <= found <= 8 else 1


def pixels_of(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to what `decode_image` returns for a file: upright RGB, uint8 ``(height, width, 3)``.

    An image that was opened but not loaded yet is decoded from its file by `decode_image`. A smaller draft
    (`PIL.Image.Image.draft`) is decoded by Pillow.

    Raises: `ImageError` if its file cannot be decoded.
    """
    if (content := _content_of_unloaded(image)) is not None:
        pixels = decode_image(content, image.width * image.height)
        image.load()  # as any use of the image would; Pillow then closes the file
        return pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Transpose last: a transposed copy loses the file's tags that describe its values.
            plain = image.convert("RGBA") if image.mode == "RGBa" else image
            return _upright(to_rgb(plain, b"", "", _read_no_more), image)
        except ImageError:
            raise
        except MemoryError:
            raise PassingError("not enough memory to decode it") from None
        except Exception as error:  # as for files
            raise ImageError(f"not a readable image ({first_line(error)})") from None


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Apply the orientation in the metadata of ``image`` to its pixels, ``(height, width, 3)``."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        made = Image.fromarray(pixels)
        made.getexif()[ExifTags.Base.Orientation] = orientation
        ImageOps.exif_transpose(made, in_place=True)
        pixels = np.asarray(made)
    return np.ascontiguousarray(pixels)


def _content_of_unloaded(image: Image.Image) -> bytes | None:
    """The bytes of the file whose first frame ``image`` is; None if the image is already in memory."""
    file = getattr(image, "fp", None)
    if file is None or is_drafted(image) or not is_unloaded(image) or image.tell():
        return None
    try:
        place = file.tell()
        file.seek(0)
        content = file.read()
        file.seek(place)
    except (OSError, ValueError):  # closed, or read from a stream
        return None
    return content


def _read_no_more(raw_mode: str) -> np.ndarray:
    raise ImageError("its file cannot be read again")


def _open(content: bytes) -> ImageFile.ImageFile:
    """Open without decoding. Raises `ImageError` for formats and kinds that are not known to be decoded correctly."""
    if _is_heif(content):
        return _open_heif(content)
    refuse_other_tiffs(content)
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        refuse_tiff(content)
        with Image.open(io.BytesIO(content)) as other:  # by any of Pillow's plug-ins, to learn the format's name
            name = other.format
    else:
        if image.format == "JPEG2000":
            refuse_deep_jpeg2000(content)
        return image
    if name == "EPS":  # Pillow would hand the program inside to Ghostscript
        raise ImageError("its content is PostScript, which is run rather than decoded; refused", OTHER_KIND)
    raise ImageError(
        f"its content is in the format {name}, which cannot be read here; save it as PNG or JPEG", OTHER_KIND
    )


def _read_as(content: bytes, raw_mode: str) -> np.ndarray:
    image = _open(content)
    take_for(image, raw_mode)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image)


def _is_heif(content: bytes) -> bool:
    brands = content[8 : min(int.from_bytes(content[:4], "big"), 256)]
    return content[4:8] == b"ftyp" and b"avif" not in brands and any(brand in brands for brand in _HEIF_BRANDS)


def _open_heif(content: bytes) -> ImageFile.ImageFile:
    """Open a HEIC file, the format of many phones."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            "it is a HEIC photograph, which cannot be read without the package pillow-heif: pip install pillow-heif",
            OTHER_KIND,
        ) from None
    return pillow_heif.HeifImageFile(io.BytesIO(content))

"""The faster decoder reads only what `load_jpeg` reads, to the same pixels: what fails here, an upgrade has changed."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import ExifTags, Image

from agnet.data import images
from agnet.data.decoding.jpeg_scans import decode_ordinary
from agnet.data.errors import ImageError
from agnet.data.images import decode_image

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
SIZES = [(1, 1), (7, 3), (16, 16), (17, 33), (61, 90), (160, 127)]


def jpeg(pixels, mode="RGB", **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **settings)
    return file.getvalue()


def ordinary(content):
    return decode_ordinary(Image.open(io.BytesIO(content)), content)


@pytest.fixture
def checked(monkeypatch):
    """`decode_image` without the faster decoder: pixels, or None for an error."""

    def decode(content):
        with monkeypatch.context() as patched:
            patched.setattr(images, "decode_ordinary", lambda image, content: None)
            try:
                return decode_image(content)
            except ImageError:
                return None

    return decode


@pytest.mark.parametrize("quality", [5, 50, 75, 95, 100])
@pytest.mark.parametrize("size", SIZES)
def test_both_decoders_make_the_same_pixels(size, quality, textured, checked):
    for optimize in (False, True):
        ways = {"quality": quality, "optimize": optimize}
        contents = [jpeg(textured(5, *size), subsampling="4:2:0", **ways)]
        contents += [jpeg(textured(5, *size), subsampling=one, progressive=True, **ways) for one in SUBSAMPLINGS]
        contents += [jpeg(textured(5, *size), "L", progressive=True, **ways)]
        for content in contents:
            assert np.array_equal(ordinary(content), checked(content))


def test_other_kinds_are_left_to_the_check(textured):
    pixels = textured(5, 90, 61)
    for content in (
        jpeg(pixels, "CMYK"),
        jpeg(pixels, "L"),
        jpeg(pixels, subsampling="4:4:4"),
        jpeg(pixels, subsampling="4:2:2"),
        jpeg(pixels, restart_marker_rows=1),
        simplejpeg.encode_jpeg(pixels, colorsubsampling="440"),
        simplejpeg.encode_jpeg(pixels, colorsubsampling="411"),
    ):
        assert ordinary(content) is None
        assert np.array_equal(decode_image(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def without_last_scan(content):
    scan = content.rindex(b"\xff\xda")
    return content[: max(scan - 200, content.rindex(b"\xff\xc4", 0, scan))] + b"\xff\xd9"


def with_surplus_restart(content):
    return content[:-2] + b"\xff\xd0\xff\xd9"


def with_zeros(content):
    """After a few holes, the codes come into step again at the right block."""
    holes = (content[:at] + bytes(20) + content[at + 20 :] for at in range(800, len(content) - 800))
    return next(hole for hole in holes if is_silent(hole))


def is_silent(content):
    try:
        return bool(simplejpeg.decode_jpeg(content, "RGB", strict=True).size)
    except ValueError:
        return False


@pytest.mark.parametrize("damage", [without_last_scan, with_surplus_restart, with_zeros])
def test_damage_without_a_warning_is_left_to_the_check(damage):
    pixels = np.random.default_rng(4).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    ways = {
        without_last_scan: {"progressive": True},
        with_surplus_restart: {"restart_marker_rows": 3},
        with_zeros: {"quality": 60},
    }
    content = damage(jpeg(pixels, **ways[damage]))
    assert is_silent(content) and ordinary(content) is None
    with pytest.raises(ImageError, match=r"cut off|damaged"):
        decode_image(content)


def test_what_the_faster_decoder_reads_of_damaged_files_the_check_reads_too(textured, checked):
    generator = np.random.default_rng(0)
    read = 0
    for number in range(40):
        ways = [{"subsampling": "4:2:0"}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}]
        content = jpeg(textured(number, 57, 40), quality=int(generator.integers(10, 100)), **ways[number % 4])
        first_data = content.index(b"\xff\xda") + 14
        for _ in range(25):
            at, count = int(generator.integers(first_data, len(content))), int(generator.integers(1, 20))
            damaged = (
                content[:at] + bytes([content[at] ^ 1 << int(generator.integers(8))]) + content[at + 1 :],
                content[:at] + generator.bytes(count) + content[at:],
                content[:at] + bytes(count) + content[at + count :],
                content[:at] + content[at + count :],
                content[:at] + b"\xff\xd9",
            )[int(generator.integers(5))]
            if (pixels := ordinary(damaged)) is not None:
                read += 1
                assert np.array_equal(pixels, checked(damaged))
    assert read > 80


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_applied_after_either_decoder(orientation, textured, checked):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = jpeg(textured(2, 64, 40), exif=exif)
    assert ordinary(content).shape == (40, 64, 3)
    made = decode_image(content)
    assert made.shape[:2] == ((64, 40) if 5 <= orientation <= 8 else (40, 64))
    assert np.array_equal(made, checked(content))


def test_a_rotated_jpeg_with_other_metadata_that_are_broken_is_read(textured, checked):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "maker"
    broken = exif.tobytes().replace(b"\x01\x0f\x00\x02", b"\x01\x07\x00\x02")  # a text in place of a number
    content = jpeg(textured(2, 64, 40), exif=broken)
    assert decode_image(content).shape == (64, 40, 3) and np.array_equal(decode_image(content), checked(content))

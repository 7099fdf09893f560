"""What is damaged is told, what is only unusual is read: decided by what came out of the file."""

import io
import re
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from agnet.data.errors import ImageError
from agnet.data.images import decode_image

END = b"\xff\xd9"
WAYS = {
    "baseline": {},
    "its colours as large as its grey": {"subsampling": 0},
    "its own Huffman codes": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts at every row": {"restart_marker_rows": 1},
    "restarts within rows": {"restart_marker_blocks": 4},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
}


def jpeg(pixels, mode="RGB", **ways):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **{"quality": 85, **ways})
    return file.getvalue()


def first_data(content):
    """Where the first scan's data begin."""
    header = content.index(b"\xff\xda")
    return header + 2 + int.from_bytes(content[header + 2 : header + 4], "big")


def pillows(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.fixture(params=WAYS)
def photograph(request, textured):
    return jpeg(textured(7, 157, 123), **WAYS[request.param])


def test_whole_jpegs_are_what_pillow_makes_of_them(photograph):
    assert np.array_equal(decode_image(photograph), pillows(photograph))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 5), (300, 2)])
def test_whole_jpegs_of_other_modes_and_sizes(mode, size, textured):
    for ways in WAYS.values():
        ways = {} if mode != "RGB" and "subsampling" in ways else ways
        content = jpeg(textured(3, *size), mode, **ways)
        assert np.array_equal(decode_image(content), pillows(content))


@pytest.mark.parametrize("white", [True, False])
def test_a_jpeg_whose_data_end_in_zeros_of_its_own_is_whole(white, textured):
    """Of its own codes the most frequent is all zeros, so that the plain part of a picture may be."""
    pixels = np.full((200, 200, 3), 255 if white else 0, dtype=np.uint8)
    pixels[:40] = textured(1, 200, 40)
    content = jpeg(pixels, optimize=True)
    assert np.array_equal(decode_image(content), pillows(content))


def test_a_jpeg_that_lacks_only_its_end_is_read(photograph):
    for less in (1, 2):
        assert np.array_equal(decode_image(photograph[:-less]), pillows(photograph))


@pytest.mark.parametrize(
    "added", [b"", b"abc", bytes(500), b"\xff" * 500], ids=["nothing", "three bytes", "zeros", "ones"]
)
def test_a_jpeg_with_padding_before_its_end_and_more_after_it_is_read(added, photograph):
    content = photograph[:-2] + added + END + b"other things" * 30
    assert np.array_equal(decode_image(content), pillows(photograph))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("tail", [b"", END, bytes(600), bytes(600) + END])
def test_a_jpeg_cut_off_is_damaged_however_it_is_closed(share, tail, photograph):
    begin = first_data(photograph)
    content = photograph[: begin + int(share * (len(photograph) - begin))] + tail
    with pytest.raises(ImageError, match=r"cut off|damaged"):
        decode_image(content)


def test_how_much_of_a_cut_jpeg_is_there_is_told(textured):
    content = jpeg(textured(7, 160, 320))
    half = decode_image(content)[:160]
    cut = first_data(content) + len(jpeg(half)) - first_data(jpeg(half))
    with pytest.raises(ImageError, match=r"its data end before its pixels do.*about (4\d|5\d)% of its rows are there"):
        decode_image(content[:cut] + END)


@pytest.mark.parametrize("way", WAYS)
def test_a_hole_in_a_jpeg_is_damage(way):
    """But for a few after which the codes come into step again at the right block: libjpeg hears nothing either."""
    told = 0
    for seed in range(8):
        generator = np.random.default_rng(seed)
        content = jpeg(generator.integers(0, 256, (120, 160, 3), dtype=np.uint8), quality=90, **WAYS[way])
        at = int(generator.integers(first_data(content), len(content) - 1000))
        for inside in (bytes(600), generator.bytes(600), b""):
            try:
                decode_image(content[:at] + inside + content[at + 600 :])
            except ImageError:
                told += 1
    assert told >= 21  # of 24


def test_restarts_that_are_missing_or_out_of_order_are_damage(textured):
    content = jpeg(textured(7, 160, 128), restart_marker_rows=1)
    first, second = (content.index(bytes([0xFF, 0xD0 + number])) for number in (0, 1))
    with pytest.raises(ImageError, match="7 of the 8 pieces of its data are there"):
        decode_image(content[:first] + content[second:])
    with pytest.raises(ImageError, match="out of order"):
        decode_image(content[: first + 1] + b"\xd1" + content[first + 2 : second + 1] + b"\xd0" + content[second + 2 :])


@pytest.mark.parametrize("closed", [b"", END])
def test_a_progressive_jpeg_cut_between_two_scans_is_damaged(closed, textured):
    content = jpeg(textured(7), progressive=True)
    scans = [found.start() for found in re.finditer(b"\xff\xda", content)]
    tables = content.rindex(b"\xff\xc4", 0, scans[4])
    with pytest.raises(ImageError, match="scans that complete its pixels are not in the file"):
        decode_image(content[:tables] + closed)


def test_a_jpeg_without_a_scan_is_damaged(textured):
    content = jpeg(textured(7))
    with pytest.raises(ImageError, match="no pixels"):
        decode_image(content[: content.index(b"\xff\xda")] + END)


def test_of_a_jpeg_with_several_pictures_the_first_counts(textured):
    file = io.BytesIO()
    first, second = textured(1), textured(2)
    Image.fromarray(first).save(file, "MPO", save_all=True, append_images=[Image.fromarray(second)])
    content = file.getvalue()
    assert np.array_equal(decode_image(content), pillows(content))
    end = content.index(b"\xff\xd9\xff\xd8")
    with pytest.raises(ImageError, match="cut off"):
        decode_image(content[: first_data(content) + 500] + content[end:])


def png_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_png_whose_pixels_are_all_there_is_read(textured):
    content = png_of(textured(1))
    for less in (12, 16, 18):  # without its end chunk, the last checksum, some of it
        assert np.array_equal(decode_image(content[:-less]), textured(1))


def stored_png(pixels):
    """Compressed at level 0, where nothing but checksums tells of other bytes."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *pixels.shape[1::-1], 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 0)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*chunks, (b"IEND", b"")]
    )


def test_a_png_with_other_pixels_than_its_checksum_says_is_damaged(textured):
    content = stored_png(textured(1))
    assert np.array_equal(decode_image(content), textured(1))
    middle = len(content) // 2
    with pytest.raises(ImageError, match="1 of its 1 chunks of pixels have a wrong checksum"):
        decode_image(content[:middle] + bytes(400) + content[middle + 400 :])


def test_a_png_whose_checksum_alone_is_wrong_is_read(textured):
    content = bytearray(stored_png(textured(1)))
    content[-13] ^= 1
    assert np.array_equal(decode_image(bytes(content)), textured(1))


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "PNG"])
def test_other_formats_cut_off_are_damaged(format_, textured):
    file = io.BytesIO()
    Image.fromarray(textured(1)).save(file, format_)
    content = file.getvalue()
    for share in (0.5, 0.9):
        with pytest.raises(ImageError):
            decode_image(content[: int(share * len(content))])


def test_a_png_that_unpacks_to_far_more_than_its_pixels_is_given_up():
    """Behind a checksum that is wrong; whether four gigabytes are a whole stream is not asked."""
    content = bytearray(png_of(np.zeros((8, 8, 3), dtype=np.uint8)))
    start = content.index(b"IDAT")
    packer = zlib.compressobj()
    first, again = (packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    body = first + again * 4095
    content[start - 4 :] = struct.pack(">I", len(body)) + b"IDAT" + body + bytes(4)
    begun = time.process_time()
    with pytest.raises(ImageError, match="a wrong checksum"):
        decode_image(bytes(content))
    assert time.process_time() - begun < 5  # all of it takes fifteen


def test_scans_of_more_than_there_can_be_are_no_work(textured):
    content = jpeg(textured(1), progressive=True)
    scan = content.index(b"\xff\xda")
    hostile = b"\xff\xda" + struct.pack(">HB", 2 + 1 + 510 + 3, 255) + bytes(range(255)) * 2 + bytes([0, 255, 0])
    begun = time.process_time()
    with pytest.raises(ImageError):
        decode_image(content[:scan] + hostile * 200 + content[scan:])
    assert time.process_time() - begun < 5  # one look at each coefficient that they name takes ten


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_zeros_among_a_jpegs_data_are_damage_wherever_they_are(mode):
    """Also where the decoder comes into step again at the right block, as it does after one of ten holes."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        pixels = generator.integers(0, 256, (80, 120, 3), dtype=np.uint8)
        pixels[50:] = 128
        content = jpeg(pixels, mode, quality=100)
        at = int(generator.integers(first_data(content), len(content) - 1500))
        with pytest.raises(ImageError, match=r"damaged|cut off"):
            decode_image(content[:at] + bytes(400) + content[at + 400 :])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_that_lacks_its_very_last_block_is_cut_off(mode):
    """Ones behind its end are read as the end of a block, so that a grey picture's last one seemed to be there."""
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        content = jpeg(pixels, mode, quality=90)
        with pytest.raises(ImageError, match="cut off"):
            decode_image(content[: len(content) - 2 - len(content) // 64] + END)


def test_restarts_nearer_than_the_decoder_looks_ahead_are_no_damage():
    """Of a progressive JPEG whose least bits come last: a piece is a byte, and there are too many to look at each."""
    for seed in range(12):
        pixels = np.random.default_rng(seed).integers(0, 256, (300, 260, 3), dtype=np.uint8)
        content = jpeg(pixels, "L", progressive=True, restart_marker_blocks=2)
        assert np.array_equal(decode_image(content), pillows(content))

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from agnet.data.errors import ImageError
from agnet.data.images import decode_image, read_image

ORIENTATION = 0x0112

# What a camera stores for a picture that should be seen as ``upright``, by the EXIF standard's wording of
# where the stored row 0 and column 0 belong.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}


def encoded(image, format, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image))
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def four_colours():
    """48 wide, 32 high: red, green over blue, yellow."""
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24] = 255, 0, 0
    upright[:16, 24:] = 0, 255, 0
    upright[16:, :24] = 0, 0, 255
    upright[16:, 24:] = 255, 255, 0
    return upright


def png_header(width, height):
    """A PNG file that announces a size, begins its pixels and ends there."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return header + struct.pack(">I", 1000) + b"IDAT" + zlib.compress(b"\0" * 100)


def packed_tiff(values, bits):
    """A grey TIFF file of one row, its samples packed to ``bits`` bits."""
    stream = "".join(f"{value:0{bits}b}" for value in values)
    stream += "0" * (-len(stream) % 8)
    pixels = bytes(int(stream[at : at + 8], 2) for at in range(0, len(stream), 8))
    short, long = 3, 4
    tags = [
        (256, short, len(values)),  # width
        (257, short, 1),  # height
        (258, short, bits),
        (259, short, 1),  # no compression
        (262, short, 1),  # black is 0
        (273, long, 8),  # where the pixels are
        (277, short, 1),  # samples of a pixel
        (278, short, 1),  # rows of a strip
        (279, long, len(pixels)),
    ]
    pixels += b"\0" * (len(pixels) % 2)
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<H2x" if kind == short else "<I", value)
        for tag, kind, value in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_every_exif_orientation_comes_out_upright(orientation):
    upright = four_colours()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(STORED[orientation](upright), "JPEG", quality=95, subsampling=0, exif=exif)
    decoded = decode_image(content)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() < 8


def heic(image, exif=None):
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    made = Image.fromarray(np.ascontiguousarray(image))
    pillow_heif.from_pillow(made).save(file, quality=95, exif=exif.tobytes() if exif else None)
    return file.getvalue()


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_telephones_photographs_are_read_and_upright(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    decoded = decode_image(heic(STORED[orientation](four_colours()), exif))
    assert decoded.shape == (32, 48, 3)
    assert np.abs(decoded.astype(int) - four_colours()).max() < 8


def test_heic_obeys_the_pixel_limit_lays_opacity_over_white_and_tells_damage():
    opaque = np.full((32, 48, 1), 128, dtype=np.uint8)
    content = heic(np.concatenate([four_colours(), opaque], axis=2))
    assert np.abs(decode_image(content)[2, 2].astype(int) - (255, 127, 127)).max() < 8
    with pytest.raises(ImageError, match="48 x 32 pixels, more than the limit"):
        decode_image(content, max_pixels=100)
    with pytest.raises(ImageError, match="not a readable image"):
        decode_image(content[:-100])


def test_heic_without_its_reader_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brand in (b"heic", b"mif1"):
        content = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic"
        with pytest.raises(ImageError, match=r"HEIC photograph.*pip install pillow-heif"):
            decode_image(content)


def test_rgb_pixels_come_out_as_they_are(textured):
    pixels = textured(1, 37, 23)
    decoded = decode_image(encoded(pixels, "PNG"))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert np.array_equal(decoded, pixels)


def test_grey_becomes_three_equal_channels():
    grey = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert np.array_equal(decode_image(encoded(grey, "PNG")), np.stack([grey] * 3, axis=-1))


def test_black_and_white_becomes_0_and_255():
    bits = np.eye(8, dtype=bool)
    assert np.array_equal(decode_image(encoded(Image.fromarray(bits), "PNG"))[..., 1], bits * 255)


def test_cmyk_becomes_rgb():
    ink = np.zeros((16, 32, 4), dtype=np.uint8)
    ink[:, :16, 0] = 255  # cyan swallows red
    ink[:, 16:, 3] = 255  # black swallows all
    decoded = decode_image(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(decoded[8, 4] - (0, 255, 255)).max() < 8
    assert np.abs(decoded[8, 28]).max() < 8


def test_transparent_palette_entries_show_white():
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putpixel((3, 1), 0)
    decoded = decode_image(encoded(image, "PNG", transparency=0))
    assert decoded[1, 3].tolist() == [255, 255, 255]
    assert decoded[0, 0].tolist() == [200, 10, 20]


def test_transparency_is_laid_over_white():
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 3] = 0, 128, 255
    assert np.abs(decode_image(encoded(pixels, "PNG"))[0, :, 0].astype(int) - (255, 127, 0)).max() <= 1


def test_grey_with_transparency_is_laid_over_white():
    pixels = np.array([[(10, 0), (10, 255)]], dtype=np.uint8)
    assert decode_image(encoded(Image.fromarray(pixels, "LA"), "PNG"))[0].tolist() == [[255] * 3, [10] * 3]


def test_16_bit_png_keeps_its_tones():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(4, 16)
    decoded = decode_image(encoded(Image.fromarray(values), "PNG"))
    assert np.abs(decoded[..., 2] - values / 257).max() <= 1


@pytest.mark.parametrize("bits", [12, 16])
def test_tiff_of_12_and_16_bits_keeps_its_tones(bits):
    values = np.linspace(0, 2**bits - 1, 20).astype(int).tolist()
    # Samples of whole bytes follow the file's byte order, here the little end first; packed ones do not.
    turned = [(value >> 8 | value << 8) & 0xFFFF for value in values]
    decoded = decode_image(packed_tiff(turned if bits == 16 else values, bits))
    assert decoded.shape == (1, 20, 3)
    assert np.abs(decoded[0, :, 0] - np.array(values) * 255 / (2**bits - 1)).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([7.0, 7.0, 7.0], [7, 7, 7]),
    ],
)
def test_float_images_map_to_8_bits_by_their_range(values, expected):
    content = encoded(np.array([values], dtype=np.float32), "TIFF")
    assert np.abs(decode_image(content)[0, :, 0].astype(int) - expected).max() <= 1


def test_a_float_image_with_nan_is_an_error():
    with pytest.raises(ImageError, match="not finite"):
        decode_image(encoded(np.array([[0.0, np.nan]], dtype=np.float32), "TIFF"))


def test_of_an_animation_the_first_frame_counts():
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    decoded = decode_image(encoded(red, "GIF", save_all=True, append_images=[blue], duration=100))
    assert (decoded == (255, 0, 0)).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_an_error(format, textured):
    content = encoded(textured(2), format)
    assert decode_image(content).shape == (120, 160, 3)
    with pytest.raises(ImageError):
        decode_image(content[: len(content) // 2])


def test_an_empty_file_is_an_error():
    with pytest.raises(ImageError, match="empty"):
        decode_image(b"")


def test_a_text_file_is_an_error():
    with pytest.raises(ImageError, match="not in a supported image format"):
        decode_image(b"<html>404 Not Found</html>\n" * 20)


@pytest.mark.parametrize("size", [(20_000, 6_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_announces_too_many_pixels_is_refused(size):
    with pytest.raises(ImageError, match="header announces"):
        decode_image(png_header(*size))


def test_the_pixel_limit_is_the_largest_size_allowed(textured):
    content = encoded(textured(3, 10, 7), "PNG")
    assert decode_image(content, max_pixels=70).shape == (7, 10, 3)
    with pytest.raises(ImageError, match="10 x 7 pixels, more than the limit of 69"):
        decode_image(content, max_pixels=69)


def test_postscript_is_refused_rather_than_run():
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ImageError, match="PostScript"):
        decode_image(program)


def test_an_error_names_the_file(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    for name in ("notes.jpg", "absent.jpg", "."):
        with pytest.raises(ImageError, match=str((tmp_path / name).name)):
            read_image(tmp_path / name)


def test_a_file_is_known_by_its_content_not_its_name(tmp_path):
    (tmp_path / "picture.jpg").write_bytes(encoded(four_colours(), "PNG"))
    assert np.array_equal(read_image(tmp_path / "picture.jpg"), four_colours())

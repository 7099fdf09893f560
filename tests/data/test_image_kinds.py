"""Every kind of sample that a format has is read right, or refused by name; truths are the values that went in."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from agnet.data.errors import ImageError
from agnet.data.images import decode_image, pixels_of

HEIGHT, WIDTH = 9, 13
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
ASSOCIATED, UNASSOCIATED = 1, 2
DEFLATE = 8


def drawn(bits, *shape):
    """Values of all sizes, the smallest and the largest among them."""
    values = np.random.default_rng([bits, *shape]).integers(0, 2**bits, (HEIGHT, WIDTH, *shape))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values


def turned(content):
    """Bytes whose bits come last first."""
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in content)


def packed(values, bits, order="<"):
    """Rows of samples, each begun on a byte; what is longer than one follows ``order``, unless it is packed."""
    if bits % 8 == 0:
        return values.astype(f"{order}u{bits // 8}").tobytes()
    rows = []
    for row in values.reshape(len(values), -1).tolist():
        stream = "".join(f"{value:0{bits}b}" for value in row)
        stream += "0" * (-len(stream) % 8)
        rows.append(bytes(int(stream[at : at + 8], 2) for at in range(0, len(stream), 8)))
    return b"".join(rows)


def tiff(strips, bits, photometric, samples=1, order="<", size=(WIDTH, HEIGHT), **more):
    """A TIFF file. ``more`` are tags by their names in `NUMBERS`."""
    numbers = {"subfile": 254, "compression": 259, "fill": 266, "orientation": 274, "planar": 284, "palette": 320}
    numbers |= {"inks": 332, "extra": 338, "format": 339, "subsampling": 530, "dng": 50706}
    short, long = 3, 4
    tags = {256: (long, [size[0]]), 257: (long, [size[1]]), 258: (short, [bits] * samples), 259: (short, [1])}
    tags |= {
        262: (short, [photometric]),
        277: (short, [samples]),
        278: (long, [size[1]]),
        273: (long, [0] * len(strips)),
    }
    tags |= {279: (long, [len(strip) for strip in strips])}
    tags |= {numbers[name]: (short, list(value)) for name, value in more.items()}
    letters = {short: "H", long: "I"}
    place = 8 + 2 + 12 * len(tags) + 4
    outside = sum(len(values) * struct.calcsize(letters[kind]) for kind, values in tags.values()) + place
    tags[273] = (long, [outside + sum(map(len, strips[:number])) for number in range(len(strips))])
    entries, values_outside = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        where = struct.pack(f"{order}I", place + len(values_outside)) if len(content) > 4 else content.ljust(4, b"\0")
        values_outside += content if len(content) > 4 else b""
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + where
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags))
    return (head + entries + b"\0" * 4 + values_outside).ljust(outside, b"\0") + b"".join(strips)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(values, depth, kind, interlaced=False, **chunks):
    """A PNG file without filters; ``values`` ``(height, width, samples)``."""
    height, width = values.shape[:2]
    passes = [values[y::down, x::across] for x, y, across, down in ADAM7] if interlaced else [values]
    stream = b"".join(b"\0" + packed(row[None], depth, ">") for part in passes for row in part if row.size)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))
    others = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + head + others + chunk(b"IDAT", zlib.compress(stream)) + chunk(b"IEND", b"")


def over_white(shares):
    """Colours and opacity from 0 to 1 -> what is seen, 0 to 255."""
    return 255 * (shares[..., :-1] * shares[..., -1:] + 1 - shares[..., -1:])


def assert_shows(content, expected):
    decoded = decode_image(content)
    expected = np.broadcast_to(expected if expected.ndim == 3 else expected[..., None], decoded.shape)
    assert np.abs(decoded - expected.astype(float)).max() <= 1


@pytest.mark.parametrize(("compression", "order"), [*itertools.product((1, DEFLATE), "<>")])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_tiffs_of_every_depth(bits, compression, order):
    values = drawn(bits)
    content = packed(values, bits, order)
    content = zlib.compress(content) if compression == DEFLATE else content
    assert_shows(
        tiff([content], bits, BLACK_IS_0, order=order, compression=[compression]), values * 255 / (2**bits - 1)
    )


@pytest.mark.parametrize("compression", [1, DEFLATE])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiffs_whose_white_is_0_and_those_with_a_palette(bits, compression):
    values = drawn(bits)
    content = zlib.compress(packed(values, bits)) if compression == DEFLATE else packed(values, bits)
    white = tiff([content], bits, WHITE_IS_0, compression=[compression])
    assert_shows(white, 255 - values * 255 / (2**bits - 1))
    colours = np.random.default_rng(0).integers(0, 256, (3, 2**bits))
    coloured = tiff([content], bits, PALETTE, palette=(colours * 257).ravel(), compression=[compression])
    assert_shows(coloured, colours.T[values])


@pytest.mark.parametrize("bits", [1, 4, 16])
def test_tiffs_whose_bits_come_last_first(bits):
    values = drawn(bits)
    assert_shows(tiff([turned(packed(values, bits))], bits, BLACK_IS_0, fill=[2]), values * 255 / (2**bits - 1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
def test_tiffs_by_other_compressions(compression, order):
    grey, colours, deep = drawn(8), drawn(8, 3), drawn(16)
    for values, made in (
        (grey, Image.fromarray(grey.astype(np.uint8))),
        (colours, Image.fromarray(colours.astype(np.uint8))),
        (deep / 257, Image.fromarray(deep.astype(f"{order}u2"))),
    ):
        file = io.BytesIO()
        made.save(file, "TIFF", compression=compression)
        assert_shows(file.getvalue(), values)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4", "packbits"])
def test_facsimiles(compression):
    bits, file = drawn(1), io.BytesIO()
    Image.fromarray(bits.astype(bool)).save(file, "TIFF", compression=compression)
    assert_shows(file.getvalue(), bits * 255)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_compressed_tiff_of_brightness_and_halved_colours(order):
    """Units of 2 x 2 values of brightness and a pair of colours, to RGB by JPEG's (JFIF's) matrix."""
    generator = np.random.default_rng(0)
    bright = generator.integers(60, 190, (8, 12))
    blue, red = generator.integers(110, 146, (2, 4, 6))
    units = [[*bright[y : y + 2, x : x + 2].ravel(), blue[y // 2, x // 2], red[y // 2, x // 2]]
             for y in range(0, 8, 2) for x in range(0, 12, 2)]  # fmt: skip
    content = zlib.compress(np.array(units, dtype=np.uint8).tobytes())
    tags = {"compression": [DEFLATE], "subsampling": [2, 2]}
    file = tiff([content], 8, YCBCR, 3, order, (12, 8), **tags)
    blue, red = (np.repeat(np.repeat(half, 2, axis=0), 2, axis=1) - 128 for half in (blue, red))
    shown = [bright + 1.402 * red, bright - 0.344136 * blue - 0.714136 * red, bright + 1.772 * blue]
    assert_shows(file, np.stack(shown, axis=-1))


COLOURS = {  # samples of a pixel, kinds of those beyond the colours, what is seen of shares from 0 to 1
    "RGB": (RGB, 3, (), lambda shares: 255 * shares),
    "RGB and something else": (RGB, 4, (0,), lambda shares: 255 * shares[..., :3]),
    "RGB and opacity": (RGB, 4, (UNASSOCIATED,), over_white),
    "RGB times opacity": (RGB, 4, (ASSOCIATED,), lambda shares: 255 * (shares[..., :3] + 1 - shares[..., 3:])),
    "CMYK": (CMYK, 4, (), lambda shares: 255 * (1 - shares[..., :3]) * (1 - shares[..., 3:])),
}


@pytest.mark.parametrize(("bits", "compression", "order"), [*itertools.product((8, 16), (1, DEFLATE), "<>")])
@pytest.mark.parametrize("colours", COLOURS)
def test_coloured_tiffs_are_within_one_of_what_went_in(colours, bits, compression, order):
    photometric, samples, extra, seen = COLOURS[colours]
    values = drawn(bits, samples)
    if ASSOCIATED in extra:
        values[..., :3] = values[..., :3] * values[..., 3:] // (2**bits - 1)
    content = packed(values, bits, order)
    content = zlib.compress(content) if compression == DEFLATE else content
    tags = {"extra": extra} if extra else {}
    file = tiff([content], bits, photometric, samples, order, compression=[compression], **tags)
    assert_shows(file, seen(values / (2**bits - 1)))


def in_planes(values, bits, order="<", compression=1):
    planes = [packed(values[..., plane], bits, order) for plane in range(values.shape[2])]
    return [zlib.compress(plane) for plane in planes] if compression == DEFLATE else planes


@pytest.mark.parametrize(("bits", "compression", "order"), [*itertools.product((8, 16), (1, DEFLATE), "<>")])
def test_separate_planes_are_right_or_refused_by_name(bits, compression, order):
    values = drawn(bits, 3)
    strips = in_planes(values, bits, order, compression)
    content = tiff(strips, bits, RGB, 3, order, compression=[compression], planar=[2])
    if bits == 16 and compression == 1:
        with pytest.raises(ImageError, match=r"RGB, unsigned, 16 bits, 3 samples a pixel, in separate planes.*cannot"):
            decode_image(content)
    else:
        assert_shows(content, values * 255 / (2**bits - 1))


@pytest.mark.parametrize("orientation", [6, 7])
def test_a_deep_tiff_with_opacity_comes_out_upright(orientation):
    values = drawn(16, 4)
    content = tiff([packed(values, 16)], 16, RGB, 4, extra=[UNASSOCIATED], orientation=[orientation])
    upright = over_white(values / 65535).transpose(1, 0, 2)
    assert_shows(content, upright[:, ::-1] if orientation == 6 else upright[::-1, ::-1])


@pytest.mark.parametrize(
    ("dtype", "format_", "order", "compression"),
    [("u4", 1, "<", 1), ("i2", 2, "<", 1), ("i2", 2, ">", 1), ("i4", 2, ">", 1), ("i4", 2, "<", DEFLATE)],
)
def test_numbers_without_a_white_point_are_stretched_from_their_least_to_their_greatest(
    dtype, format_, order, compression
):
    limits = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.min, limits.max, (HEIGHT, WIDTH), endpoint=True, dtype=dtype)
    values[0, :2] = limits.min, limits.max
    content = values.astype(order + dtype).tobytes()
    content = zlib.compress(content) if compression == DEFLATE else content
    bits = 8 * values.itemsize
    file = tiff([content], bits, BLACK_IS_0, order=order, compression=[compression], format=[format_])
    assert_shows(file, (values.astype(float) - limits.min) * 255 / (limits.max - limits.min))


SHORTS = packed(drawn(16), 16)
LONGS = packed(drawn(32), 32)
REFUSED = {
    "grey with white as 0, unsigned, 16 bits": tiff([SHORTS], 16, WHITE_IS_0),
    "grey with white as 0, float": tiff([LONGS], 32, WHITE_IS_0, format=[3]),
    "grey, signed, 8 bits": tiff([packed(drawn(8), 8)], 8, BLACK_IS_0, format=[2]),
    "grey, signed, 16 bits, .*compression 8, big end": tiff(
        [zlib.compress(SHORTS)], 16, BLACK_IS_0, order=">", compression=[DEFLATE], format=[2]
    ),
    "grey, float, 32 bits, .*big end first": tiff(
        [zlib.compress(LONGS)], 32, BLACK_IS_0, order=">", compression=[DEFLATE], format=[3]
    ),
    "grey, float, 64 bits": tiff([LONGS * 2], 64, BLACK_IS_0, format=[3]),
    "RGB, float, 32 bits": tiff([packed(drawn(32, 3), 32)], 32, RGB, 3, format=[3] * 3),
    "RGB, unsigned, 16 bits, 4 samples a pixel, in separate planes": tiff(
        in_planes(drawn(16, 4), 16, compression=DEFLATE), 16, RGB, 4, planar=[2], extra=[2], compression=[DEFLATE]
    ),
    "RGB, unsigned, 8 bits, 4 samples a pixel, in separate planes": tiff(
        in_planes(drawn(8, 4), 8, compression=DEFLATE), 8, RGB, 4, planar=[2], extra=[1], compression=[DEFLATE]
    ),
    "grey, unsigned, 8 bits, 2 samples a pixel, in separate planes": tiff(
        in_planes(drawn(8, 2), 8, compression=DEFLATE), 8, BLACK_IS_0, 2, planar=[2], extra=[2], compression=[DEFLATE]
    ),
    "CMYK, unsigned, 16 bits, 4 samples a pixel, in separate planes": tiff(
        in_planes(drawn(16, 4), 16), 16, CMYK, 4, planar=[2]
    ),
    "CMYK, unsigned, 8 bits": tiff([packed(drawn(8, 4), 8)], 8, CMYK, 4, inks=[2]),
    "YCbCr, unsigned, 8 bits": tiff([packed(drawn(8, 3), 8)], 8, YCBCR, 3, subsampling=[1, 1]),
    "Lab, ": tiff([packed(drawn(8, 3), 8)], 8, 8, 3),
    "ICC Lab": tiff([packed(drawn(8, 3), 8)], 8, 9, 3),
    "a transparency mask": tiff([packed(drawn(1), 1)], 1, 4),
    "photometric interpretation 77": tiff([packed(drawn(8), 8)], 8, 77),
    "compression 6": tiff([packed(drawn(8), 8)], 8, BLACK_IS_0, compression=[6]),
    "palette has 8 bits": tiff([packed(drawn(8), 8)], 8, PALETTE, palette=[*range(256)] * 3),
    "camera's raw": tiff([packed(drawn(8, 3), 8)], 8, RGB, 3, subfile=[1]),
    "a camera's raw": tiff([packed(drawn(8, 3), 8)], 8, RGB, 3, dng=[1]),
}


def test_of_a_thousand_depths_a_few_are_named():
    broken = tiff([packed(drawn(8), 8)], 8, BLACK_IS_0, format=range(1, 1000))
    with pytest.raises(ImageError) as raised:
        decode_image(broken)
    assert "unsigned and signed and float and undefined and others, 8 bits" in str(raised.value)


def test_an_image_that_pillow_has_loaded_is_as_its_file():
    """What the file says of its numbers is not lost by loading, or by turning upright."""
    files = [
        tiff([packed(drawn(12), 12)], 12, BLACK_IS_0, orientation=[6]),
        tiff([packed(drawn(16), 16)], 16, BLACK_IS_0, orientation=[7]),
        tiff([LONGS], 32, BLACK_IS_0, format=[2]),
        tiff([LONGS], 32, BLACK_IS_0, format=[1], orientation=[3]),
        png(drawn(8, 4), 8, 6),
    ]
    for content in files:
        image = Image.open(io.BytesIO(content))
        unloaded = pixels_of(image)
        assert np.array_equal(unloaded, decode_image(content))
        assert image.fp is None or not image.tile  # loaded by now
        assert np.array_equal(pixels_of(image), unloaded)


def test_of_a_draft_the_draft_counts():
    file = io.BytesIO()
    Image.fromarray(drawn(8, 3).astype(np.uint8)).resize((160, 80)).save(file, "JPEG")
    image = Image.open(file)
    image.draft("RGB", (40, 20))
    assert pixels_of(image).shape == (20, 40, 3)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_tiffs_are_refused_by_name_with_a_remedy(kind):
    with pytest.raises(ImageError, match=rf"{kind}.*; (save it as|develop it to)"):
        decode_image(REFUSED[kind])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), [*itertools.product((0,), (1, 2, 4, 8, 16)), (2, 8), (2, 16)])
def test_the_transparent_colour_of_a_png_is_that_colour_and_no_other(kind, depth, interlaced):
    values = drawn(depth, 1 if kind == 0 else 3)
    colour = values[3, 4].copy()
    values[5, 6] = colour ^ 1  # its neighbour
    shown = np.where((values == colour).all(axis=-1, keepdims=True), 255, values * 255 / (2**depth - 1))
    content = png(values, depth, kind, interlaced, tRNS=colour.astype(">u2").tobytes())
    assert_shows(content, shown)
    assert (decode_image(content)[3, 4] == 255).all()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), [(4, 8), (4, 16), (6, 8), (6, 16)])
def test_opacity_of_8_and_16_bits_is_laid_over_white(kind, depth, interlaced):
    values = drawn(depth, 2 if kind == 4 else 4)
    assert_shows(png(values, depth, kind, interlaced), over_white(values / (2**depth - 1)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_with_opacity_is_laid_over_white(depth):
    values = drawn(depth, 1)
    palette = np.random.default_rng(0).integers(0, 256, (2**depth, 4))
    palette[0, 3] = 0
    content = png(
        values, depth, 3, PLTE=palette[:, :3].astype("u1").tobytes(), tRNS=palette[:, 3].astype("u1").tobytes()
    )
    assert_shows(content, over_white(palette / 255)[values[..., 0]])


@pytest.mark.parametrize("largest", [1, 7, 255, 1000, 4095, 65535])
@pytest.mark.parametrize("dark", [1, 64])
def test_a_portable_map_is_spread_by_the_largest_value_that_it_names(largest, dark):
    values = np.random.default_rng(0).integers(0, largest + 1, (HEIGHT, WIDTH, 3)) // dark
    kind = ">u2" if largest > 255 else "u1"
    head = f"{WIDTH} {HEIGHT}\n{largest}\n".encode()
    assert_shows(b"P6\n" + head + values.astype(kind).tobytes(), values * 255 / largest)
    assert_shows(b"P5\n" + head + values[..., 0].astype(kind).tobytes(), values[..., 0] * 255 / largest)


def bmp(bits, rows, compression=0, masks=(), header=40):
    """A Windows bitmap, its last row first."""
    data = b"".join(row + b"\0" * (-len(row) % 4) for row in rows[::-1])
    head = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, bits, compression, len(data), 0, 0, 0, 0)
    head += struct.pack(f"<{len(masks)}I", *masks).ljust(header - 40, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def test_bitmaps_of_16_and_32_bits():
    values = drawn(8, 4)
    rows = [values[row][:, [2, 1, 0, 3]].astype("u1").tobytes() for row in range(HEIGHT)]
    assert_shows(bmp(32, rows), values[..., :3])  # the fourth byte means nothing here, and opacity there
    assert_shows(bmp(32, rows, 3, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 108), over_white(values / 255))
    five, six = values >> 3, values[..., 1] >> 2
    packed_555 = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
    assert_shows(bmp(16, [row.astype("<u2").tobytes() for row in packed_555]), five[..., :3] * 255 / 31)
    packed_565 = five[..., 0] << 11 | six << 5 | five[..., 2]
    shown = np.stack([five[..., 0] / 31, six / 63, five[..., 2] / 31], axis=-1) * 255
    assert_shows(bmp(16, [row.astype("<u2").tobytes() for row in packed_565], 3, (0xF800, 0x7E0, 0x1F)), shown)


def test_a_deep_jpeg_2000_is_right_in_grey():
    values = drawn(16)
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(file, "JPEG2000", irreversible=False, num_resolutions=1)
    assert_shows(file.getvalue(), values / 257)


def test_a_deep_jpeg_2000_in_colour_is_refused():
    """Of a white of 10 bits Pillow makes black. The header alone tells."""
    file = io.BytesIO()
    Image.fromarray(drawn(8, 3).astype(np.uint8)).save(file, "JPEG2000", no_jp2=True)
    content = bytearray(file.getvalue())
    size = content.index(b"\xff\x51")
    assert content[size + 40 : size + 49 : 3] == b"\x07\x07\x07"  # bits less one
    content[size + 40 : size + 49 : 3] = b"\x09\x09\x09"
    with pytest.raises(ImageError, match="JPEG 2000 of 3 channels of 10 bits, which cannot be read here; save"):
        decode_image(bytes(content))


@pytest.mark.parametrize("format_", ["TGA", "SGI", "PCX", "DDS"])
def test_formats_that_nobody_tried_are_refused_by_name(format_):
    file = io.BytesIO()
    Image.fromarray(drawn(8, 3).astype(np.uint8)).save(file, format_)
    with pytest.raises(ImageError, match=f"the format {format_}, which cannot be read here; save it as PNG"):
        decode_image(file.getvalue())


@pytest.mark.parametrize("format_", ["WEBP", "AVIF"])
def test_opacity_of_other_formats_is_laid_over_white(format_):
    values = np.empty((16, 16, 4), dtype=np.uint8)
    values[:, :8], values[:, 8:] = (200, 40, 90, 255), (200, 40, 90, 51)
    file = io.BytesIO()
    Image.fromarray(values).save(file, format_, quality=100, **({"lossless": True} if format_ == "WEBP" else {}))
    shown = over_white(values / 255)
    assert np.abs(decode_image(file.getvalue()) - shown)[2:-2].max() <= 6

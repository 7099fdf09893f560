"""Pillow itself, made to do and say what `pillow_internals` counts on: what fails here, an upgrade has changed."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from agnet.data.decoding.pillow_internals import (
    Decoder,
    end_loading,
    is_out_of_memory,
    is_unloaded,
    raw_mode_of,
    rows_made,
    take_for,
)
from agnet.data.errors import ImageError


def opened(content):
    return Image.open(io.BytesIO(content))


def jpeg(textured, **settings):
    file = io.BytesIO()
    Image.fromarray(textured(0, 96, 64)).save(file, "JPEG", quality=90, **settings)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_decoder_fed_by_hand_makes_the_pixels_that_loading_makes(textured, progressive):
    content = jpeg(textured, progressive=progressive)
    image = opened(content)
    assert is_unloaded(image)
    decoder = Decoder(image)
    for at in range(0, len(content), 100):
        assert not decoder.finished
        decoder.feed(content[at : at + 100])
    assert decoder.finished and decoder.feed(b"more")
    end_loading(image)
    assert not is_unloaded(image) and np.array_equal(np.asarray(image), np.asarray(opened(content)))


def test_a_decoder_keeps_what_it_has_no_use_for_yet_and_says_so(textured):
    content = jpeg(textured)
    image = opened(content)
    decoder = Decoder(image)
    assert rows_made(image) == 0
    half = len(content) * 2 // 3
    decoder.feed(content[:half])
    assert not decoder.finished and 0 < rows_made(image) < image.height
    assert not decoder.feed(content[half : half + 1])  # a byte may be half a code
    decoder.feed(content[half + 1 :])
    assert decoder.finished and rows_made(image) == image.height


def test_what_no_pixels_can_be_made_of_is_a_decoders_error(textured):
    content = jpeg(textured)
    tables = content.index(b"\xff\xc4")
    decoder = Decoder(opened(content))
    with pytest.raises(ImageError, match="broken"):
        decoder.feed(content[:tables] + b"\xff\xc4\x00\x03\xff" + content[tables:])


def test_samples_can_be_taken_for_others_while_they_are_not_loaded():
    values = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3) * 257 + 3
    content = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    assert raw_mode_of(opened(content)) == "RGB;16B"
    for raw_mode, wanted in (("RGB;16B", values >> 8), ("RGB;16L", values & 255)):
        image = opened(content)
        take_for(image, raw_mode)
        assert raw_mode_of(image) == raw_mode
        assert np.array_equal(np.asarray(image), wanted)
    image.load()
    assert raw_mode_of(image) == "" == raw_mode_of(Image.new("RGB", (2, 2)))


def test_a_decoders_want_of_memory_is_known_by_its_words(monkeypatch):
    class Full(ImageFile.PyDecoder):
        """Says what libjpeg, libtiff and the others say when they get no memory: `IMAGING_CODEC_MEMORY`."""

        def decode(self, buffer):
            return -1, -9

    monkeypatch.setitem(Image.DECODERS, "full", Full)
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PPM")
    image = opened(file.getvalue())
    image.tile = [image.tile[0]._replace(codec_name="full")]
    with pytest.raises(OSError) as caught:
        image.load()
    assert is_out_of_memory(caught.value)
    with pytest.raises(OSError) as caught:
        opened(file.getvalue()[:-3]).load()
    assert not is_out_of_memory(caught.value)

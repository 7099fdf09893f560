"""Pictures that are drawn once, as pixels and as SVG."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from agnet.data.canvas import Canvas
from agnet.data.images import read_image

SVG = "{http://www.w3.org/2000/svg}"


def test_pixels_and_svg_hold_the_same_shapes():
    canvas = Canvas(60, 40)
    canvas.rectangle((10, 5, 30, 15), "#ff0000")
    canvas.rectangle((50, 5, 50, 15), "#ff0000")  # empty
    canvas.polygon([(40, 20), (60, 20), (60, 40), (40, 40)], "#0000ff")
    canvas.line([(0, 30.5), (30, 30.5)], "#00ff00", 3)
    photograph = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    canvas.photograph((2, 20), photograph)
    pixels = canvas.pixels()
    red = np.zeros((40, 60), bool)
    red[5:15, 10:30] = True
    assert pixels.shape == (40, 60, 3) and ((pixels == (255, 0, 0)).all(axis=2) == red).all()
    assert (pixels[22:38, 42:58] == (0, 0, 255)).all() and (pixels[30, 2:28] == (0, 255, 0)).all()
    assert (pixels[20:26, 2:10] == photograph).all() and (pixels[0] == 255).all()
    root = ElementTree.fromstring(canvas.svg())
    _, box = root.findall(f"{SVG}rect")  # after the paper
    assert [box.get(name) for name in ("x", "y", "width", "height")] == ["10", "5", "20", "10"]
    assert root.find(f"{SVG}polygon").get("points") == "40,20 60,20 60,40 40,40"
    image = root.find(f"{SVG}image")
    embedded = Image.open(io.BytesIO(base64.b64decode(image.get("href").partition(",")[2])))
    assert (image.get("x"), image.get("y")) == ("2", "20") and (np.asarray(embedded) == photograph).all()


def test_texts_stay_texts_whatever_they_hold():
    canvas = Canvas(200, 40)
    hostile = '</text><script>alert("&")</script>\x07'
    canvas.text((190, 30), hostile, 14, "#000000", "rs")
    canvas.text((0, 0), "", 14, "#000000")
    root = ElementTree.fromstring(canvas.svg())
    (text,) = root.findall(f"{SVG}text")
    assert text.text == hostile.replace("\x07", "\ufffd") and len(root) == 2  # with the paper
    assert (text.get("x"), text.get("y"), text.get("text-anchor")) == ("190", "30", "end")


def test_both_files_are_saved(tmp_path):
    canvas = Canvas(30, 20)
    path = canvas.save(tmp_path / "a.png")
    assert read_image(path).shape == (20, 30, 3)
    assert path.with_suffix(".svg").read_text(encoding="utf-8") == canvas.svg()

"""Figures of attention: what is drawn and counted is what the network weighs."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torch import nn

from agnet.data.errors import ConfigurationError, ImageError
from agnet.data.inputs import Input
from agnet.training.answers.attention_figure import attention_figure, evenly
from agnet.training.machine.devices import choose_device
from agnet.training.models.contract import Output
from agnet.training.models.settings import PlainSettings


class Looks(nn.Module):
    """A network of images that looks at the brightest of 2 x 2 places, the surer the brighter it is."""

    inputs = ("images",)
    size_hw = input_hw = (32, 32)
    backbones = ()

    def forward(self, images):
        maps = nn.functional.adaptive_avg_pool2d(images.float().mean(dim=1), 2)
        logits = maps.flatten(1)[:, :3]
        return Output(logits, attention_map=(maps / 50).flatten(1).softmax(dim=1).view_as(maps))


class LooksNowhere(Looks):
    def forward(self, images):
        return super().forward(images)._replace(attention_map=None)


@pytest.fixture
def look(untrained):
    checkpoint = untrained(PlainSettings(3, "mobilenet-v3-small"))

    def figure(files, model=Looks, frames=4):
        inputs = [Input(str(file)) for file in files]
        changed = replace(checkpoint, model=model().eval())
        return attention_figure(changed, inputs, choose_device("cpu"), None, None, frames, "run")

    return figure


@pytest.fixture
def corners(tmp_path):
    """Photographs of different sizes with a bright lower left corner, and with a less bright upper right one."""
    for name, size_hw, (rows, columns), brightness in (
        ("left.png", (40, 60), (slice(20, 40), slice(0, 30)), 250),
        ("right.png", (60, 40), (slice(0, 30), slice(20, 40)), 120),
    ):
        pixels = np.zeros((*size_hw, 3), np.uint8)
        pixels[rows, columns] = brightness
        Image.fromarray(pixels).save(tmp_path / name)
    return [tmp_path / "left.png", tmp_path / "right.png"]


def test_photographs_share_a_scale_and_maps_have_their_places(look, corners):
    found = look(corners)
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert len(rows) == 2 * 4
    for name, place in (("left.png", ("1", "0")), ("right.png", ("0", "1"))):
        own = {(r["row"], r["column"]): float(r["attention_by_its_mean"]) for r in rows if r["image"].endswith(name)}
        assert max(own, key=own.get) == place and sum(own.values()) == pytest.approx(4, abs=0.01)
    ((_, looks),) = found.blocks
    sure, unsure = (one.attention for one in looks)
    assert sure.highest == unsure.highest > unsure.weights.max() > 1
    above, below = found.pictures.rows
    assert [tile.lines for tile in above.tiles] == [("left.png",), ("right.png",)]
    assert [tile.lines for tile in below.tiles] == [("côté", "100%"), ("bee", "100%")]
    assert "in 2 photographs, drawn over the grey picture" in found.caption and "not evidence" in found.caption


def test_frames_of_a_video_are_evenly_spaced(look, clip_folder):
    found = look([clip_folder / "test" / "right" / "p3_right.mp4"])
    ((video, looks),) = found.blocks
    assert video.endswith("p3_right.mp4") and [one.title for one in looks] == ["0.0 s", "0.4 s", "0.9 s", "1.3 s"]
    assert "4 frames of 1 video, " in found.caption


def test_what_cannot_be_drawn_is_refused(look, corners, tmp_path):
    with pytest.raises(ConfigurationError, match=r"this network \(plain\) has no attention to places; agnet explain"):
        look(corners, LooksNowhere)
    with pytest.raises(ImageError, match="nothing"):
        look([tmp_path / "nothing.png"])


@pytest.mark.parametrize(("items", "count"), [(0, 3), (1, 3), (3, 3), (10, 4), (1000, 7)])
def test_few_of_many_are_kept_and_the_first_is_among_them(items, count):
    chosen = evenly(iter(range(items)), count)
    assert len(chosen) == min(items, count) and chosen[:1] == [*range(items)][:1]
    steps = np.diff([*chosen, items])
    assert not items or steps.max() <= 1.4 * items / len(chosen) + 1

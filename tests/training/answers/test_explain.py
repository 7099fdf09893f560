"""`agnet explain`: explanations of single images, their numbers and their pictures."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agnet.data.errors import ConfigurationError
from agnet.data.images import read_image
from agnet.training.answers.contributions import Explained
from agnet.training.answers.explain import Explanation, Question, check_explainable
from agnet.training.answers.explained_pictures import draw_explanation, full_colour, half_of_what_speaks_for
from agnet.training.answers.pictures import Caption
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

NO_PROOF = ["--random-orders", "0"]


@pytest.fixture
def photograph(tmp_path, textured):
    Image.fromarray(textured(0)).save(tmp_path / "a.png")
    return "a.png"


def save_run(untrained, name, **changes):
    """A run's folder with a network of random weights at 64 × 64, whose batch norms know no image: logits are small."""
    checkpoint = untrained(ModelSettings(classes=3, backbone="mobilenet-v3-small", **changes))
    torch.nn.init.normal_(checkpoint.model.classifier.bias)
    checkpoint.model.size_hw = (64, 64)
    Path(name).mkdir()
    save_checkpoint(Path(name, "best.safetensors"), checkpoint)


def told(result):
    return json.loads(result.stdout.splitlines()[0])


def test_explanations_say_and_draw_what_adds_up_to_the_answer(agnet, untrained, photograph):
    save_run(untrained, "run", regions=6)
    (answer,) = (
        json.loads(line) for line in agnet("predict", "--run", "run", photograph, "--json").stdout.splitlines()
    )
    first, second = sorted(answer["probabilities"], key=answer["probabilities"].get, reverse=True)[:2]
    proven = ["--random-orders", "2"]
    found = told(agnet("explain", "--run", "run", photograph, "--json", "--save", "pictures", *proven))
    assert (found["class"], found["against"], found["method"]) == (first, second, "parts")
    assert found["probabilities"][first] == pytest.approx(answer["probabilities"][first], abs=1e-5)
    shares = found["probabilities"]
    assert found["logits"] == pytest.approx(np.log(shares[first] / shares[second]), abs=1e-4)
    assert [token["name"] for token in found["tokens"]] == ["0", "1", "2", "0 + 1", "0 + 2", "1 + 2", "whole image"]
    assert sum(token["adds"] for token in found["tokens"]) + found["bias"] == pytest.approx(found["logits"], abs=1e-4)
    for token in found["tokens"]:
        assert np.sum(token["places"]) == pytest.approx(token["adds"], abs=1e-5)
    curves = found["proof"]["blur"]
    assert curves["random_orders"] == len(curves["deletion"]["random"]) == 2
    for curve in (curves["deletion"]["map"], *curves["deletion"]["random"], curves["insertion"]["map"][::-1]):
        assert len(curve) == 8 and curve[0] == pytest.approx(shares[first], abs=1e-5)
        assert curve[-1] == pytest.approx(curves["deletion"]["centre"][-1], abs=1e-6)
    assert read_image(Path(found["picture"])).shape[1] == 1480
    drawn = Path(found["picture"]).with_suffix(".svg").read_text(encoding="utf-8")
    assert f"· next: {second} {shares[second]:.1%}" in drawn and re.search(r"beats \d of 2 random orders", drawn)
    options = ["--class", second, "--against", first, *proven]
    text = agnet("explain", "--run", "run", photograph, *options).stdout
    assert f"{second} " in text and f"{-found['logits']:+.3f} logits" in text and "primary regions" in text
    assert " of 2 random orders" in text


def test_the_map_and_the_bias_of_a_plain_network_add_up(agnet, untrained, photograph):
    save_run(untrained, "run", model="plain")
    found = told(
        agnet("explain", "--run", "run", photograph, "--json", "--class", "bee", "--against", "ant", *NO_PROOF)
    )
    bias = load_checkpoint(Path("run")).model.classifier.bias.tolist()
    assert "proof" not in found
    assert found["method"] == "hirescam" and [token["name"] for token in found["tokens"]] == ["whole image"]
    assert found["bias"] == pytest.approx(bias[1] - bias[0], abs=1e-4)
    assert found["tokens"][0]["adds"] + found["bias"] == pytest.approx(found["logits"], abs=1e-4)
    failed = agnet("explain", "--run", "run", photograph, "--method", "parts", code=1)
    assert "only the logits of AG-Net come apart exactly" in failed.stderr


def test_what_cannot_be_explained_is_said(agnet, untrained, photograph):
    save_run(untrained, "run", model="plain")
    assert (
        "no class 'be'; did you mean bee?" in agnet("explain", "--run", "run", "a.png", "--class", "be", code=1).stderr
    )
    same = ["--class", "bee", "--against", "bee"]
    assert "the same class" in agnet("explain", "--run", "run", "a.png", *same, code=2).stderr
    failed = agnet("explain", "--run", "run", "b.png", "a.png", "c.mp4", *NO_PROOF, code=1)
    assert "b.png: cannot be read" in failed.stderr and "c.mp4: cannot be read" in failed.stderr
    assert failed.stdout.startswith("a.png: ") and "in the map" in failed.stdout
    clips = untrained(ModelSettings(classes=3, model="alstm", backbone="mobilenet-v3-small", units=4))
    with pytest.raises(ConfigurationError, match="only the logits of AG-Net come apart"):
        check_explainable(clips, Question())
    assert "no attention" in agnet("explain", "--run", "run", "a.png", "--method", "attention", code=1).stderr
    named = ["--method", "attention", "--class", "bee"]
    assert "the same for every class" in agnet("explain", "--run", "run", "a.png", *named, code=2).stderr


SRBN = {"model": "srbn", "second_backbone": "mobilenet-v3-small", "bilinear_channels": 8, "units": 4}


@pytest.mark.parametrize("changes", [SRBN, {"model": "alstm", "units": 4}], ids=lambda changes: changes["model"])
def test_attention_is_told_and_drawn_as_what_the_network_weighs(agnet, untrained, photograph, changes):
    """An image is a clip of one frame for a network of clips."""
    save_run(untrained, "run", **changes)
    asked = ["--method", "attention", "--save", "pictures"]
    found = told(agnet("explain", "--run", "run", photograph, *asked, *NO_PROOF, "--json"))
    assert found["method"] == "attention" and np.sum(found["attention"]) == pytest.approx(1, abs=1e-5)
    assert not {"logits", "bias", "tokens", "against"} & set(found)
    assert "times the mean" in agnet("explain", "--run", "run", photograph, *asked[:2], *NO_PROOF).stdout
    first_order = told(agnet("explain", "--run", "run", photograph, *NO_PROOF, "--json"))
    assert first_order["method"] == "hirescam" and first_order["tokens"][0]["adds"] != 0


@pytest.mark.parametrize("temporal", ["mean", "attention"])
def test_a_photograph_is_a_clip_of_one_frame(agnet, untrained, photograph, temporal):
    save_run(untrained, "run", regions=6, temporal=temporal, shortcut=True)
    found = told(agnet("explain", "--run", "run", photograph, *NO_PROOF, "--json"))
    assert found["method"] == "parts" and len(found["tokens"]) == 7
    assert sum(token["adds"] for token in found["tokens"]) + found["bias"] == pytest.approx(found["logits"], abs=1e-4)
    shares = [found["probabilities"][found[name]] for name in ("class", "against")]
    assert found["logits"] == pytest.approx(np.log(shares[0] / shares[1]), abs=1e-4)


def test_attention_has_a_colour_of_its_own_from_the_mean_upwards():
    """Cells of the mean stay grey, and one of four times the mean is in full colour."""
    attention = np.full((7, 7), 45 / 49 / 48)
    attention[1, 5] = 4 / 49
    evidence = Explained(attention[None], 0.0, np.array([[0, 0, 1, 1]]))
    one = Explanation("a.jpg", "ant", "bee", (0.6, 0.4), evidence, "attention", None, None, np.array([0.6, 0.4]))
    assert full_colour([one]) == pytest.approx(4 / 49, rel=1e-3)
    flat = replace(one, evidence=Explained(np.full((1, 7, 7), 1 / 49), 0.0, evidence.boxes))
    assert full_colour([flat]) == pytest.approx(2 / 49)
    grey = np.full((70, 70, 3), 128, np.uint8)
    top, left, cell = 20 + 62 + 26, 478, 440 / 7
    caption = Caption(("ant", "bee"))
    bright, dark = (draw_explanation(grey, seen, full, caption) for seen, full in ((one, 4 / 49), (flat, 2 / 49)))
    changed = bright.pixels().astype(int) - dark.pixels()
    middle = changed[round(top + 1.5 * cell), round(left + 5.5 * cell)]
    assert middle[0] < -60 and middle[1] > 0  # towards the blue green of attention
    assert not changed[round(top + 5.5 * cell), round(left + 1.5 * cell)].any()


def test_a_class_is_told_from_the_likeliest_other_one():
    scores = torch.tensor([[3.0, 2, 1], [0, 1, 5]])
    for question, wanted in (
        (Question(), [[0, 2], [1, 1]]),
        (Question(this=1), [[1, 1], [0, 2]]),
        (Question(against=2), [[0, 1], [2, 2]]),
        (Question(this=2, against=0), [[2, 2], [0, 0]]),
    ):
        assert [classes.tolist() for classes in question.of(scores)] == wanted


def test_the_white_line_holds_half_of_what_speaks_for():
    places = np.array([[4.0, 3, -9], [2, 1, 0]])
    assert half_of_what_speaks_for(places).tolist() == [[True, True, False], [False, False, False]]
    assert not half_of_what_speaks_for(-np.abs(places)).any()


def test_the_picture_is_orange_where_it_speaks_for_and_purple_where_against():
    parts = np.zeros((1, 7, 7))
    parts[0, 1, 1], parts[0, 5, 5] = 0.5, -0.5
    evidence = Explained(parts, 0.25, np.array([[0, 0, 1, 1]]))
    one = Explanation("a.jpg", "ant", "bee", (0.6, 0.4), evidence, "hirescam", None, None, np.array([0.6, 0.4]))
    assert full_colour([one]) == pytest.approx(0.5)
    grey = np.full((70, 70, 3), 128, np.uint8)
    caption = Caption(("ant", "bee"))
    drawn, plain = (draw_explanation(grey, one, full, caption).pixels().astype(int) for full in (0.5, 1e9))
    changed = drawn[:, 478:918] - plain[:, 478:918]
    centres = [(np.mean(rows), np.mean(columns)) for rows, columns in map(np.nonzero, _of_both_colours(changed))]
    top = 20 + 62 + 26
    assert np.allclose(centres, [(top + 440 * 1.5 / 7, 440 * 1.5 / 7), (top + 440 * 5.5 / 7, 440 * 5.5 / 7)], atol=3)


def _of_both_colours(changed):
    """Where red, and where blue, became stronger than the other by much."""
    warmth = changed[..., 0] - changed[..., 2]
    above = np.arange(len(changed))[:, None] < 20 + 62 + 26 + 440  # the key below has both colours, too
    return (warmth > 40) & above, (warmth < -20) & above


def test_a_picture_has_the_whole_probability_and_no_private_folder():
    distribution = np.array([0.04, 0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.03])
    evidence = Explained(np.ones((1, 7, 7)), 0.0, np.array([[0, 0, 1, 1]]))
    one = Explanation("/home/me/ant/1.jpg", "a", "h", (0.04, 0.03), evidence, "hirescam", None, None, distribution)
    drawn = draw_explanation(np.zeros((9, 9, 3), np.uint8), one, 1.0, Caption(tuple("abcdefgh"))).svg()
    rows = re.findall(r">([b-h]|a|the rest, 3 classes|[\d.]+%)</text>", drawn)
    assert rows == ["b", "30.0%", "c", "20.0%", "d", "15.0%", "a", "4.0%", "h", "3.0%", "the rest, 3 classes", "28.0%"]
    assert "ant/1.jpg" in drawn and "/home" not in drawn and "rather than h 3.0%" in drawn

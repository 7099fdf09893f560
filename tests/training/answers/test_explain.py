"""`agnet explain`: explanations of single images, their numbers and their pictures."""

import json
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

pytestmark = pytest.mark.usefixtures("one_thread")


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
    found = told(agnet("explain", "--run", "run", photograph, "--json", "--save", "pictures"))
    assert (found["class"], found["against"], found["method"]) == (first, second, "parts")
    assert found["probabilities"][first] == pytest.approx(answer["probabilities"][first], abs=1e-5)
    shares = found["probabilities"]
    assert found["logits"] == pytest.approx(np.log(shares[first] / shares[second]), abs=1e-4)
    assert [token["name"] for token in found["tokens"]] == ["0", "1", "2", "0 + 1", "0 + 2", "1 + 2", "whole image"]
    assert sum(token["adds"] for token in found["tokens"]) + found["bias"] == pytest.approx(found["logits"], abs=1e-4)
    for token in found["tokens"]:
        assert np.sum(token["places"]) == pytest.approx(token["adds"], abs=1e-5)
    assert read_image(Path(found["picture"])).shape[1] == 1480
    text = agnet("explain", "--run", "run", photograph, "--class", second, "--against", first).stdout
    assert f"{second} " in text and f"{-found['logits']:+.3f} logits" in text and "primary regions" in text


def test_the_map_and_the_bias_of_a_plain_network_add_up(agnet, untrained, photograph):
    save_run(untrained, "run", model="plain")
    found = told(agnet("explain", "--run", "run", photograph, "--json", "--class", "bee", "--against", "ant"))
    bias = load_checkpoint(Path("run")).model.classifier.bias.tolist()
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
    failed = agnet("explain", "--run", "run", "b.png", "a.png", "c.mp4", code=1)
    assert "b.png: cannot be read" in failed.stderr and "c.mp4 is a video" in failed.stderr
    assert failed.stdout.startswith("a.png: ") and "in the map" in failed.stdout
    clips = untrained(ModelSettings(classes=3, model="alstm", backbone="mobilenet-v3-small", units=4))
    with pytest.raises(ConfigurationError, match="trained on clips"):
        check_explainable(clips, Question())


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

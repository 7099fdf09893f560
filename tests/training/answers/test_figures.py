from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from agnet.data.errors import CheckpointError
from agnet.data.regions import Layout, Regions
from agnet.training.answers import pictures as figures
from agnet.training.answers.pictures import FULL, Caption, draw_prediction, tied
from agnet.training.answers.predict import Prediction, predict, with_evidence
from agnet.training.answers.truth import Truth
from agnet.training.answers.video_labels import Label
from agnet.training.machine.devices import Device
from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import Checkpoint


@pytest.mark.parametrize("model", ["plain", "agnet"])
def test_evidence_is_gradient_times_activation_by_finite_differences(model):
    torch.manual_seed(0)
    net = build_model(ModelSettings(classes=4, regions=3, model=model, backbone="mobilenet-v3-small")).eval().double()
    images, regions = 255 * torch.rand(1, 3, 224, 224).double(), torch.rand(1, 3, 4).sort(dim=-1).values.double()
    inputs = (images, regions)[: len(net.inputs)]
    output, evidence = with_evidence(net, *inputs)
    with torch.no_grad():
        features = net.backbone(images)
        winner = output.logits.argmax()
        net.backbone.maps = lambda _: (moved,)
        for y, x in ((0, 0), (3, 4), (6, 2)):
            # Along the activation itself: d logit / dt of features·(1 + t) at one place.
            logits = []
            for step in (1e-5, -1e-5):
                moved = features.clone()
                moved[:, :, y, x] *= 1 + step
                logits.append(net(*inputs).logits[0, winner])
            expected = float(logits[0] - logits[1]) / 2e-5
            assert float(evidence[0, y, x]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_plain_models_evidence_and_its_bias_are_the_logit():
    torch.manual_seed(0)
    net = build_model(ModelSettings(classes=4, model="plain", backbone="mobilenet-v3-small")).eval().double()
    torch.nn.init.normal_(net.classifier.bias)
    output, evidence = with_evidence(net, 255 * torch.rand(3, 3, 96, 96).double())
    winners = output.logits.argmax(dim=1)
    assert torch.allclose(evidence.sum(dim=(1, 2)) + net.classifier.bias[winners], output.logits.amax(dim=1), atol=1e-9)
    assert (evidence < 0).any() and (evidence > 0).any()


CLASSES = ("ant", "a very long name of a class that would not fit anywhere " * 3, "fly")


def prediction(weights=None, evidence=None, shares=(0.9, 0.07, 0.03)):
    """Of a photograph of 100 x 80 pixels."""
    order = np.argsort(-np.array(shares), kind="stable")
    return Prediction(
        name="folder/a.jpg",
        classes=tuple(CLASSES[k] for k in order),
        probabilities=tuple(shares[k] for k in order),
        distribution=np.array(shares, dtype=np.float32),
        regions=Regions(
            hull_xy=np.array([(10, 10), (60, 40), (50, 20), (90, 70)], dtype=np.float32),
            hull_counts=np.array([2, 2]),
            keypoints=np.array([2, 2]),
            weights=np.array([0.5, 0.5]),
            size_wh=(100, 80),
            total_keypoints=4,
            distinct_keypoints=4,
            layout=Layout(2),
        ),
        region_weights=None if weights is None else np.array(weights, dtype=np.float32),
        evidence=None if evidence is None else np.array(evidence, dtype=np.float32),
        logit=1.5,
    )


@pytest.fixture
def texts(monkeypatch):
    """What is written into pictures while a test runs, in order."""
    written, draw = [], figures.draw_text
    monkeypatch.setattr(figures, "draw_text", lambda *given: (written.append(given[2]), draw(*given))[1])
    return written


@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]])
@pytest.mark.parametrize("size_wh", [(100, 80), (80, 400), (1200, 90), (1, 300), (1, 1), (20, 20), (3000, 4)])
def test_a_picture_comes_of_any_shape_and_model(weights, size_wh):
    width, height = size_wh
    image = np.full((height, width, 3), 120, dtype=np.uint8)
    picture = draw_prediction(image, prediction(weights, np.eye(7)), Caption(CLASSES, "a run"))
    assert picture.dtype == np.uint8 and picture.ndim == 3 and max(picture.shape) < 1700
    assert (picture == 255).all(axis=2).any() and (picture < 100).any()


def map_of(image, evidence):
    """The panel with the evidence, float, ``(H, W, 3)``."""
    return np.asarray(figures._with_evidence(Image.fromarray(image), prediction(None, evidence))).astype(float)


def warmth(panel):
    """Above 0 where it is orange, below 0 where purple, 0 where grey."""
    return panel[..., 0] - panel[..., 2]


GREY = np.full((140, 280, 3), 128, dtype=np.uint8)


def test_for_is_orange_against_purple_and_nothing_grey():
    evidence = np.zeros((7, 7))
    evidence[1, 2], evidence[5, 5] = FULL, -FULL
    found = warmth(map_of(GREY, evidence))
    assert found[1 * 20 + 10, 2 * 40 + 20] > 100 and found[5 * 20 + 10, 5 * 40 + 20] < -30
    assert (found[3 * 20 + 10] == 0).all() and np.ptp(map_of(GREY, np.zeros((7, 7)))) == 0


def test_grey_print_keeps_for_and_against_apart():
    """As ITU-R BT.601 weighs colours, over any grey that a photograph is drawn in."""
    for grey in (0.3, 0.6, 0.9):
        lights = [figures.tinted(np.full((1, 1), grey), np.full((1, 1), share))[0, 0] for share in (1.0, -1.0)]
        ahead, against = np.array(lights) @ [0.299, 0.587, 0.114]
        assert ahead - against > 30


@pytest.mark.parametrize("cell", [(1, 2), (3, 3), (5, 1)])
def test_a_place_is_drawn_around_its_cells_middle(cell):
    """Cells tile the photograph: of 7 rows and columns over 140 x 280 pixels, each is 20 x 40."""
    evidence = np.zeros((7, 7))
    evidence[cell] = FULL / 2
    found = warmth(map_of(GREY, evidence))
    rows, columns = (np.arange(length) + 0.5 for length in found.shape)
    middle = (found.sum(axis=1) @ rows / found.sum(), found.sum(axis=0) @ columns / found.sum())
    assert middle == pytest.approx((20 * cell[0] + 10, 40 * cell[1] + 20), abs=0.3)


def test_the_scale_is_the_same_in_every_picture():
    """Not stretched to a picture's own maximum: a weak map stays pale, a strong one beside it does not change it."""
    weak = np.zeros((7, 7))
    weak[1, 1] = FULL / 10
    both = weak.copy()
    both[5, 5] = 100 * FULL
    alone, beside = map_of(GREY, weak)[:60, :120], map_of(GREY, both)[:60, :120]
    assert np.array_equal(alone, beside)
    middle = warmth(alone)[30, 60]
    assert 0 < middle < 0.15 * warmth(map_of(GREY, both)).max()
    # A map of twice as many rows and columns has the same evidence in places of a quarter.
    fine = np.repeat(np.repeat(np.full((7, 7), FULL / 2) / 4, 2, axis=0), 2, axis=1)
    assert np.array_equal(map_of(GREY, fine), map_of(GREY, np.full((7, 7), FULL / 2)))


@pytest.mark.parametrize("brightness", [0.03, 0.15, 1.0])
def test_the_photograph_stays_readable_however_dark_it_is(textured, brightness):
    image = (textured(3, 280, 140) * brightness).astype(np.uint8)
    panel = map_of(image, np.zeros((7, 7)))
    assert (panel[..., 0] == panel[..., 2]).all() and panel.min() >= 60 and panel.max() <= 240
    assert 80 < panel.mean() < 200 and panel.std() > 12


def test_regions_are_drawn_where_they_are_used_and_mean_a_place(textured):
    image = np.full((80, 100, 3), 200, dtype=np.uint8)
    seen = prediction([0.2, 0.2, 0.2, 0.4], np.zeros((7, 7)))
    picture = draw_prediction(image, seen, Caption(CLASSES))
    reds, greens = (
        np.argwhere((picture == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=2))
        for colour in ("#e6194b", "#3cb44b")
    )
    # 440 x 352 pixels for 100 x 80.
    assert np.ptp(reds, axis=0) == pytest.approx([30 * 4.4, 50 * 4.4], abs=3)
    assert np.ptp(greens, axis=0) == pytest.approx([50 * 4.4, 40 * 4.4], abs=3)
    heavier = replace(seen, region_weights=np.array([0, 0.9, 0, 0.1], dtype=np.float32))
    assert np.array_equal(picture, draw_prediction(image, heavier, Caption(CLASSES)))  # weights say nothing


def test_a_picture_says_whose_answer_it_is_the_runner_up_and_the_rest(texts):
    classes = ("ant", "bee", "cat", "dog", "elk")
    seen = replace(
        prediction(None, np.full((7, 7), 0.01)),
        classes=("bee",),  # --top 1
        probabilities=(0.5,),
        distribution=np.array([0.1, 0.5, 0.25, 0.1, 0.05], dtype=np.float32),
    )
    draw_prediction(GREY, seen, Caption(classes, "by the run cats, epoch 3"))
    assert {"folder/a.jpg", "by the run cats, epoch 3", "bee", "cat", "25.0%", "3 other classes"} <= set(texts)
    assert texts.count("50.0%") == 2  # in large letters, and beside its bar
    said = " ".join(texts)
    assert "Sum: +0.49; logit: +1.50 (the difference is its bias)" in said and f"+{FULL:g} or more" in said


@pytest.mark.parametrize(
    ("truth", "shares", "said"),
    [
        ("ant", (0.9, 0.07, 0.03), "right · truth: ant"),
        ("fly", (0.9, 0.07, 0.03), "wrong · truth: fly"),
        ("fly", (0.4, 0.2, 0.4), "one of a tie · truth: fly"),
        (CLASSES[1], (0.4, 0.2, 0.4), "wrong · truth: a v"),
    ],
)
def test_the_truth_is_said_in_words_and_a_mark(texts, truth, shares, said):
    seen = prediction(None, None, shares)
    with_truth = draw_prediction(GREY, seen, Caption(CLASSES, truth=Truth(truth, "in the test split")))
    assert any(text.startswith(said) for text in texts) and "in the test split" in texts
    assert not np.array_equal(with_truth, draw_prediction(GREY, seen, Caption(CLASSES)))


def test_a_tie_is_said_to_be_one(texts):
    assert tied(np.array([0.3, 0.35, 0.35])).tolist() == [1, 2]
    assert tied(np.array([0.3, 0.36, 0.34])).tolist() == [1]
    assert tied(np.full(3, 1 / 3, np.float32)).tolist() == [0, 1, 2]
    draw_prediction(GREY, prediction(None, None, (0.4, 0.2, 0.4)), Caption(CLASSES))
    assert "a tie of 2" in texts and "40.0% each: ant, fly" in texts
    texts.clear()
    draw_prediction(GREY, prediction(None, None, (0.4, 0.25, 0.35)), Caption(CLASSES, label=Label("unsure", 0.4)))
    assert "unsure" in texts and "likeliest: ant, 40.0%" in texts and "a tie of 2" not in texts


@pytest.mark.parametrize("changes", [{"model": "plain"}, {"use_regions": False}, {}], ids=str)
def test_regions_are_proposed_for_a_network_that_looks_at_them(changes):
    torch.manual_seed(0)
    settings = ModelSettings(classes=3, regions=2, backbone="mobilenet-v3-small", **changes)
    model = build_model(settings).eval()
    model.size_hw = (64, 64)
    network = Checkpoint(settings, ("ant", "bee", "fly"), {}, "", 1, None, model=model)
    regions, asked = replace(prediction(None).regions, layout=Layout(2, "primary")), []

    def propose(image):
        asked.append(image.shape)
        return regions

    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    cpu = Device(torch.device("cpu"))
    (found,) = predict(network, [("a.jpg", image)], propose, cpu, evidence=True)
    assert (asked, found.regions) == (([], None) if changes else ([(80, 100, 3)], regions))
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5) and found.evidence.shape == (7, 7)
    assert draw_prediction(image, found, Caption(network.classes)).ndim == 3

    torch.nn.init.constant_(model.classifier.bias, torch.nan)
    with pytest.raises(CheckpointError, match="not finite numbers"):
        list(predict(network, [("a.jpg", image)], propose, cpu))

"""The proof of a map: deletion and insertion by the map and by other orders, for a photograph and over a split."""

import itertools
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.boxes.reader import read_boxes
from agnet.data.images import read_image
from agnet.training.answers.contributions import Explained
from agnet.training.answers.explain import Question, explain_samples
from agnet.training.answers.predict import with_evidence
from agnet.training.answers.proof import Curves, Trials, beats, prove
from agnet.training.answers.split_proof import ProvenImage, ProvenSplit, difference, worth_seeing
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import Checkpoint, save_checkpoint
from agnet.training.samples.reading import Sample
from factories import CPU, RAW, tiny

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

CLASSES = ("ant", "bee", "côté")


class OneCorner(nn.Module):
    """Maps of 7 × 7 places that hold the brightness of the upper right one, and nothing else."""

    def forward(self, images):
        places = nn.functional.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), 7) / 255
        seen = torch.zeros_like(places)
        seen[..., 0, 6] = places[..., 0, 6]
        return seen


def checkpoint_of(model, classes=CLASSES):
    settings = ModelSettings(classes=len(classes))
    return Checkpoint(
        model=model.eval(),
        settings=settings,
        classes=classes,
        proposals={"method": "sift", "primary": 3},
        fingerprint="f" * 32,
        epoch=1,
        val_top1=0.5,
    )


def noise(side, seed=0, regions=0):
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.random((regions, 2, 2)), axis=1).reshape(regions, 4).astype(np.float32)
    pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Sample("a.png", pixels, corners if regions else None, None)


def test_a_network_that_sees_one_corner_points_there_and_is_proven():
    model = assemble(ModelSettings(classes=2, model="plain"), Backbone(OneCorner(), 1, RAW))
    model.size_hw = (28, 28)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[49.0], [0.0]]))
        model.classifier.bias.copy_(torch.tensor([-0.5, 0.0]))
    pixels = np.zeros((28, 28, 3), np.uint8)
    pixels[:4, 24:] = 255
    sample = Sample("corner.png", pixels, None, None)
    checkpoint, trials = checkpoint_of(model, ("there", "not there")), Trials(20, ("mean",))
    (one,) = explain_samples(checkpoint, [sample], CPU, Question("hirescam", this=0), trials=trials)
    places = one.evidence.laid_back((7, 7))
    assert places[0, 6] == pytest.approx(1, abs=1e-5) and np.count_nonzero(places.round(5)) == 1
    curves = one.proof["mean"]
    # Brightness 1 in the corner gives the logits 0.5 and 0; the mean colour, 255 / 49 rounded, gives nearly -0.5.
    there, gone = 1 / (1 + np.exp([-0.5, 0.5 - 5 / 255]))
    assert curves.areas("deletion")["map"] == pytest.approx((there / 2 + 6.5 * gone) / 7, abs=1e-5)
    assert curves.areas("insertion")["map"] == pytest.approx((gone / 2 + 6.5 * there) / 7, abs=1e-5)
    assert curves.areas("deletion")["random"] > curves.areas("deletion")["map"] + 0.03
    assert curves.areas("deletion")["centre"] == pytest.approx((6.5 * there + gone / 2) / 7, abs=1e-5)


@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_a_curve_is_that_of_a_loop_over_places(fill):
    model, sample = tiny("agnet").eval(), noise(16, regions=6)
    evidence = Explained(np.random.default_rng(1).normal(size=(1, 7, 7)), 0.0, np.array([[0.0, 0, 1, 1]]))
    found = prove(model, sample, evidence, 2, Trials(3, (fill,)), CPU, batch_size=4)[fill]
    filled = cv2.GaussianBlur(sample.pixels, (0, 0), 16 / 12)
    if fill == "mean":
        filled = np.zeros_like(sample.pixels) + np.round(sample.pixels.mean(axis=(0, 1))).astype(np.uint8)
    values = {(row, column): evidence.parts[0, row, column] for row in range(7) for column in range(7)}
    order = sorted(values, key=values.get, reverse=True)
    boxes = torch.from_numpy(sample.boxes)[None]
    for name, start, put in (("deletion", sample.pixels, filled), ("insertion", filled, sample.pixels)):
        curve = []
        for count in range(0, 50, 7):
            image = start.copy()
            for y in range(16):
                for x in range(16):
                    if (y * 7 // 16, x * 7 // 16) in order[:count]:
                        image[y, x] = put[y, x]
            with torch.no_grad():
                logits = model(torch.from_numpy(image).permute(2, 0, 1)[None], boxes).logits
            curve.append(float(logits.softmax(dim=1)[0, 2]))
        assert np.allclose(getattr(found, name)["map"][0], curve, atol=1e-5)
        slow = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 7
        assert found.areas(name)["map"] == pytest.approx(slow, abs=1e-5)


def test_orders_that_know_nothing_are_random_and_depend_on_seed_and_photograph_only():
    model, flat = tiny().eval(), Explained(np.zeros((1, 7, 7)), 0.0, np.array([[0.0, 0, 1, 1]]))

    def proven(seed, photograph):
        found = prove(model, noise(16, photograph), flat, 0, Trials(4, seed=seed), CPU, batch_size=16)["blur"]
        return np.concatenate([found.deletion["map"], found.deletion["random"]])

    assert np.array_equal(proven(0, 0), proven(0, 0))
    first, others = proven(0, 0), (proven(1, 0), proven(0, 1))
    assert len(np.unique(first.round(7), axis=0)) == 5
    assert not any(np.allclose(first[1:], other[1:]) for other in others)


def test_random_classifiers_have_other_maps():
    model, samples = tiny("agnet").eval(), [noise(16, seed, regions=6) for seed in range(4)]

    def maps():
        found = explain_samples(checkpoint_of(model), samples, CPU, Question(this=0, against=1))
        return np.stack([one.evidence.laid_back((7, 7)).ravel() for one in found])

    trained = maps()
    assert np.allclose(maps(), trained)
    torch.manual_seed(7)
    nn.init.normal_(model.classifier.weight)
    alike = [np.corrcoef(one, other)[0, 1] for one, other in zip(trained, maps(), strict=True)]
    assert np.mean(alike) < 0.5


def test_hirescam_is_that_of_the_package_grad_cam():
    # Its own requirements would bring a second OpenCV.
    cam = pytest.importorskip("pytorch_grad_cam", reason="needs pip install --no-deps grad-cam ttach")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")

    class Logits(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images).logits

    model, images = tiny(), torch.rand(2, 3, 16, 16) * 255
    _, ours = with_evidence(model.eval(), images, explained=lambda output: output.logits[:, 1])
    wanted = [targets.ClassifierOutputTarget(1)] * 2
    with cam.HiResCAM(Logits(model), [model.map_layer]) as package:
        package(images, wanted)
        activations, gradients = (
            kept[0].detach().numpy()
            for kept in (package.activations_and_grads.activations, package.activations_and_grads.gradients)
        )
        theirs = package.get_cam_image(images, model.map_layer, wanted, activations, gradients, False)
    assert np.allclose(ours.detach().numpy(), theirs, atol=1e-5) and np.abs(theirs).max() > 1e-3


def test_in_words_a_map_beats_random_orders_or_does_not():
    flat = np.ones((4, 8)) * np.array([[0.1], [0.2], [0.3], [0.4]])
    for value, words in (
        (0.05, "beats 4 of 4 random orders; by chance as good in 20% of cases"),  # the first of five in a row
        (0.15, "beats 3 of 4 random orders; by chance as good in 40% of cases"),
        (0.25, "beats 2 of 4 random orders, no better than random here"),
    ):
        curves = {"map": np.full((1, 8), value), "random": flat}
        assert beats(Curves(curves, curves)) == words


def image(name, this, truth, probability, found, random=0.5):
    areas = {"map": found, "random": random}
    return ProvenImage(
        name, this, "bee", truth, probability, {"deletion": {"blur": areas}, "insertion": {"blur": areas}}
    )


def split_of(maps, random):
    """A split whose maps have these areas of deletion, and of insertion as much on the other side of ``random``."""
    images = tuple(
        replace(
            image(str(number), "ant", "ant", 0.9, found, chance),
            areas={
                "deletion": {"blur": {"map": found, "random": chance, "centre": chance}},
                "insertion": {"blur": {"map": 2 * chance - found, "random": chance, "centre": found}},
            },
        )
        for number, (found, chance) in enumerate(zip(maps.tolist(), random.tolist(), strict=True))
    )
    return ProvenSplit("test", "folder", "0" * 16, 3, "parts", 99, 0, 8, images)


def test_intervals_of_paired_differences_decide_the_verdict():
    generator = np.random.default_rng(0)
    random, error = generator.uniform(0.2, 0.8, 60), generator.normal(0, 0.1, 60)
    error -= error.mean()
    for shift, better, words in (
        (-0.1, True, "better than random orders in every trial"),
        (0.01, None, "no better than random here in deletion (blur), insertion (blur)"),
        (0.1, False, "worse than random orders in deletion (blur), insertion (blur)"),
    ):
        split = split_of(random + shift + error, random)
        found = split.fills["blur"]["deletion_minus"]["random"]
        half = 1.96 * error.std() / 60**0.5  # by the central limit theorem
        assert found["better"] is better and words in split.verdict
        assert ("better than the distance to the centre in 0 of 2 and worse in 2" in split.verdict) is (shift > 0.05)
        assert [found["mean"], found["low"], found["high"]] == pytest.approx(
            [shift, shift - half, shift + half], abs=4e-3
        )
        assert split.fills["blur"]["insertion_minus"]["random"]["mean"] == pytest.approx(-shift, abs=1e-5)
    mixed = split_of(random - 0.1 + error, random)
    for one in mixed.images[::2]:
        one.areas["insertion"]["blur"]["map"] = one.areas["insertion"]["blur"]["random"] - 0.1
    said = "better than random orders in deletion (blur); no better than random here in insertion (blur)"
    assert said in mixed.verdict
    few = split_of(random[:9] - 0.2, random[:9])
    assert "Fewer than 10 images" in few.verdict and few.is_better("deletion", "blur") is None
    assert difference(np.full(20, 0.1), better=-1).better is False


def test_pictures_show_sure_mistakes_a_failure_and_typical_answers():
    images = [image(str(number), "ant", "ant", 0.9 - number / 100, 0.3) for number in range(9)]
    images += [
        image("9", "ant", "bee", 0.6, 0.3),
        image("10", "ant", "bee", 0.8, 0.3),
        image("11", "ant", "bee", 0.7, 0.3),
    ]
    images[8] = replace(images[8], areas={"deletion": {"blur": {"map": 0.6, "random": 0.5}}})
    found = worth_seeing(images)
    assert found[:3] == [(10, "a sure mistake"), (11, "a sure mistake"), (8, "a failure of the explanation")]
    assert found[3:] == [(number, "a typical right answer") for number in (2, 3, 4)]
    assert [number for number, _ in worth_seeing(images[:1])] == [0]


@pytest.fixture
def run(boxes_file, folder, untrained, tmp_path):
    """A run's folder with an untrained network of the data set `folder`."""

    def save(**changes):
        boxes = read_boxes(boxes_file)
        checkpoint = untrained(ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", **changes))
        nn.init.normal_(checkpoint.model.classifier.weight)
        checkpoint.model.size_hw = (64, 64)
        (tmp_path / "run").mkdir()
        proposals = boxes.settings["proposals"]
        own = replace(checkpoint, proposals=proposals, fingerprint=boxes.fingerprint)
        save_checkpoint(tmp_path / "run" / "best.safetensors", own)

    return save


FOR_A_SPLIT = ["explain", "--run", "run", "--split", "test", "--boxes", "boxes.h5", "--root", "images"]


def test_a_split_is_proven_with_the_same_bytes_for_the_same_seed(agnet, run, tmp_path):
    run()
    options = [*FOR_A_SPLIT, "--random-orders", "2", "--count", "3"]
    result = agnet(*options, "--json")
    file = tmp_path / "run" / "explanations-test.json"
    content, drawn = file.read_bytes(), sorted(file.with_suffix("").iterdir())
    found = json.loads(content)
    assert json.loads(result.stdout) == found
    assert (found["images"], found["of"], found["method"], found["random_orders"]) == (3, 6, "parts", 2)
    orders = {"map", "random", "centre", "boxes"}
    assert len(found["rows"]) == 3 and set(found["rows"][0]["deletion"]["mean"]) == orders
    assert set(found["fills"]["blur"]["insertion_minus"]) == orders - {"map"}
    means = [row["insertion"]["blur"]["centre"] for row in found["rows"]]
    assert found["fills"]["blur"]["insertion"]["centre"] == pytest.approx(np.mean(means), abs=1e-5)
    assert len(drawn) == 2 * len(found["pictures"]) > 0
    assert read_image(tmp_path / "run" / found["pictures"][0]["file"]).shape[1] == 1480
    drawn[0].unlink()
    text = agnet(*options).stdout
    assert file.read_bytes() == content and sorted(file.with_suffix("").iterdir()) == drawn
    assert "deletion, blur" in text and found["verdict"] in text


def test_all_images_of_a_small_split_are_proven_for_any_network(agnet, run, tmp_path):
    run(model="plain")
    result = agnet(*FOR_A_SPLIT, "--random-orders", "1", "--seed", "1")
    assert "test has 6 images: all are explained" in result.stderr
    found = json.loads((tmp_path / "run" / "explanations-test.json").read_bytes())
    assert (found["images"], found["method"], found["seed"]) == (6, "hirescam", 1)
    assert sorted(row["truth"] for row in found["rows"]) == sorted(2 * CLASSES)
    assert set(found["rows"][0]["deletion"]["mean"]) == {"map", "random", "centre"}


def test_what_cannot_be_proven_is_said(agnet, run, tmp_path):
    run(model="plain")
    assert "one of the two" in agnet("explain", "--run", "run", code=2).stderr
    assert "are for --split" in agnet("explain", "--run", "run", "a.png", "--count", "3", code=2).stderr
    assert "are for IMAGES" in agnet(*FOR_A_SPLIT, "--save", "pictures", code=2).stderr
    shutil.rmtree(tmp_path / "images" / "val" / "bee")
    assert "missing" in agnet(*FOR_A_SPLIT, code=1).stderr
    (tmp_path / "boxes.h5").unlink()
    assert "boxes.h5" in agnet(*FOR_A_SPLIT, code=1).stderr

from dataclasses import replace

import numpy as np
import pytest
import torch

from agnet.data.errors import CheckpointError
from agnet.data.regions import Layout, Regions
from agnet.training.checkpoints import Checkpoint
from agnet.training.devices import Device
from agnet.training.figures import draw_prediction
from agnet.training.models.backbones import Preprocessing
from agnet.training.models.build import build_model
from agnet.training.models.settings import ModelSettings
from agnet.training.predict import Prediction, _with_evidence, predict


@pytest.mark.parametrize("model", ["plain", "agnet"])
def test_evidence_is_gradient_times_activation_by_finite_differences(model):
    torch.manual_seed(0)
    net = build_model(ModelSettings(classes=4, regions=3, model=model, backbone="mobilenet-v3-small")).eval().double()
    images, regions = torch.randn(1, 3, 224, 224).double(), torch.rand(1, 3, 4).sort(dim=-1).values.double()
    output, evidence = _with_evidence(net, images, regions)
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
                logits.append(net(images, regions).logits[0, winner])
            expected = max(float(logits[0] - logits[1]) / 2e-5, 0.0)
            assert float(evidence[0, y, x]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def prediction(weights, evidence=True):
    return Prediction(
        name="a.jpg",
        classes=("ant", "a very long name of a class that would not fit anywhere"),
        probabilities=(0.9, 0.1),
        distribution=np.array([0.9, 0.1], dtype=np.float32),
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
        evidence=np.eye(7, dtype=np.float32) if evidence else None,
    )


@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]])
@pytest.mark.parametrize("size_wh", [(100, 80), (80, 400), (1200, 90), (1, 300)])
def test_a_picture_comes_of_any_shape_and_model(weights, size_wh):
    width, height = size_wh
    image = np.full((height, width, 3), 120, dtype=np.uint8)
    picture = draw_prediction(image, prediction(weights))
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert (picture == 255).all(axis=2).any() and (picture < 100).any()


@pytest.mark.parametrize("weights", [None, [1.0]], ids=["plain", "no regions"])
def test_regions_that_no_one_looked_at_are_not_drawn(weights):
    image = np.full((90, 90, 3), 200, dtype=np.uint8)
    seen = prediction(weights)
    with_regions, without = draw_prediction(image, seen), draw_prediction(image, replace(seen, regions=None))
    column = with_regions.shape[1] - without.shape[1]
    assert column > 0 and np.array_equal(with_regions[:, column + 16 :], without[:, 16:])  # past the margin
    assert draw_prediction(image, replace(seen, regions=None, evidence=None)).shape[1] == without.shape[1] - column


@pytest.mark.parametrize("changes", [{"model": "plain"}, {"use_regions": False}, {}], ids=str)
def test_regions_are_proposed_for_a_network_that_looks_at_them(changes):
    torch.manual_seed(0)
    settings = ModelSettings(classes=3, regions=2, backbone="mobilenet-v3-small", **changes)
    model = build_model(settings).eval()
    network = Checkpoint(model, settings, ("ant", "bee", "fly"), Preprocessing(64), {}, "", 1, None)
    regions, asked = replace(prediction(None).regions, layout=Layout(2, "primary")), []

    def propose(image):
        asked.append(image.shape)
        return regions

    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    cpu = Device(torch.device("cpu"))
    (found,) = predict(network, [("a.jpg", image)], propose, cpu, evidence=True)
    assert (asked, found.regions) == (([], None) if changes else ([(80, 100, 3)], regions))
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5) and found.evidence.shape == (7, 7)
    assert draw_prediction(image, found).ndim == 3

    torch.nn.init.constant_(model.classifier.bias, torch.nan)
    with pytest.raises(CheckpointError, match="not finite numbers"):
        list(predict(network, [("a.jpg", image)], propose, cpu))


def test_evidence_keeps_its_places_bright():
    image = np.full((90, 90, 3), 200, dtype=np.uint8)
    picture, without = (draw_prediction(image, prediction(None, evidence)) for evidence in (True, False))
    assert picture.shape[1] > without.shape[1]

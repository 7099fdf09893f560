"""Several views of a photograph by one network: against separate calls on separately resized photographs."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import five_crop, resize

from agnet.training.models.build import build_model
from agnet.training.models.contract import Output, Views
from agnet.training.models.settings import AGNetSettings, BCNNSettings, PlainSettings
from agnet.training.models.views import averaged, boxes_of, views_of
from agnet.training.samples.views import View
from agnet.training.tasks import CLASSIFY

pytestmark = pytest.mark.usefixtures("small_mobilenet")

SMALL = "mobilenet-v3-small"
SIZES, CROPS = Views((32, 96)), Views()


def photographs(count=2, side=96, seed=0):
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()


def network(settings, views, seed=0):
    torch.manual_seed(seed)
    model = build_model(settings).eval()
    model.size_hw, model.views = (84, 84), views
    return model


def product_of_experts(outputs):
    """softmax of the mean of log-probabilities, computed in double precision."""
    logs = np.mean([one.logits.double().log_softmax(1).numpy() for one in outputs], axis=0)
    return np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("family", ["plain", "bcnn", "agnet"])
def test_sizes_are_the_network_called_at_each_and_averaged(family):
    settings = {
        "plain": PlainSettings(3, SMALL),
        "bcnn": BCNNSettings(3, SMALL, SMALL),
        "agnet": AGNetSettings(3, regions=3, backbone=SMALL, units=4),
    }[family]
    model, images = network(settings, SIZES), photographs()
    boxes = [torch.rand(2, 3, 2, 2).sort(dim=2).values.flatten(2)] if family == "agnet" else []
    with torch.no_grad():
        output = model(images, *boxes)
        alone = [model.forward(resize(images.float(), [side, side], antialias=True), *boxes) for side in (32, 96)]
    found = output.logits.double().softmax(1).numpy()
    np.testing.assert_allclose(found, product_of_experts(alone), atol=1e-6)
    assert model.input_hw == (96, 96)
    if family == "agnet":
        assert torch.equal(output.region_weights, alone[1].region_weights)


def test_five_crops_are_torchvisions():
    images, model = photographs(), network(PlainSettings(3, SMALL), CROPS)
    assert model.input_hw == (96, 96)
    wanted = five_crop(images, [84, 84])
    assert all(torch.equal(one, other) for one, other in zip(views_of(images, CROPS), wanted, strict=True))
    with torch.no_grad():
        found, alone = model(images).logits.double().softmax(1).numpy(), [model.forward(one) for one in wanted]
    np.testing.assert_allclose(found, product_of_experts(alone), atol=1e-6)
    corners = (boxes_of(CROPS, (96, 96)) * 96).int().tolist()
    assert corners == [[0, 0, 84, 84], [12, 0, 96, 84], [0, 12, 84, 96], [12, 12, 96, 96], [6, 6, 90, 90]]


def test_a_crop_has_the_size_of_the_networks_input():
    for own in range(32, 600):
        photograph = torch.zeros(1, 1, *CROPS.input_hw((own, own)))
        assert {one.shape[-2:] for one in views_of(photograph, CROPS)} == {(own, own)} == {*CROPS.seen_hw((own, own))}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_of_the_views_own(smoothing):
    torch.manual_seed(0)
    outputs = [Output(torch.randn(2, 4, dtype=torch.float64) * 3) for _ in range(3)]
    labels, valid = torch.tensor([1, 3]), torch.ones(2, 1, dtype=torch.bool)

    def loss(output):
        return CLASSIFY.losses(output, labels, valid, smoothing)

    answer = averaged(outputs)
    assert (answer.losses["disagreement"] > 0).all()
    wanted = torch.stack([loss(one) for one in outputs]).mean(dim=0)
    torch.testing.assert_close(loss(answer) + answer.losses["disagreement"], wanted)


def test_smaller_views_are_those_of_the_usual_path():
    """A photograph of waves and gradients at 64, by way of 128 and at once: within 1 of 255 levels on average."""
    y, x = np.mgrid[:300, :400]
    photograph = np.stack([128 + 90 * np.sin(x / 9), 255 * y / 299, 255 * (x + y) / 698], axis=2).astype(np.uint8)
    large, usual = (View.of((400, 300), (side, side)).pixels(photograph) for side in (128, 64))
    (small, _) = views_of(torch.from_numpy(large).permute(2, 0, 1)[None], Views((64, 128)))
    difference = np.abs(small[0].permute(1, 2, 0).numpy() - usual)
    assert difference.mean() < 1 and difference.max() < 12
    lines = torch.tensor([0.0, 255, 255, 0]).repeat(32).expand(1, 3, 128, 128)
    middle = views_of(lines, Views((32, 128)))[0][..., 1:-1]
    assert middle.sub(127.5).abs().max() < 10  # without antialiasing, every sample would fall on a white line


@pytest.mark.parametrize("sizes", [(224, 224), (448, 224), (225, 448), (224, "448"), (True, 32)])
def test_other_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="wanted different multiples of 32"):
        Views(sizes)


def test_texts_and_records_of_views():
    assert Views.parse("448,224") == Views((224, 448)) == Views.of_record({"sizes": [224, 448]})
    assert Views.parse(crops="five") == Views() == Views.of_record({"crops": "five"})
    assert Views.parse() is Views.of_record(None) is None
    for record in ({"sizes": []}, {"sizes": [100]}, {"sizes": "224"}, {"crops": "ten"}, [], 5):
        with pytest.raises(ValueError):
            Views.of_record(record)
    assert (Views((224, 448)).part, Views().part) == ("-sizes-224-448", "-crops-five")

import numpy as np
import pytest

from agnet.training.figures import draw_prediction, weight_of_pixels
from agnet.training.predict import Prediction


def prediction(weights, primary=((10, 10, 60, 40), (50, 20, 90, 70))):
    return Prediction(
        name="a.jpg",
        classes=("ant", "bee"),
        probabilities=(0.9, 0.1),
        primary_xyxy=np.array(primary, dtype=np.float32),
        region_weights=None if weights is None else np.array(weights, dtype=np.float32),
    )


def test_weights_are_spread_over_their_boxes():
    density = weight_of_pixels(prediction([0.5, 0.2, 0.2, 0.1]), (100, 80))
    expected = np.zeros((80, 100))
    for (x0, y0, x1, y1), weight in (
        ((10, 10, 60, 40), 0.5),
        ((50, 20, 90, 70), 0.2),
        ((10, 10, 90, 70), 0.2),
        ((0, 0, 100, 80), 0.1),
    ):
        for y in range(y0, y1):
            for x in range(x0, x1):
                expected[y, x] += weight / ((x1 - x0) * (y1 - y0))
    np.testing.assert_allclose(density, expected, rtol=1e-4)
    assert density.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]])
@pytest.mark.parametrize("size_wh", [(100, 80), (80, 400), (1200, 90)])
def test_a_picture_comes_of_any_shape_and_model(weights, size_wh):
    width, height = size_wh
    image = np.full((height, width, 3), 120, dtype=np.uint8)
    picture = draw_prediction(image, prediction(weights))
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert (picture == 255).all(axis=2).any() and (picture < 100).any()

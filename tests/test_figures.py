import numpy as np
import pytest

from agnet.training.figures import draw_prediction, relative_weight
from agnet.training.predict import Prediction


def prediction(weights, primary=((10, 10, 60, 40), (50, 20, 90, 70))):
    return Prediction(
        name="a.jpg",
        classes=("ant", "bee"),
        probabilities=(0.9, 0.1),
        primary_xyxy=np.array(primary, dtype=np.float32),
        region_weights=None if weights is None else np.array(weights, dtype=np.float32),
    )


def test_a_pixels_weight_is_the_mean_over_the_regions_that_cover_it():
    weights = [0.5, 0.2, 0.2, 0.1]
    boxes = [(10, 10, 60, 40), (50, 20, 90, 70), (10, 10, 90, 70), (0, 0, 100, 80)]
    expected = np.zeros((80, 100))
    for y in range(80):
        for x in range(100):
            over = [4 * w for w, (x0, y0, x1, y1) in zip(weights, boxes, strict=True) if x0 <= x < x1 and y0 <= y < y1]
            expected[y, x] = sum(over) / len(over)
    np.testing.assert_allclose(relative_weight(prediction(weights), (100, 80), 1.0), expected, rtol=1e-5)


def test_even_weights_look_even():
    assert relative_weight(prediction([0.25] * 4), (50, 40), 0.5) == pytest.approx(np.ones((40, 50)))


@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]])
@pytest.mark.parametrize("size_wh", [(100, 80), (80, 400), (1200, 90)])
def test_a_picture_comes_of_any_shape_and_model(weights, size_wh):
    width, height = size_wh
    image = np.full((height, width, 3), 120, dtype=np.uint8)
    picture = draw_prediction(image, prediction(weights))
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert (picture == 255).all(axis=2).any() and (picture < 100).any()

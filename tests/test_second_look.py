"""The experiment on second looks in studies/, which is outside the package."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(scope="module")
def second_look():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STUDIES)
        import second_look

        yield second_look


def test_crops_have_the_side_of_their_region_and_lie_within_the_photograph(second_look):
    x, y = np.meshgrid(np.arange(100), np.arange(60))
    photograph = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    region = (70, 40, 90, 50)  # 1.3 times 20 is 26, wherever the crop lies
    for centre, (left, top) in (((0.5, 0.5), (37, 17)), ((0, 0), (0, 0)), ((1, 1), (74, 34)), ((0.9, 0), (74, 0))):
        (crop,) = second_look.crops(photograph, np.array([region]), np.array([centre]))
        assert crop.shape == (224, 224, 3)
        assert crop[..., :2].mean(axis=(0, 1)) == pytest.approx([left + 12.5, top + 12.5], abs=0.5)
    (crop,) = second_look.crops(photograph, np.array([(0, 0, 100, 60)]), np.array([(0.5, 0.5)]))
    assert (crop[..., 1].min(), crop[..., 1].max()) == (0, 59)  # at most the shorter side


def test_places_of_others_are_those_of_other_photographs_in_one_circle(second_look):
    count = 9
    corner = np.arange(count * 4).reshape(count, 4, 1).repeat(2, axis=2)
    boxes = SimpleNamespace(
        primary_xyxy=np.concatenate([corner, corner + 10], axis=2).astype(np.float32),
        frame_first=np.arange(count + 1),
        usable=np.arange(count),
        sizes_wh=np.full((count, 2), (100, 50)),
    )
    places = second_look.centres(boxes, np.arange(count), np.random.default_rng(0))
    assert places["salient"][2, 1].tolist() == pytest.approx([(9 + 5) / 100, (9 + 5) / 50])
    giver = [next(k for k in range(count) if (each == places["salient"][k]).all()) for each in places["other"]]
    at, seen = 0, []
    for _ in range(count):
        at = giver[at]
        seen.append(at)
    assert sorted(seen) == list(range(count)) and seen[-1] == 0


def test_four_answers_ahead_of_340_are_not_a_difference(second_look):
    control = np.array([True] * 330 + [False] * 10)
    ahead = np.array([True] * 334 + [False] * 6)
    # Bonett and Price: 4 / 342 ± 1.96 √((6 / 342 − (4 / 342)²) / 342)
    assert second_look.difference([ahead], [control]) == "+1.2 (-0.2 to +2.6)"

import numpy as np
import pytest

from agnet.data.errors import ConfigurationError
from agnet.data.regions import Layout, Regions, boxes_of_hulls, move_points, whole_image_hull


def test_pairs_come_in_the_order_of_two_nested_loops():
    assert Layout(4).pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


# The paper's Table VIII, row by row.
@pytest.mark.parametrize(
    ("primary", "kinds", "regions"),
    [
        *((count, "primary", count) for count in (4, 6, 8, 10, 16)),
        (8, "secondary", 28),
        *((count, "both", total) for count, total in ((4, 10), (6, 21), (8, 36), (10, 36), (16, 36))),
    ],
)
def test_region_counts_of_the_paper(primary, kinds, regions):
    layout = Layout(primary, kinds)
    boxes = np.random.default_rng(0).uniform(0, 9, (3, primary, 4))
    assert layout.count == regions
    assert layout.boxes(boxes).shape == (3, regions, 4)


@pytest.mark.parametrize(("primary", "kinds", "kept"), [(10, "both", 26), (16, "both", 20), (16, "secondary", 36)])
def test_pairs_of_the_last_primaries_are_those_without_room(primary, kinds, kept):
    pairs = [tuple(pair) for pair in Layout(primary, kinds).pairs.tolist()]
    assert len(pairs) == kept
    assert pairs == sorted(pairs)
    every = [(first, second) for second in range(primary) for first in range(second)]  # by the later member
    assert set(pairs) == set(every[:kept])


def test_kinds_choose_among_the_boxes():
    primary = np.array([[0, 0, 2, 2], [1, 1, 5, 3]], dtype=np.float32)
    assert Layout(2).boxes(primary).tolist() == [[0, 0, 2, 2], [1, 1, 5, 3], [0, 0, 5, 3]]
    assert Layout(2, "primary").boxes(primary).tolist() == [[0, 0, 2, 2], [1, 1, 5, 3]]
    assert Layout(2, "secondary").boxes(primary).tolist() == [[0, 0, 5, 3]]


@pytest.mark.parametrize(("primary", "kinds"), [(1, "both"), (37, "primary"), (8, "tertiary")])
def test_an_impossible_layout_is_refused(primary, kinds):
    with pytest.raises(ConfigurationError, match="wanted"):
        Layout(primary, kinds)


def test_shared_pairs_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        Layout(3).pairs[0, 0] = 5


def test_boxes_are_the_extremes_of_their_points():
    generator = np.random.default_rng(0)
    counts = np.array([1, 5, 2, 17], dtype=np.int32)
    points = generator.uniform((0, 0), (60, 40), (25, 2)).astype(np.float32)
    boxes = boxes_of_hulls(points, counts, (60, 40))
    assert boxes.dtype == np.float32
    at = 0
    for box, count in zip(boxes.tolist(), counts.tolist(), strict=True):
        xs = [float(x) for x, _ in points[at : at + count]]
        ys = [float(y) for _, y in points[at : at + count]]
        at += count
        for low, high, values in ((box[0], box[2], xs), (box[1], box[3], ys)):
            if max(values) - min(values) >= 1:
                assert (low, high) == (min(values), max(values))
            else:  # thinner than a pixel: one pixel around them
                assert high - low == pytest.approx(1, abs=1e-4)
                assert low <= min(values)
                assert high >= max(values)


@pytest.mark.parametrize("point", [(0, 0), (60, 40), (0, 40), (-500, 20), (30, 900), (1e6, -1e6)])
def test_a_box_stays_in_the_frame_and_is_at_least_a_pixel(point):
    x0, y0, x1, y1 = boxes_of_hulls(np.array([point], dtype=np.float32), np.array([1]), (60, 40))[0].tolist()
    assert 0 <= x0 <= x1 - 1
    assert x1 <= 60
    assert 0 <= y0 <= y1 - 1
    assert y1 <= 40
    nearest = min(max(point[0], 0), 60), min(max(point[1], 0), 40)
    assert x0 <= nearest[0] <= x1
    assert y0 <= nearest[1] <= y1


def test_a_one_pixel_image_has_a_one_pixel_box():
    assert boxes_of_hulls(whole_image_hull((1, 1)), np.array([4]), (1, 1)).tolist() == [[0, 0, 1, 1]]


def test_secondaries_are_unions_of_their_pair():
    generator = np.random.default_rng(1)
    low = generator.uniform(0, 50, (6, 5, 2))
    primary = np.concatenate([low, low + generator.uniform(1, 30, (6, 5, 2))], axis=-1)
    secondary = Layout(5).secondary(primary)
    assert secondary.shape == (6, 10, 4)
    for image in range(6):
        row = 0
        for first in range(5):
            for second in range(first + 1, 5):
                a, b = primary[image, first].tolist(), primary[image, second].tolist()
                union = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
                assert secondary[image, row].tolist() == union
                row += 1


def test_points_move_as_homogeneous_coordinates_do():
    generator = np.random.default_rng(2)
    matrix, points = generator.normal(size=(2, 3)), generator.normal(size=(7, 2))
    for point, moved in zip(points, move_points(matrix, points), strict=True):
        expected = np.vstack([matrix, [0, 0, 1]]) @ np.array([*point, 1.0])
        np.testing.assert_allclose(moved, expected[:2], atol=1e-12)


def test_the_box_of_moved_hulls_is_the_box_of_all_moved_points(textured):
    from agnet.proposals.one_image import propose_regions
    from agnet.proposals.settings import ProposalSettings

    cv2 = pytest.importorskip("cv2")
    image = textured(3, 224, 224)
    regions = propose_regions(image, ProposalSettings(primary=2))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # Pixels' corners are at whole numbers here; OpenCV has their centres there, and lies a quarter too far.
    keypoints = np.array([point.pt for point in cv2.SIFT_create().detect(grey, None)]) + 0.5 - 0.25
    angle = np.deg2rad(14)
    turn = np.array([[np.cos(angle), -np.sin(angle), 30], [np.sin(angle), np.cos(angle), -5]])
    moved = keypoints @ turn[:, :2].T + turn[:, 2]
    boxes = boxes_of_hulls(move_points(turn, regions.hull_xy), regions.hull_counts, (400, 400))
    union = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
    # Every keypoint belongs to one of the two regions, so their union is tight around all; hulls are kept
    # to a tenth of a pixel.
    np.testing.assert_allclose(union, [*moved.min(axis=0).clip(0), *moved.max(axis=0)], atol=0.1)


def test_regions_know_whether_a_mixture_was_fitted():
    def regions(keypoints):
        return Regions(
            hull_xy=np.tile(whole_image_hull((9, 5)), (2, 1)),
            hull_counts=np.array([4, 4], dtype=np.int32),
            keypoints=np.array(keypoints, dtype=np.int32),
            weights=np.array([0.5, 0.5], dtype=np.float32),
            size_wh=(9, 5),
            total_keypoints=sum(keypoints),
            distinct_keypoints=sum(keypoints),
            layout=Layout(2),
        )

    assert not regions([0, 0]).enough_keypoints
    assert regions([3, 0]).enough_keypoints
    assert regions([3, 0]).primary_xyxy.tolist() == [[0, 0, 9, 5], [0, 0, 9, 5]]

import cv2
import numpy as np
import pytest

from agnet.data.regions import Layout, Regions
from agnet.training.samples.views import MEAN_COLOUR, AffineRange, View, erased

GREY = 90


def regions_of(hulls, size_wh):
    return Regions(
        hull_xy=np.concatenate(hulls).astype(np.float32),
        hull_counts=np.array([len(hull) for hull in hulls], dtype=np.int32),
        keypoints=np.full(len(hulls), 5, dtype=np.int32),
        weights=np.full(len(hulls), 1 / len(hulls), dtype=np.float32),
        size_wh=size_wh,
        total_keypoints=5 * len(hulls),
        distinct_keypoints=5 * len(hulls),
        layout=Layout(len(hulls)) if len(hulls) > 1 else Layout(2, "primary"),
    )


def corners(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float32)


@pytest.mark.parametrize("size_hw", [(224, 224), (256, 128)])
@pytest.mark.parametrize("seed", range(20))
def test_a_painted_rectangle_stays_tightly_in_its_box(seed, size_hw, flip=False):
    generator = np.random.default_rng(seed)
    width, height = generator.integers(150, 500, 2).tolist()
    x0, y0 = int(0.3 * width), int(0.35 * height)
    x1, y1 = x0 + int(0.3 * width), y0 + int(0.25 * height)
    image = np.full((height, width, 3), GREY, dtype=np.uint8)
    image[y0:y1, x0:x1] = 255
    view = View.of((width, height), size_hw, AffineRange(15, 0.15, 0.15, flip).draw(generator, size_hw))

    seen = view.pixels(image)[..., 0] > (255 + GREY) / 2
    assert seen.shape == size_hw
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    painted = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    box = view.boxes(regions_of([corners(x0, y0, x1, y1), corners(0, 0, 1, 1)], (width, height)))[0] * (
        2 * size_hw[::-1]
    )
    # Half a pixel of rounding, and the rectangle's sharp corners lose another one to interpolation.
    assert np.abs(box - painted).max() < 1.6


@pytest.mark.parametrize("seed", range(6))
def test_a_mirrored_rectangle_stays_in_its_box(seed):
    test_a_painted_rectangle_stays_tightly_in_its_box(seed, (256, 128), flip=True)


def test_half_of_the_frames_are_mirrored_and_the_others_are_as_without():
    plain, flipped = (AffineRange(15, 0.15, 0.15, flip) for flip in (False, True))
    mirrored = 0
    for seed in range(200):
        before, after = (one.draw(np.random.default_rng(seed), (64, 32)) for one in (plain, flipped))
        if np.linalg.det(after[:, :2]) < 0:
            mirrored += 1
            points = np.array([[0, 5, 1], [32, 5, 1]])  # at the same height, left and right
            np.testing.assert_allclose(after @ points[0], before @ points[1])
        else:
            np.testing.assert_array_equal(after, before)
    assert 80 < mirrored < 120


def test_a_rectangle_of_one_colour_is_erased():
    pixels = np.random.default_rng(0).integers(0, 100, (64, 32, 3), dtype=np.uint8)
    for seed in range(50):
        seen = erased(pixels, np.random.default_rng(seed))
        changed = (seen != pixels).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (seen[box] == MEAN_COLOUR).all() and not np.delete(changed, np.s_[rows[0] : rows[-1] + 1], 0).any()
        assert 0.015 < changed.mean() < 0.42


def test_the_box_of_moved_points_is_the_box_of_their_moved_hull():
    generator = np.random.default_rng(0)
    points = generator.uniform(40, 260, (60, 2)).astype(np.float32)
    hull = cv2.convexHull(points).reshape(-1, 2)
    for _ in range(50):
        motion = AffineRange(15, 0.15, 0.15).draw(generator, (224, 224))
        view = View.of((300, 300), (224, 224), motion)
        box = view.boxes(regions_of([hull, hull], (300, 300)))[0] * 224
        moved = np.array([motion[:, :2] @ (point * 224 / 300) + motion[:, 2] for point in points])
        expected = np.clip([*moved.min(axis=0), *moved.max(axis=0)], 0, 224)
        np.testing.assert_allclose(box, expected, atol=1e-3)


def test_secondaries_are_unions_of_the_moved_primaries_and_nothing_leaves_the_frame():
    generator = np.random.default_rng(1)
    hulls = [corners(*np.sort(generator.uniform(0, 200, (2, 2)), axis=0).ravel()) for _ in range(5)]
    for _ in range(30):
        view = View.of((200, 200), (96, 96), AffineRange(degrees=90, shift=0.6, scale=0.5).draw(generator, (96, 96)))
        boxes = view.boxes(regions_of(hulls, (200, 200)))
        assert boxes.shape == (15, 4) and boxes.dtype == np.float32
        assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()
        k = 5
        for first in range(5):
            for second in range(first + 1, 5):
                a, b = boxes[first], boxes[second]
                union = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
                assert boxes[k].tolist() == union
                k += 1


def test_the_unmoved_view_only_squashes():
    image = np.random.default_rng(2).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    view = View.of((60, 30), (60, 60))
    boxes = view.boxes(regions_of([corners(6, 3, 54, 15), corners(0, 0, 60, 30)], (60, 30)))
    np.testing.assert_allclose(boxes[0], [0.1, 0.1, 0.9, 0.5], atol=1e-6)
    np.testing.assert_array_equal(boxes[1], [0, 0, 1, 1])
    square = View.of((60, 60), (60, 60)).pixels(np.repeat(image, 2, axis=0))
    np.testing.assert_array_equal(square, np.repeat(image, 2, axis=0))


def test_a_large_photograph_is_averaged_not_sampled():
    checkers = (np.indices((1500, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for motion in (None, AffineRange(15, 0.15, 0.15).draw(np.random.default_rng(3), (224, 224))):
        seen = View.of((1200, 1500), (224, 224), motion).pixels(np.repeat(checkers[..., None], 3, axis=2))
        assert seen.shape == (224, 224, 3)
        assert abs(float(seen.mean()) - 127.5) < 3 and seen.std() < 12


def test_beyond_the_edges_they_are_repeated():
    image = np.full((100, 100, 3), 200, dtype=np.uint8)
    shift_out = np.array([[1.0, 0, 60], [0, 1, -60]])
    assert (View.of((100, 100), (100, 100), shift_out).pixels(image) == 200).all()


def test_draws_stay_within_the_papers_range_and_reach_its_ends():
    generator = np.random.default_rng(4)
    angles, scales, shifts = [], [], []
    for _ in range(2000):
        motion = AffineRange(15, 0.15, 0.15).draw(generator, (224, 224))
        a, b = motion[0, 0], motion[1, 0]
        angles.append(np.degrees(np.arctan2(b, a)))
        scales.append(np.hypot(a, b))
        shifts.append((motion @ (112, 112, 1) - 112) / 224)
        assert motion[0, 1] == pytest.approx(-b) and motion[1, 1] == pytest.approx(a)  # no shear, no flip
    for values, low, high in ((angles, -15, 15), (scales, 0.85, 1.15), (shifts, -0.15, 0.15)):
        span = high - low
        assert low <= np.min(values) < low + 0.01 * span and high - 0.01 * span < np.max(values) <= high


def test_a_motion_of_a_rectangle_is_a_turn_about_its_middle_in_pixels_of_the_frame():
    generator = np.random.default_rng(5)
    for _ in range(200):
        motion = AffineRange(15, 0, 0.15).draw(generator, (256, 128))
        np.testing.assert_allclose(motion @ (64, 128, 1), (64, 128), atol=1e-9)
        assert motion[0, 1] == pytest.approx(-motion[1, 0]) and motion[1, 1] == pytest.approx(motion[0, 0])
    shifts = [AffineRange(0, 0.15, 0).draw(generator, (256, 128))[:, 2] for _ in range(500)]
    np.testing.assert_allclose(np.abs(shifts).max(axis=0), (0.15 * 128, 0.15 * 256), rtol=0.02)

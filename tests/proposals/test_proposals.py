import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.mixture import GaussianMixture

from agnet.data.errors import ConfigurationError
from agnet.data.images import decode_image
from agnet.proposals.mixture import fit_mixture, initial_labels
from agnet.proposals.one_image import propose_regions
from agnet.proposals.settings import ProposalSettings
from agnet.proposals.sift import detect_keypoints, seed_of, squash


def opencv_keypoints(image, side):
    """SIFT positions in the squashed image, pixel corners at whole numbers, less OpenCV's bias of a quarter pixel.

    Both sides of ``image`` shrink, or both grow.
    """
    how = cv2.INTER_AREA if min(image.shape[:2]) >= side else cv2.INTER_LINEAR
    squashed = cv2.resize(image, (side, side), interpolation=how)
    found = cv2.SIFT_create().detectAndCompute(cv2.cvtColor(squashed, cv2.COLOR_RGB2GRAY), None)[0]
    return np.array([(point.pt[0] + 0.25, point.pt[1] + 0.25) for point in found])


def image_seed(seed, found):
    """The seed of an image's k-means: of the positions as they were when their bias was not known."""
    return seed_of(seed, np.float32(found + np.float32(0.25)))


def slow_boxes(points, labels, components, scale_x, scale_y):
    """(keypoints, x0, y0, x1, y1) of each component that claims any, the busiest first."""
    boxes = []
    for component in range(components):
        xs = [x * scale_x for (x, _), label in zip(points, labels, strict=True) if label == component]
        ys = [y * scale_y for (_, y), label in zip(points, labels, strict=True) if label == component]
        if xs:
            boxes.append((len(xs), min(xs), min(ys), max(xs), max(ys)))
    return sorted(boxes, key=lambda box: -box[0])


def check_against(regions, expected, size_wh):
    boxes = regions.primary_xyxy
    assert boxes.shape == (len(regions.keypoints), 4)
    assert regions.size_wh == size_wh
    assert regions.keypoints.tolist() == [box[0] for box in expected] + [0] * (len(boxes) - len(expected))
    for count in set(regions.keypoints.tolist()) - {0}:
        # Regions of equally many keypoints may stand in any order here.
        ours = sorted(boxes[regions.keypoints == count].tolist())
        theirs = sorted(box[1:] for box in expected if box[0] == count)
        for got, (x0, y0, x1, y1) in zip(ours, theirs, strict=True):
            assert got[0] == pytest.approx(min(x0, (x0 + x1 - 1) / 2), abs=0.11)
            assert got[1] == pytest.approx(min(y0, (y0 + y1 - 1) / 2), abs=0.11)
            assert got[2] == pytest.approx(max(x1, (x0 + x1 + 1) / 2), abs=0.11)
            assert got[3] == pytest.approx(max(y1, (y0 + y1 + 1) / 2), abs=0.11)


@pytest.mark.parametrize(("width", "height"), [(224, 224), (400, 250), (290, 310), (150, 90)])
def test_keypoints_are_all_of_opencvs_in_corner_coordinates(width, height, textured):
    image = textured(width, width, height)
    expected = opencv_keypoints(image, 224)
    assert len(expected) > 40
    found = detect_keypoints(squash(image, 224))
    assert found.dtype == np.float32
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_hold_the_keypoints_that_scikit_learn_gives_them(seed, textured):
    width, height = 300 + 40 * seed, 240
    image = textured(seed, width, height)
    points = opencv_keypoints(image, 224)
    model = GaussianMixture(8, random_state=image_seed(5, detect_keypoints(squash(image, 224))))
    expected = slow_boxes(points, model.fit_predict(points), 8, width / 224, height / 224)
    regions = propose_regions(image, ProposalSettings(mixture="scikit-learn", seed=5))
    check_against(regions, expected, (width, height))
    np.testing.assert_allclose(sorted(regions.weights), sorted(model.weights_), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_hold_the_keypoints_that_the_closed_form_gives_them(seed, textured):
    width, height = 150, 300 + 30 * seed
    image = textured(seed, width, height)
    points = opencv_keypoints(image, 128)
    start = initial_labels(points, 4, image_seed(0, detect_keypoints(squash(image, 128))))
    labels = fit_mixture(points, start, 4).labels
    expected = slow_boxes(points, labels, 4, width / 128, height / 128)
    check_against(propose_regions(image, ProposalSettings(primary=4, image_size=128)), expected, (width, height))


def test_groups_are_those_of_the_biased_positions(textured):
    """Regions of before are a quarter of a pixel away, not those of another start."""
    image = textured(15, 400, 300)
    biased = opencv_keypoints(image, 224).astype(np.float32) + np.float32(0.25)
    start = initial_labels(biased.astype(float), 8, seed_of(0, biased))
    labels = fit_mixture(biased.astype(float), start, 8).labels
    expected = [
        (count, *(np.array([x0, y0, x1, y1]) - np.array([400, 300, 400, 300]) / 224 / 4))
        for count, x0, y0, x1, y1 in slow_boxes(biased, labels, 8, 400 / 224, 300 / 224)
    ]
    check_against(propose_regions(image, ProposalSettings()), expected, (400, 300))


def test_every_keypoint_is_counted_once(textured):
    image = textured(7)
    regions = propose_regions(image, ProposalSettings())
    points = opencv_keypoints(image, 224)
    assert regions.keypoints.sum() == regions.total_keypoints == len(points)
    assert regions.distinct_keypoints == len({tuple(point) for point in points.tolist()}) < len(points)
    assert regions.weights.sum() == pytest.approx(1, abs=1e-5)


def test_both_mixtures_find_regions_alike_when_clusters_are_apart():
    image = np.full((224, 224, 3), 255, dtype=np.uint8)
    corners = [(20, 20), (160, 30), (30, 165), (170, 170)]
    for x, y in corners:
        cv2.putText(image, "&#", (x, y + 25), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
    settings = ProposalSettings(primary=4, slot_order="left-to-right")
    ours = propose_regions(image, settings)
    theirs = propose_regions(image, replace(settings, mixture="scikit-learn"))
    np.testing.assert_array_equal(ours.primary_xyxy, theirs.primary_xyxy)
    for box in ours.primary_xyxy:
        held = [
            corner for corner in corners if np.hypot(*(box[:2] - corner)) < 25 and np.hypot(*(box[2:] - corner)) < 80
        ]
        assert len(held) == 1


def one_corner():
    """A black image with one white square: keypoints, but fewer places than regions."""
    image = np.zeros((224, 224, 3), dtype=np.uint8)
    image[:70, :70] = 255
    return image


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((100, 80, 3), np.uint8),
        np.full((50, 120, 3), 255, np.uint8),
        np.full((224, 224, 3), (200, 30, 90), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((1, 500, 3), np.uint8),
        np.zeros((40_000, 2, 3), np.uint8),
        np.tile(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (200, 1, 3)),
        one_corner(),
    ],
    ids=["black", "white", "one colour", "one pixel", "one row", "tall", "gradient", "one corner"],
)
def test_too_few_keypoints_make_every_region_the_whole_image(image):
    height, width = image.shape[:2]
    regions = propose_regions(image, ProposalSettings())
    assert not regions.enough_keypoints
    assert regions.distinct_keypoints < 8
    assert regions.primary_xyxy.tolist() == [[0, 0, width, height]] * 8
    assert regions.keypoints.tolist() == [0] * 8
    assert regions.weights.tolist() == [0.125] * 8
    assert regions.size_wh == (width, height)


def test_few_keypoints_are_counted_even_if_not_used():
    regions = propose_regions(one_corner(), ProposalSettings())
    assert regions.total_keypoints == len(opencv_keypoints(one_corner(), 224)) > 0


def test_tiny_images_of_noise_keep_every_box_inside(textured):
    generator = np.random.default_rng(0)
    fitted = 0
    for width, height in [(1, 1), (2, 3), (5, 300), (300, 5), (9, 9), (1, 4000)]:
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        regions = propose_regions(image, ProposalSettings())
        fitted += regions.enough_keypoints
        boxes = regions.primary_xyxy
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (width, height)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1 - 1e-4).all()
    assert fitted


def test_slots_come_in_the_order_asked_for(textured):
    image = textured(11, 500, 300)

    def ordered(slot_order):
        return propose_regions(image, ProposalSettings(slot_order=slot_order))

    found = detect_keypoints(squash(image, 224))
    mixture = fit_mixture(found.astype(float), initial_labels(found, 8, image_seed(0, found)), 8)
    box_of = {}
    for component in range(8):
        mine = found[mixture.labels == component] * (500 / 224, 300 / 224)
        box_of[component] = [*mine.min(axis=0), *mine.max(axis=0)]

    by_x = sorted(range(8), key=lambda component: mixture.means[component][0])
    by_y = sorted(range(8), key=lambda component: mixture.means[component][1])
    expected = {"mixture": list(range(8)), "left-to-right": by_x, "top-to-bottom": by_y}
    for slot_order, components in expected.items():
        boxes = ordered(slot_order).primary_xyxy
        np.testing.assert_allclose(boxes, [box_of[component] for component in components], atol=0.11)
    busiest = ordered("weight")
    assert (np.diff(busiest.keypoints) <= 0).all()
    assert sorted(busiest.primary_xyxy.tolist()) == sorted(ordered("mixture").primary_xyxy.tolist())


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("hull_xy", "hull_counts", "keypoints", "weights")
    )


def test_regions_depend_on_seed_and_pixels_and_nothing_before(textured):
    image, settings = textured(12, 300, 300), ProposalSettings()
    first = propose_regions(image, settings)
    propose_regions(textured(13), settings)
    cv2.setRNGSeed(99)
    np.random.default_rng()
    assert same(propose_regions(image, settings), first)
    seeds = [propose_regions(image, ProposalSettings(seed=seed)) for seed in range(1, 6)]
    assert not all(same(regions, first) for regions in seeds)


def test_seeds_of_images_differ_and_stay_as_they_are():
    images = [np.full((8, 8), value, dtype=np.uint8) for value in range(5)]
    seeds = {seed_of(seed, image) for seed in range(20) for image in images}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    # Written down, because every boxes file there is depends on them.
    assert (seed_of(0, images[0]), seed_of(2**32 - 1, images[4])) == (552193219, 529677685)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_copy_with_its_orientation_noted_has_the_same_regions(orientation, textured):
    upright = textured(14, 260, 180)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(upright).transpose(undo[orientation]).save(file, "PNG", exif=exif)
    turned = propose_regions(decode_image(file.getvalue()), ProposalSettings())
    assert turned.enough_keypoints
    assert same(turned, propose_regions(upright, ProposalSettings()))


def test_settings_survive_a_round_trip():
    settings = ProposalSettings(primary=5, mixture="scikit-learn", tol=0.01, seed=2**32 - 1)
    assert ProposalSettings.from_dict(settings.to_dict()) == settings
    assert ProposalSettings.from_dict({}) == ProposalSettings()
    assert ProposalSettings.from_dict({"tol": 0}).tol == 0


def test_defaults_are_the_papers():
    assert ProposalSettings().to_dict() == {
        "method": "sift",
        "primary": 8,
        "kinds": "both",
        "weights": "default",
        "image_size": 224,
        "mixture": "closed-form",
        "slot_order": "weight",
        "max_iter": 100,
        "tol": 1e-3,
        "reg_covar": 1e-6,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "surf"),
        ("mixture", "bayesian"),
        ("slot_order", "random"),
        ("kinds", "tertiary"),
        ("primary", 1),
        ("primary", 37),
        ("image_size", 31),
        ("image_size", 4097),
        ("max_iter", 0),
        ("tol", -1e-3),
        ("tol", float("nan")),
        ("reg_covar", 0.0),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_bad_setting_is_named_with_what_was_wanted(name, value):
    with pytest.raises(ConfigurationError, match=f"'{name}': wanted .*, got"):
        ProposalSettings(**{name: value})
    with pytest.raises(ConfigurationError, match=f"'{name}': wanted .*, got"):
        ProposalSettings.from_dict({name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("primary", 8.0), ("primary", "8"), ("primary", True), ("tol", "1"), ("method", 3)]
)
def test_a_setting_of_another_type_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=f"'{name}': wanted (int|float|str), got"):
        ProposalSettings.from_dict({name: value})


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigurationError, match="unknown proposal settings: colour, shape"):
        ProposalSettings.from_dict({"shape": 1, "colour": 2, "primary": 8})

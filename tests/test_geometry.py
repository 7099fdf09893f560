"""Everything in its place, to a twentieth of a pixel: spots are planted where they are wanted, and found there."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.resizing import resize
from agnet.proposals import networks
from agnet.proposals.one_image import propose_regions
from agnet.proposals.settings import ProposalSettings
from agnet.proposals.sift import detect_keypoints, squash
from agnet.training.samples.views import AffineRange, View

SHAPES_WH = [
    (224, 224),
    (640, 480),
    (480, 640),
    (275, 183),
    (183, 275),
    (1000, 150),
    (150, 1000),
    (100, 80),
    (225, 223),
]
TURNS = {
    "as it is": (lambda image: image, lambda xy, w, h: xy),
    "by 180 degrees": (lambda image: image[::-1, ::-1], lambda xy, w, h: (w, h) - xy),
    "mirrored": (lambda image: image[:, ::-1], lambda xy, w, h: np.stack([w - xy[:, 0], xy[:, 1]], axis=1)),
    "on its head": (lambda image: image[::-1], lambda xy, w, h: np.stack([xy[:, 0], h - xy[:, 1]], axis=1)),
    "transposed": (lambda image: image.swapaxes(0, 1), lambda xy, w, h: xy[:, ::-1]),
}


def spot(size_wh, centre_xy, radius_xy, height=180.0):
    """A light round spot on a dark ground: uint8 RGB, pixel corners at whole numbers."""
    width, height_px = size_wh
    x = (np.arange(width) + 0.5 - centre_xy[0]) / radius_xy[0]
    y = (np.arange(height_px) + 0.5 - centre_xy[1]) / radius_xy[1]
    grey = 20 + height * np.exp(-(y[:, None] ** 2 + x**2) / 2)
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


def middle_of(grey):
    """Where the light of an image is, its ground of 20 apart."""
    light = grey.astype(float) - 20
    light[light < 3] = 0
    x, y = np.arange(light.shape[1]) + 0.5, np.arange(light.shape[0]) + 0.5
    return np.array([(light.sum(axis=0) * x).sum(), (light.sum(axis=1) * y).sum()]) / light.sum()


def partners(found_xy, wanted_xy):
    """The nearest of ``found_xy`` to each of ``wanted_xy``, less it."""
    apart = found_xy[None] - wanted_xy[:, None]
    return apart[np.arange(len(wanted_xy)), np.hypot(apart[..., 0], apart[..., 1]).argmin(axis=1)]


@pytest.mark.parametrize("sigma", [1.5, 3, 6, 12, 24])
def test_keypoints_of_a_spot_lie_in_its_middle_whatever_octave_finds_it(sigma):
    """From the doubled image to an eighth of it; OpenCV's own positions are 0.25 off in each."""
    generator = np.random.default_rng(int(10 * sigma))
    offsets = []
    for _ in range(25):
        size_wh = generator.integers(200, 260, 2)
        centre = generator.uniform(0.42, 0.58, 2) * size_wh
        found = detect_keypoints(spot(size_wh, centre, (sigma, sigma))[..., 0])
        offsets.append(partners(found, centre[None])[0])
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.03
    assert np.abs(offsets).max() < 0.05 + 0.02 * sigma


@pytest.mark.parametrize("size_wh", SHAPES_WH)
@pytest.mark.parametrize("side", [224, 320])
def test_a_spot_is_found_in_its_middle_in_a_photograph_of_any_shape(size_wh, side):
    generator = np.random.default_rng(0)
    offsets = []
    for _ in range(12):
        share, radius = generator.uniform(0.4, 0.6, 2), generator.uniform(3, 7)
        grey = squash(spot(size_wh, share * size_wh, np.maximum(np.multiply(size_wh, radius / side), 1)), side)
        assert np.abs(middle_of(grey) - share * side).max() < 0.06
        found = detect_keypoints(grey)
        offsets += [partners(found, share[None] * side)[0]] if len(found) else []  # SIFT's scales have gaps
    assert len(offsets) > 5
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.05


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_image_has_turned_keypoints(turn, textured):
    turned, moved = TURNS[turn]
    found, kept = [], 0
    for seed, size_wh in enumerate([(224, 224), (300, 200), (200, 340), (500, 140), (600, 450)]):
        image = textured(seed, *size_wh)
        ours = detect_keypoints(squash(image, 224))
        theirs = detect_keypoints(squash(np.ascontiguousarray(turned(image)), 224))
        apart = partners(theirs, moved(ours, 224, 224))
        near = np.abs(apart).max(axis=1) < 0.5
        kept += near.mean() / 5
        found.append(apart[near])
    apart = np.concatenate(found)
    # The coarser octaves take every other pixel: which, an image's turn decides. So a few are found in one of the two.
    assert kept > 0.85
    assert np.abs(apart.mean(axis=0)).max() < 0.01 and np.median(np.abs(apart)) < 0.01


def shares(length, wanted):
    """``(wanted, length)``: what of each pixel along a side a new one is, averaged or interpolated."""
    matrix = np.zeros((wanted, length))
    for new in range(wanted):
        if wanted <= length:
            low, high = new * length / wanted, (new + 1) * length / wanted
            for old in range(length):
                matrix[new, old] = max(0.0, min(high, old + 1) - max(low, old)) / (high - low)
        else:
            place = min(max((new + 0.5) * length / wanted - 0.5, 0), length - 1)
            first = min(int(place), max(length - 2, 0))
            matrix[new, first] += 1 - (place - first)
            if length > 1:
                matrix[new, first + 1] += place - first
    return matrix


@pytest.mark.parametrize("size_wh", [*SHAPES_WH, (1, 1), (2, 3), (1, 400), (400, 1), (320, 7), (448, 100)])
@pytest.mark.parametrize("side", [32, 224])
def test_resizing_averages_what_shrinks_and_interpolates_what_grows(size_wh, side):
    image = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    wanted = np.einsum("yh,hwc,xw->yxc", shares(size_wh[1], side), image, shares(size_wh[0], side), optimize=True)
    resized = resize(image, (side, side))
    assert resized.dtype == np.uint8 and np.abs(resized - wanted).max() <= 2
    assert np.array_equal(resize(image[..., 0], (side, side)), resized[..., 0])
    turned = resize(np.ascontiguousarray(image[::-1, ::-1]), (side, side))[::-1, ::-1]
    assert np.abs(turned.astype(int) - resized).max() <= 1


def light_in_view(view, size_wh, centre_xy, radius):
    """An image in which a spot is that is round in the view, and there at ``centre_xy``."""
    y, x = np.mgrid[: size_wh[1], : size_wh[0]] + 0.5
    u, v = (a * x + b * y + c for a, b, c in view.matrix)
    light = 20 + 180 * np.exp(-((u - centre_xy[0]) ** 2 + (v - centre_xy[1]) ** 2) / (2 * radius**2))
    return np.repeat(light.round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("moved", [False, True])
def test_pixels_of_a_view_are_where_its_matrix_puts_them(moved):
    generator = np.random.default_rng(int(moved))
    offsets = []
    for _ in range(60):
        size_wh = np.exp(generator.uniform(np.log(40), np.log(1500), 2)).astype(int)
        side = int(generator.choice([224, 320, 301]))
        view = View.of(
            tuple(size_wh), (side, side), AffineRange(15, 0.15, 0.15).draw(generator, (side, side)) if moved else None
        )
        pixel = np.linalg.norm(view.matrix[:, :2], axis=0).max()  # of the image, in the view
        centre = generator.uniform(0.4, 0.6, 2) * side
        seen = view.pixels(light_in_view(view, size_wh, centre, max(side / 30, 1.2 * pixel)))
        offsets.append(middle_of(seen[..., 1]) - centre)
        assert np.abs(offsets[-1]).max() < max(0.05, pixel / 50)  # OpenCV 4 knows places to a 32nd of a pixel
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.01


def test_keypoints_move_with_the_pixels_to_where_they_are_found_anew():
    """Found in the photograph and moved, or found in the moved view: what `--regions` chooses between."""
    generator = np.random.default_rng(2)
    offsets = []
    for size_wh in [(224, 224), (640, 480), (275, 183), (900, 160)] * 5:
        view = View.of(size_wh, (224, 224), AffineRange(15, 0.15, 0.15).draw(generator, (224, 224)))
        middle = view.matrix[:, :2] @ np.divide(size_wh, 2) + view.matrix[:, 2]
        image = light_in_view(view, size_wh, middle, 7)
        cached = partners(detect_keypoints(squash(image, 224)), np.array([(112.0, 112)]))[0] + 112
        carried = view.matrix[:, :2] @ (cached * np.divide(size_wh, 224)) + view.matrix[:, 2]
        offsets.append(partners(detect_keypoints(squash(view.pixels(image), 224)), carried[None])[0])
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.05


def test_hulls_of_a_large_photograph_are_not_a_few_pixels_off():
    """Thirty spots, 18 times reduced: a quarter pixel of the grid would be 4.5 pixels here."""
    size_wh = (4032, 3024)
    image = np.full((size_wh[1], size_wh[0], 3), 20, dtype=np.uint8)
    centres = [(x, y) for y in range(400, 2800, 450) for x in range(400, 3800, 700)]
    for number, (x, y) in enumerate(centres):
        image[y - 200 : y + 200, x - 200 : x + 200] = spot((400, 400), (200, 200), (54, 41), 100 + 4 * number)
    found = propose_regions(image, ProposalSettings()).hull_xy
    offsets = partners(np.array(centres, dtype=float), found)
    near = np.abs(offsets).max(axis=1) < 20
    assert near.sum() > 15
    assert np.abs(offsets[near].mean(axis=0)).max() < 0.5
    assert np.abs(found * 10 - (found * 10).round()).max() < 0.01  # and to the file's tenth of a pixel


@pytest.mark.parametrize("size_wh", [(224, 224), (700, 140), (140, 700)])
def test_a_place_of_the_feature_map_is_the_seventh_that_was_averaged(size_wh, monkeypatch):
    """A network whose map is the mean of each 32 x 32 pixels: the light place's box is where the light is."""
    monkeypatch.setattr(networks, "_resnet50", lambda weights: nn.AvgPool2d(32))
    width, height = size_wh
    place = np.array([width * 2 / 7, height * 4 / 7, width * 3 / 7, height * 5 / 7])
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[int(place[1]) : int(place[3]), int(place[0]) : int(place[2])] = (255, 60, 0)
    settings = ProposalSettings(method="cnn-features", primary=2, kinds="primary", slot_order="mixture")
    torch.manual_seed(0)
    boxes = propose_regions(image, settings).primary_xyxy.tolist()
    assert place.tolist() in [np.round(box).tolist() for box in boxes]


def test_opencvs_bias_is_what_it_is_taken_for():
    """What `SIFT_BIAS` takes away is what the installed OpenCV's own positions have too much."""
    generator = np.random.default_rng(5)
    sift = cv2.SIFT_create(enable_precise_upscale=False)
    offsets = []
    for _ in range(40):
        centre = generator.uniform(90, 130, 2)
        found = sift.detect(spot((224, 224), centre, (3, 3))[..., 0], None)
        offsets.append(partners(np.array([point.pt for point in found]) + 0.5, centre[None])[0])
    assert np.abs(np.mean(offsets, axis=0) - 0.25).max() < 0.01

"""Pictures of regions: what is drawn is where it belongs, in its region's colour."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from agnet.data.boxes.reader import read_boxes
from agnet.data.drawing import SLOT_COLOURS, draw_boxes, place_tags, save_picture, spots_in_box
from agnet.data.errors import ConfigurationError, ImageError
from agnet.data.palette import RULE, WRONG
from agnet.data.regions import Layout, Regions
from agnet.proposals import figures
from agnet.proposals.figures import Tile, choose_pairs, draw_proposal, draw_sheet
from agnet.proposals.hulls import IN_NO_GROUP, Groups, in_slot_order, regions_of_groups
from agnet.proposals.inspection import picture_image, picture_sheet
from agnet.proposals.settings import SLOT_ORDERS

GREY = np.full((100, 150, 3), 127, dtype=np.uint8)


def rgb(colour):
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def is_colour(picture, colour):
    return (np.asarray(picture) == rgb(colour)).all(axis=-1)


def two_groups():
    """Four keypoints lower right, three upper left, one of them twice."""
    points = [(110, 60), (140, 60), (140, 90), (110, 90), (20, 10), (40, 30), (40, 30)]
    return Groups(
        points_xy=np.array(points, dtype=np.float64),
        labels=np.array([1, 1, 1, 1, 0, 0, 0]),
        weights=np.array([0.4, 0.6]),
        centres_xy=np.array([(30.0, 20.0), (125.0, 75.0)]),
        distinct=6,
    )


def regions_of(groups, kinds="both"):
    return regions_of_groups(groups, Layout(2, kinds), "weight", (150, 100))


@pytest.mark.parametrize("slot_order", SLOT_ORDERS)
def test_groups_in_slot_order_are_the_regions_groups(slot_order):
    generator = np.random.default_rng(0)
    labels = np.append(generator.integers(0, 5, 60), IN_NO_GROUP)
    points = generator.uniform(0, 100, (61, 2)).round(1)
    weights = generator.dirichlet(np.ones(5))
    centres = np.array([points[labels == group].mean(axis=0) for group in range(5)])
    groups = Groups(points, labels, weights, centres, 61)
    regions = regions_of_groups(groups, Layout(5), slot_order, (100, 100))
    ordered = in_slot_order(groups, slot_order)
    for slot, box in enumerate(regions.primary_xyxy):
        own = points[ordered.labels == slot]
        assert np.allclose(box, [*own.min(axis=0), *own.max(axis=0)], atol=1e-4)
        assert ordered.weights[slot] == pytest.approx(regions.weights[slot])
        assert np.allclose(ordered.centres_xy[slot], own.mean(axis=0))
    assert ordered.labels[-1] == IN_NO_GROUP


def test_a_ring_is_where_its_keypoint_is():
    photograph = Image.fromarray(GREY).resize((600, 400))
    drawn = figures._draw_rings(photograph, np.array([(200.0, 100.0)]))
    rows, columns = np.nonzero(is_colour(drawn, figures._RING))
    assert (columns.min() + columns.max()) / 2 == pytest.approx(200, abs=1)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(100, abs=1)
    # A ring, not a disc: the place itself can be seen.
    assert not is_colour(drawn, figures._RING)[100, 200]


def test_keypoints_and_hulls_have_their_regions_colours():
    photograph = Image.fromarray(GREY).resize((600, 400))
    points = np.array([(100.0, 100), (200, 100), (150, 300), (400, 100), (500, 100), (450, 300)])
    drawn = figures._draw_clusters(photograph, points, np.array([1, 1, 1, 0, 0, 0]))
    for slot, (left, right) in ((1, (100, 200)), (0, (400, 500))):
        rows, columns = np.nonzero(is_colour(drawn, SLOT_COLOURS[slot]))
        assert columns.min() == pytest.approx(left, abs=8) and columns.max() == pytest.approx(right, abs=8)
        assert rows.min() == pytest.approx(100, abs=8) and rows.max() == pytest.approx(300, abs=8)


def panels(image, regions, groups, monkeypatch):
    """Caption -> panel of a picture."""
    seen = {}
    whole = figures._page

    def keep(parts, *rest):
        seen.update({part.caption: np.asarray(part.picture) for part in parts})
        return whole(parts, *rest)

    monkeypatch.setattr(figures, "_page", keep)
    draw_proposal(image, regions, groups, "a.jpg", "facts")
    return seen


def test_every_step_has_its_panel(monkeypatch):
    groups = in_slot_order(two_groups(), "weight")
    seen = panels(GREY, regions_of(two_groups()), groups, monkeypatch)
    assert list(seen) == [
        "photograph",
        "7 keypoints",
        "in clusters, with their hulls",
        "primary regions",
        "1 of 1 secondary region",
        "the primary regions in numbers",
    ]
    # 150 pixels become 460, and a hairline around.
    assert seen["photograph"].shape == (307 + 2, 460 + 2, 3)


def test_primaries_are_drawn_at_their_boxes_in_their_colours(monkeypatch):
    drawn = panels(GREY, regions_of(two_groups()), None, monkeypatch)["primary regions"]
    scale = 460 / 150
    # Slot 0 is the group of four points, though it was numbered 1.
    for slot, box in ((0, (110, 60, 140, 90)), (1, (20, 10, 40, 30))):
        rows, columns = np.nonzero(is_colour(drawn, SLOT_COLOURS[slot]))
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert edges == pytest.approx([side * scale + 1 for side in box], abs=1.5)


def test_a_pairs_box_has_both_colours(monkeypatch):
    drawn = panels(GREY, regions_of(two_groups(), "secondary"), None, monkeypatch)["1 of 1 secondary region"]
    scale = 460 / 150
    for colour in SLOT_COLOURS[:2]:
        rows, columns = np.nonzero(is_colour(drawn, colour))
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        # Dashes of one colour may begin or end a dash further in.
        assert edges == pytest.approx([side * scale + 1 for side in (20, 10, 140, 90)], abs=14)


def test_layouts_and_methods_leave_panels_out(monkeypatch):
    seen = panels(GREY, regions_of(two_groups(), "primary"), None, monkeypatch)
    assert list(seen) == ["photograph", "primary regions", "the primary regions in numbers"]


def test_too_few_keypoints_are_said(monkeypatch):
    groups = replace(two_groups(), labels=np.full(7, IN_NO_GROUP))
    seen = panels(GREY, regions_of(groups), groups, monkeypatch)
    assert list(seen) == ["photograph", "7 keypoints", "every region is the whole image", "too few keypoints"]


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 300), (400, 1), (900, 100), (100, 900), (300, 120), (120, 300)])
@pytest.mark.parametrize("kappa", [2, 16, 36])
def test_a_picture_comes_of_any_shape_and_number_of_regions(size_wh, kappa):
    width, height = size_wh
    generator = np.random.default_rng(1)
    points = generator.uniform(0, size_wh, (4 * kappa, 2))
    groups = Groups(points, np.arange(4 * kappa) % kappa, np.full(kappa, 1 / kappa), points[:kappa], 4 * kappa)
    regions = regions_of_groups(groups, Layout(kappa), "weight", size_wh)
    picture = draw_proposal(np.zeros((height, width, 3), np.uint8), regions, groups, "é" * 300, "facts", "a note")
    assert picture.dtype == np.uint8 and 560 <= picture.shape[1] < 2400 and picture.shape[0] < 3400


def test_the_most_different_boxes_are_chosen():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 10], [50, 0, 60, 10], [0, 0, 9.5, 9.5], [0, 50, 10, 60]])
    assert choose_pairs(boxes, 3) == [0, 2, 4]
    assert choose_pairs(boxes[[0, 0, 0]], 3) == [0]
    assert choose_pairs(np.zeros((0, 4)), 4) == []


def test_edges_that_coincide_are_parted():
    boxes = np.array([[0.0, 0, 300, 300], [0, 0, 200, 200], [100, 100, 290, 290]])
    parted = np.array(figures._part_edges(boxes))
    assert parted[0].tolist() == [0, 0, 300, 300] and parted[2].tolist() == [100, 100, 290, 290]
    assert 0 < parted[1, 0] < 20 and parted[1, 2:].tolist() == [200, 200]


def test_tags_hide_neither_each_other_nor_leave_the_picture():
    sizes = [(20.0, 10.0)] * 8
    places = place_tags([spots_in_box((0, 0, 100, 80), size) for size in sizes], sizes, (100, 80))
    for number, (x, y) in enumerate(places):
        assert 0 <= x <= 80 and 0 <= y <= 70
        assert all(abs(x - a) >= 20 or abs(y - b) >= 10 for a, b in places[:number])
    assert place_tags([[(95, -5)]], [(20, 10)], (100, 80)) == [(80, 0)]


def test_boxes_that_lie_on_each_other_keep_their_labels():
    boxes = np.tile([[10.0, 10.0, 90.0, 90.0]], (4, 1))
    picture = draw_boxes(np.zeros((100, 100, 3), np.uint8), boxes, ["0", "1", "2", "3"], width=1)
    for colour in SLOT_COLOURS[:3]:  # whose lines are under the last one's
        assert is_colour(picture, colour).sum() > 40


def test_a_sheet_has_a_tile_for_each_image():
    regions = regions_of(two_groups())
    tiles = [Tile(GREY, regions, "class", f"row {number}", f"folder/{number}.jpg") for number in range(5)]
    sheet = draw_sheet([*tiles, Tile(None, None, "class", "row 5", "gone.jpg", "it is gone")])
    assert sheet.shape[1] > sheet.shape[0] > 400  # 3 by 2
    assert is_colour(sheet, RULE).sum() > 200 * 200
    reds = is_colour(sheet, SLOT_COLOURS[0]).any(axis=0)
    assert reds[: sheet.shape[1] // 3].any() and reds[sheet.shape[1] // 3 :].any()


def test_a_sheet_tells_rows_splits_and_what_is_odd(monkeypatch):
    written, draw = [], figures.draw_text
    monkeypatch.setattr(figures, "draw_text", lambda *given: (written.append(given[2]), draw(*given))[1])
    regions = regions_of(two_groups())
    few = replace(regions, keypoints=np.zeros(2, np.int32))
    plain = draw_sheet([Tile(GREY, regions, "ant", "row 7 · train · ok", "a.jpg")])
    marked = draw_sheet([Tile(GREY, few, "ant", "row 8 · val · few keypoints", "b.jpg")])
    draw_sheet([Tile(None, None, "bee", "row 9 · test · unreadable", "c.jpg", "its content is cut off")])
    assert {"row 7 · train · ok", "row 8 · val · few keypoints", "its content is cut off"} <= set(written)
    assert not is_colour(marked, SLOT_COLOURS[0]).any() and is_colour(plain, SLOT_COLOURS[0]).any()


@pytest.fixture
def boxes(boxes_file):
    return read_boxes(boxes_file)


def test_the_files_regions_are_found_again(boxes, folder):
    for image in (0, 7, 17):
        picture, warning = picture_image(boxes, image, folder)
        assert warning == "" and picture.shape[1] > 900


def test_another_image_of_the_name_is_drawn_with_the_files_boxes(boxes, folder, textured):
    name = boxes.names[0].decode()
    Image.fromarray(textured(5, 300, 200)).save(folder / name)
    picture, warning = picture_image(boxes, 0, folder)
    assert name in warning and "\n" not in warning
    assert is_colour(picture, WRONG).any()  # said in the picture, too


def test_positions_of_another_revision_are_told_from_another_image(boxes, folder):
    versions = {name: what for name, what in boxes.settings["versions"].items() if name != "agnet's sift"}
    old = replace(boxes, hull_xy=boxes.hull_xy + 0.2, settings=boxes.settings | {"versions": versions})
    _, warning = picture_image(old, 0, folder)
    assert "since then agnet's sift has changed (propose again with --restart)" in warning


@pytest.fixture
def drawn_groups(monkeypatch):
    """The keypoint groups of each picture drawn while a test runs."""
    groups = []
    draw = figures.draw_proposal
    keep = lambda *arguments: groups.append(arguments[2]) or draw(*arguments)  # noqa: E731
    monkeypatch.setattr("agnet.proposals.inspection.draw_proposal", keep)
    return groups


def test_every_keypoint_is_drawn_in_the_slot_the_file_counts_it_in(boxes, folder, drawn_groups):
    picture_image(boxes, 7, folder)
    assert np.bincount(drawn_groups[0].labels).tolist() == boxes.keypoints[7].tolist()


@pytest.mark.parametrize("proposals", [{"primary": 3, "method": "another"}, {"primary": 3, "method": "sift", "new": 1}])
def test_settings_of_another_program_leave_the_keypoints_out(boxes, folder, drawn_groups, proposals):
    other = replace(boxes, settings={**boxes.settings, "proposals": proposals})
    _, warning = picture_image(other, 0, folder)
    assert "cannot be found again" in warning and drawn_groups == [None]


@pytest.mark.parametrize("method", ["mask-rcnn", "cnn-features"])
def test_regions_of_a_network_are_drawn_without_it(boxes, folder, drawn_groups, method):
    proposals = {**boxes.settings["proposals"], "method": method}
    _, warning = picture_image(replace(boxes, settings={"proposals": proposals}), 0, folder)
    assert warning == "" and drawn_groups == [None]


def test_a_sheet_shows_every_class_and_what_is_missing(boxes, folder, monkeypatch):
    shown = []
    monkeypatch.setattr("agnet.proposals.inspection.draw_sheet", lambda tiles: shown.extend(tiles))
    (folder / boxes.names[0].decode()).unlink()
    _, failures = picture_sheet(boxes, folder, 3)
    assert [tile.class_name for tile in shown] == ["ant", "bee", "côté"]
    assert len(failures) == 1 and shown[0].image is None and "is not there" in shown[0].reason
    splits = [str(boxes.splits[int(tile.facts.split()[1])]) for tile in shown]
    assert [tile.facts.split(" · ")[1:] for tile in shown] == [[split, "ok"] for split in splits]
    with pytest.raises(ImageError, match="--root"):
        picture_sheet(boxes, folder / "elsewhere", 3)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a.png"
    assert save_picture(GREY, target) == target
    with pytest.raises(ConfigurationError, match="XBM"):
        save_picture(GREY, tmp_path / "a.xbm")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with Image.open(target) as picture:
        assert np.array_equal(picture, GREY)


def test_regions_in_another_frame_are_scaled(monkeypatch):
    hull = np.array([(0, 0), (75, 0), (75, 50), (0, 50), (75, 50), (150, 50), (150, 100)], dtype=np.float32)
    counts = np.array([4, 3], dtype=np.int32)
    regions = Regions(hull, counts, counts, np.full(2, 0.5, np.float32), (150, 100), 7, 7, Layout(2))
    drawn = panels(np.zeros((200, 300, 3), np.uint8), regions, None, monkeypatch)["primary regions"]
    rows, columns = np.nonzero(is_colour(drawn, SLOT_COLOURS[0]))
    assert (columns.max(), rows.max()) == pytest.approx((230, 153), abs=2)

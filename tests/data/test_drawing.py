import numpy as np

from agnet.data.drawing import contact_sheet, draw_boxes, draw_regions, fit_within
from agnet.data.regions import Layout


def test_fitting_keeps_the_shape_and_sets_the_longer_side(textured):
    assert fit_within(textured(1, 200, 100), 50).shape == (25, 50, 3)
    assert fit_within(textured(1, 30, 120), 240).shape == (240, 60, 3)
    assert fit_within(np.zeros((1, 4000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_a_box_is_drawn_on_its_own_border_pixels():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    picture = draw_boxes(image, np.array([[10.0, 5.0, 30.0, 25.0]]), [""], colours=["#ff0000"], width=1)
    assert not image.any()
    red = (picture == (255, 0, 0)).all(axis=-1)
    expected = np.zeros((40, 60), dtype=bool)
    expected[5:25, 10:30] = True  # columns 10 to 29: x1 and y1 are exclusive
    expected[6:24, 11:29] = False
    assert np.array_equal(red, expected)


def test_a_box_between_pixels_is_drawn_at_the_nearest():
    drawn = draw_boxes(np.zeros((40, 60, 3), np.uint8), np.array([[9.6, 5.4, 30.7, 24.5]]), [""], ["#ff0000"], 1)
    rows, columns = np.nonzero(drawn[..., 0])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 5, 31, 24)


def test_a_label_is_drawn_at_the_upper_left_corner(textured):
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    box = np.array([[40.0, 30.0, 90.0, 90.0]])
    labelled = draw_boxes(image, box, ["7"], colours=["#ffff00"])
    changed = (labelled != draw_boxes(image, box, [""], colours=["#ffff00"])).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert (rows.min(), columns.min()) >= (30, 40)
    assert (rows.max(), columns.max()) < (60, 65)


def test_boxes_outside_and_thin_ones_can_be_drawn():
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    boxes = np.array([[-50.0, -50.0, 500.0, 500.0], [19.0, 19.0, 20.0, 20.0], [5.0, 5.0, 5.2, 5.1]])
    assert draw_boxes(image, boxes, ["a", "b", "c"]).shape == (20, 20, 3)


def test_regions_are_drawn_in_the_pictures_own_scale():
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 100, 50], [100, 50, 200, 100]], dtype=np.float32)
    picture = draw_regions(image, boxes, Layout(2), 400)
    assert picture.shape == (200, 400, 3)
    first, second = (0xE6, 0x19, 0x4B), (0x3C, 0xB4, 0x4B)
    for colour, (left, top, right, bottom) in ((first, (0, 0, 200, 100)), (second, (200, 100, 400, 200))):
        rows, columns = np.nonzero((picture == colour).all(axis=-1))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


def test_a_contact_sheet_has_a_cell_for_each_picture():
    pictures = [np.full((20, 40, 3), value, dtype=np.uint8) for value in (100, 150, 200)]
    sheet = contact_sheet(pictures, 2, (50, 30))
    assert sheet.shape == (60, 100, 3)
    assert [sheet[15, 25, 0], sheet[15, 75, 0], sheet[45, 25, 0]] == [100, 150, 200]
    assert sheet[45, 75].tolist() == sheet[0, 0].tolist() == [0xFF] * 3

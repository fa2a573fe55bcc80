"""Boxes where they belong, in the colour of their class; sheets that keep every image whole."""

import colorsys

import numpy as np
import pytest

from detkit.report.pictures import class_colour, contact_sheet, draw_detections

NAMES = ("face", "cat")
NONE = (np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))


def grey(height: int, width: int, value: int = 90) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def is_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (pixels == np.array(colour, np.uint8)).all(axis=-1)


def test_borders_take_the_colour_of_their_class_and_the_inside_stays():
    boxes = np.array([[100.0, 120, 200, 240], [300, 300, 400, 380]])
    drawn = draw_detections(grey(500, 500), boxes, np.array([0, 1]), np.array([0.9, 0.4]), class_names=NAMES)
    for (x0, y0, x1, y1), label in zip(boxes.astype(int), (0, 1), strict=True):
        colour = class_colour(label)
        assert is_colour(drawn[y0:y1, [x0, x1]], colour).all()
        assert is_colour(drawn[[y0, y1], x0:x1], colour).all()
        assert is_colour(drawn[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5], (90, 90, 90)).all()
    assert is_colour(drawn[420:], (90, 90, 90)).all()


def test_the_image_given_is_not_drawn_on():
    image = grey(500, 500)
    draw_detections(image, np.array([[10.0, 10, 90, 90]]), np.array([0]), np.array([0.5]), class_names=NAMES)
    assert (image == 90).all()


@pytest.mark.parametrize(("size", "scale"), [((192, 160), 3), ((480, 300), 1), ((1333, 800), 1)])
def test_small_images_are_enlarged_by_a_whole_number_and_boxes_with_them(size: tuple[int, int], scale: int):
    drawn = draw_detections(
        grey(*size), np.array([[40.0, 60, 100, 120]]), np.array([1]), np.array([0.5]), class_names=NAMES
    )
    assert drawn.shape == (size[0] * scale, size[1] * scale, 3)
    assert is_colour(drawn[60 * scale : 120 * scale, [40 * scale, 100 * scale]], class_colour(1)).all()


def test_the_tag_holds_text_on_the_class_colour_above_the_box():
    drawn = draw_detections(
        grey(500, 500), np.array([[100.0, 120, 200, 240]]), np.array([0]), np.array([0.87]), class_names=NAMES
    )
    tag = drawn[104:118, 100:140]
    assert is_colour(tag, class_colour(0)).mean() > 0.3
    assert (tag.astype(int).sum(axis=-1) < 120).any()  # black ink on a light colour


@pytest.mark.parametrize("box", [(0.0, 0, 60, 60), (440.0, 0, 500, 500), (-50.0, -50, 700, 700)])
def test_tags_and_boxes_that_leave_the_picture_stay_inside(box: tuple[float, ...]):
    drawn = draw_detections(
        grey(500, 500), np.array([box]), np.array([0]), np.array([0.5]), class_names=("a rather long name",)
    )
    assert drawn.shape == (500, 500, 3)
    assert is_colour(drawn, class_colour(0)).sum() > 1000


def test_the_better_score_lies_on_top():
    box = np.array([[100.0, 100, 200, 200]] * 2)
    drawn = draw_detections(grey(500, 500), box, np.array([0, 1]), np.array([0.9, 0.2]), class_names=NAMES)
    assert is_colour(drawn[100:200, 100], class_colour(0)).all()


def test_true_boxes_are_dashed_and_seen_on_white_and_black():
    truth = np.array([[100.0, 100, 300, 300]])
    for ground in (0, 255):
        drawn = draw_detections(grey(500, 500, ground), *NONE, class_names=NAMES, truth=truth)
        edge = drawn[100, 100:300].astype(int).sum(axis=-1)
        assert (edge < 30).mean() > 0.2
        assert (edge > 700).mean() > 0.2
        changes = np.count_nonzero(np.diff(edge > 380))
        assert changes > 10
        assert (drawn[110:290, 110:290] == ground).all()


def test_nothing_to_draw_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    drawn = draw_detections(image, *NONE, class_names=NAMES, truth=np.zeros((0, 4)))
    np.testing.assert_array_equal(drawn, image)


def test_thirty_classes_have_thirty_colours():
    colours = [class_colour(label) for label in range(30)]
    assert len(set(colours)) == 30
    for red, green, blue in colours:
        assert colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[2] > 0.5


def test_a_sheet_holds_every_image_whole_in_order():
    images = [grey(20, 30, 10), grey(40, 10, 20), grey(20, 30, 30), grey(6, 6, 40), grey(20, 30, 50)]
    sheet = contact_sheet(images, columns=3, gap=4)
    assert sheet.shape == (4 + 40 + 4 + 20 + 4, 4 + 30 + 4 + 30 + 4 + 30 + 4, 3)
    for image in images:
        value = image[0, 0, 0]
        assert (sheet[..., 0] == value).sum() == image.shape[0] * image.shape[1]
    centre = {
        int(image[0, 0, 0]): np.argwhere(sheet[..., 0] == image[0, 0, 0]).mean(axis=0) for image in images
    }
    assert centre[10][1] < centre[20][1] < centre[30][1]
    assert centre[40][1] < centre[50][1]
    assert centre[40][0] > max(centre[value][0] for value in (10, 20, 30))
    assert centre[10][0] == centre[20][0]


def test_large_images_are_shrunk_to_their_cell():
    sheet = contact_sheet([grey(1000, 500), grey(50, 50)], columns=2, cell=100, gap=0)
    assert sheet.shape == (100, 100, 3)
    assert is_colour(sheet[:, :50], (90, 90, 90)).all()


def test_fewer_images_than_columns_and_none_at_all():
    assert contact_sheet([grey(10, 10)], columns=5, gap=2).shape == (14, 14, 3)
    assert (contact_sheet([], columns=3) == 255).all()

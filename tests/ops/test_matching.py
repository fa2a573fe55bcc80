"""Anchor matching against explicit loops, torchvision and its laws."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_reference import match_loop

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import match_anchors, reference

HALF = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 4.5], [0, 0, 10, 3]])


def random_boxes(count, generator, size=100.0, snap=None):
    corner = size * torch.rand(count, 2, generator=generator)
    extent = 0.5 * size * torch.rand(count, 2, generator=generator) ** 2
    boxes = torch.cat([corner, corner + extent], dim=1)
    return boxes if snap is None else (boxes / snap).round() * snap


@pytest.fixture(scope="module")
def torchvision_match():
    """Matches of one image by torchvision's box_iou and Matcher, which wants at least one box."""
    box_iou = pytest.importorskip("torchvision.ops").box_iou
    matcher_class = pytest.importorskip("torchvision.models.detection._utils").Matcher

    def match(anchors, boxes, foreground=0.5, background=0.4, low_quality=True):
        return matcher_class(foreground, background, low_quality)(box_iou(boxes, anchors))

    return match


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.5, 0.5), (0.7, 0.3)])
def test_equals_the_definition(thresholds, low_quality):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        anchors = random_boxes(30, generator, 24, snap=2)
        boxes = [random_boxes(count, generator, 24, snap=2) for count in (3, 0, 5)]
        boxes = [image[(image[:, 2:] > image[:, :2]).all(dim=1)] for image in boxes]
        found = match_anchors(
            anchors,
            boxes,
            foreground_iou=thresholds[0],
            background_iou=thresholds[1],
            low_quality=low_quality,
        )
        assert found.dtype == torch.int32
        assert found.tolist() == [match_loop(anchors, image, *thresholds, low_quality) for image in boxes]


def test_the_three_outcomes_at_the_thresholds():
    (matches,) = match_anchors(HALF, [HALF[:1]], low_quality=False)
    assert matches.tolist() == [0, 0, BACKGROUND, IGNORE, BACKGROUND]


@pytest.mark.parametrize("snap", [None, 8.0])
@pytest.mark.parametrize("low_quality", [False, True])
def test_labels_are_torchvisions(torchvision_match, snap, low_quality):
    """Snapped to a coarse grid, boxes coincide and tie; boxes that overlap no anchor are left out: there torchvision
    differs."""
    generator = torch.Generator().manual_seed(1)
    for case in range(800):
        anchors = random_boxes(60, generator, snap=snap)
        anchors = anchors[(anchors[:, 2:] > anchors[:, :2]).all(dim=1)]
        boxes = random_boxes(1 + case % 9, generator, snap=snap)
        boxes = torch.cat([boxes, boxes[: case % 3]])
        boxes = boxes[reference.box_iou(anchors, boxes).amax(dim=0) > 0]
        if len(boxes):
            expected = torchvision_match(anchors, boxes, low_quality=low_quality)
            (found,) = match_anchors(anchors, [boxes], low_quality=low_quality)
            assert torch.equal(found.long(), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6, 1e14])
def test_labels_are_torchvisions_on_many_anchors_of_any_size(torchvision_match, scale):
    generator = torch.Generator().manual_seed(2)
    anchors = scale * random_boxes(40000, generator)
    boxes = scale * torch.cat(
        [random_boxes(40, generator), anchors[:5] / scale, torch.tensor([[-1e4, -1e4, 2e4, 2e4]])]
    )
    expected = torchvision_match(anchors, boxes)
    (found,) = match_anchors(anchors, [boxes])
    assert torch.equal(found.long(), expected)
    assert found.max() > 30


def test_a_box_that_overlaps_no_anchor_matches_none():
    boxes = torch.tensor([[500.0, 500, 510, 510], [0, 0, 10, 10]])
    (matches,) = match_anchors(HALF, [boxes])
    assert matches.tolist() == [1, 1, BACKGROUND, IGNORE, BACKGROUND]
    (matches,) = match_anchors(HALF, [boxes[:1]])
    assert matches.tolist() == [BACKGROUND] * 5


def test_a_box_far_smaller_than_any_anchor_is_still_matched():
    """To the only anchor that it overlaps, though their IoU is too small for a float to hold with all its digits."""
    sides = torch.logspace(-18, -14, 1000)[:, None]
    small = torch.cat([torch.zeros(1000, 2), sides, sides], dim=1)
    anchors = torch.tensor([[0.0, 0, 3e4, 3e4], [5e4, 0, 8e4, 3e4]])
    iou = reference.box_iou(anchors, small)[0]
    assert ((iou > 0) & (iou < torch.finfo(torch.float32).smallest_normal)).sum() > 700
    matches = match_anchors(anchors, list(small[:, None]))
    assert torch.equal(matches[:, 0] == 0, iou > 0)


def test_low_quality_keeps_every_tie_and_gives_an_anchor_its_own_best_box():
    anchors = torch.tensor([[0.0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]])
    small = torch.tensor([[0.0, 0, 2, 2], [0, 0, 9, 9], [105, 0, 205, 10]])
    (matches,) = match_anchors(anchors, [small])
    assert matches.tolist() == [1, 2, 2]
    (matches,) = match_anchors(anchors, [small], low_quality=False)
    assert matches.tolist() == [1, BACKGROUND, BACKGROUND]


def test_the_first_of_equal_boxes_wins():
    (matches,) = match_anchors(HALF, [HALF[[2, 0, 0]]])
    assert matches.tolist() == [1, 1, 0, IGNORE, BACKGROUND]


@pytest.mark.parametrize("value", [0.0, 5.0, torch.nan, torch.inf])
def test_boxes_without_area_or_number_match_nothing(value):
    boxes = torch.full((1, 4), value)
    anchors = torch.cat([HALF, boxes])
    (matches,) = match_anchors(anchors, [boxes])
    assert matches.tolist() == [BACKGROUND] * 6


def test_empty_input():
    none = torch.empty(0, 4)
    assert match_anchors(HALF, []).shape == (0, 5)
    assert match_anchors(none, [HALF, none]).shape == (2, 0)
    assert match_anchors(HALF, [none, none]).eq(BACKGROUND).all()
    assert match_anchors(HALF[:1], [HALF[:1], none]).tolist() == [[0], [BACKGROUND]]


def test_an_image_does_not_change_the_next():
    generator = torch.Generator().manual_seed(3)
    anchors = random_boxes(5000, generator)
    images = [random_boxes(count, generator) for count in (4, 0, 700, 1)]
    together = match_anchors(anchors, images)
    assert all(
        torch.equal(row, match_anchors(anchors, [image])[0])
        for row, image in zip(together, images, strict=True)
    )
    assert torch.equal(together, match_anchors(anchors, images))


def test_several_threads_at_once_do_not_change_the_matches():
    generator = torch.Generator().manual_seed(5)
    anchors = random_boxes(20_000, generator)
    images = [[random_boxes(count, generator)] for count in (3, 300, 40, 1)]
    expected = [match_anchors(anchors, boxes) for boxes in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda boxes: match_anchors(anchors, boxes), 10 * images))
    assert all(torch.equal(one, other) for one, other in zip(found, 10 * expected, strict=True))


def test_the_number_of_threads_does_not_change_the_matches():
    generator = torch.Generator().manual_seed(6)
    anchors = random_boxes(50_000, generator)
    images = [random_boxes(count, generator) for count in (3, 300, 40, 0, 1)]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(match_anchors(anchors, images))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(matches, found[0]) for matches in found[1:])


@given(st.integers(1, 60), st.integers(0, 12), st.integers(0, 10**6), st.booleans())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_permuting_anchors_permutes_the_matches(anchor_count, box_count, seed, low_quality):
    generator = torch.Generator().manual_seed(seed)
    anchors, boxes = random_boxes(anchor_count, generator, snap=4), random_boxes(box_count, generator, snap=4)
    order = torch.randperm(anchor_count, generator=generator)
    matches = match_anchors(anchors, [boxes], low_quality=low_quality)
    assert torch.equal(match_anchors(anchors[order], [boxes], low_quality=low_quality), matches[:, order])


@pytest.mark.parametrize("low_quality", [False, True])
def test_the_reference_gives_the_same_also_over_several_blocks(low_quality):
    generator = torch.Generator().manual_seed(4)
    anchors = random_boxes(2 * reference.ANCHORS_PER_BLOCK + 17, generator)
    boxes = [random_boxes(12, generator), torch.empty(0, 4), random_boxes(2, generator), HALF + 1e6]
    found = match_anchors(anchors, boxes, low_quality=low_quality)
    expected = reference.match_anchors(
        anchors, boxes, foreground_iou=0.5, background_iou=0.4, low_quality=low_quality
    )
    assert torch.equal(found, expected)


def test_any_layout_of_anchors_and_boxes():
    columns = HALF.t().contiguous().t()
    strided = torch.cat([HALF, HALF], dim=1)[:, 4:]
    assert torch.equal(match_anchors(columns, [strided]), match_anchors(HALF, [HALF]))


def test_the_op_keeps_the_rules_of_torch_library():
    parameters = {"foreground_iou": 0.5, "background_iou": 0.4, "low_quality": True}
    torch.library.opcheck(torch.ops.detkit.match_anchors.default, (HALF, [HALF[:1], HALF[:0]]), parameters)


def test_compiles_without_a_graph_break():
    compiled = torch.compile(lambda a, b: match_anchors(a, [b, b[:1]]), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(HALF, HALF), match_anchors(HALF, [HALF, HALF[:1]]))


@pytest.mark.parametrize(
    ("error", "message", "anchors", "boxes", "parameters"),
    [
        (TypeError, "anchors are torch.float64; expected float32", HALF.double(), [HALF], {}),
        (TypeError, "boxes of image 1 are torch.int32", HALF, [HALF, HALF.int()], {}),
        (ValueError, r"anchors have shape \[5\]", HALF[:, 0], [HALF], {}),
        (ValueError, r"boxes of image 0 have shape \[5, 3\]", HALF, [HALF[:, :3]], {}),
        (ValueError, "boxes of image 0 are on meta", HALF, [HALF.to("meta")], {}),
        (ValueError, "background_iou is 0.6", HALF, [HALF], {"background_iou": 0.6}),
        (ValueError, "background_iou is 0 ", HALF, [HALF], {"background_iou": 0}),
        (ValueError, "foreground_iou 1.5", HALF, [HALF], {"foreground_iou": 1.5}),
    ],
)
def test_says_what_is_wrong(error, message, anchors, boxes, parameters):
    with pytest.raises(error, match=message):
        match_anchors(anchors, boxes, **parameters)

"""Precision, recall and F1 at a score, against counts by hand and by loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.evaluation import DetectionTable, GroundTruth, match_detections, operating_point

BOX = [10, 10, 110, 110]
FAR = [300, 300, 400, 400]


def triple(counts) -> tuple[int, int, int]:
    return counts.true_positives, counts.false_positives, counts.false_negatives


def test_one_right_one_wrong_one_missing(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX)])
    found = operating_point(ground_truth, make_table([(1, 1, BOX, 0.5), (1, 1, FAR, 0.9)]), score=0.5)
    assert triple(found.overall) == (1, 1, 1)
    assert (found.overall.precision, found.overall.recall, found.overall.f1) == (0.5, 0.5, 0.5)


def test_only_detections_of_at_least_the_score_count(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    table = make_table([(1, 1, BOX, 0.5), (1, 1, FAR, 0.49)])
    assert triple(operating_point(ground_truth, table, score=0.5).overall) == (1, 0, 0)
    assert triple(operating_point(ground_truth, table, score=0.4).overall) == (1, 1, 0)
    assert triple(operating_point(ground_truth, table, score=0.6).overall) == (0, 0, 1)


def test_an_overlap_of_exactly_one_half_is_enough(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, [0, 0, 100, 100])])
    assert triple(operating_point(ground_truth, make_table([(1, 1, [0, 0, 100, 50], 1)])).overall) == (
        1,
        0,
        0,
    )
    assert triple(operating_point(ground_truth, make_table([(1, 1, [0, 0, 100, 49], 1)])).overall) == (
        0,
        1,
        1,
    )


def test_a_second_detection_of_an_object_is_wrong(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    assert triple(operating_point(ground_truth, make_table([(1, 1, BOX, 0.9)] * 2)).overall) == (1, 1, 0)


def test_the_surer_detection_takes_the_object(make_ground_truth, make_table):
    near = [10, 10, 110, 100]
    matches = match_detections(
        make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, BOX, 0.6), (1, 1, near, 0.9)])
    )
    assert matches.objects.tolist() == [-1, 0]
    assert matches.correct.tolist() == [False, True]


def test_detections_on_a_crowd_are_neither_right_nor_wrong(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, FAR, True), (1, 1, BOX)])
    inside = [310, 310, 320, 320]
    table = make_table([(1, 1, inside, 0.9), (1, 1, inside, 0.8), (1, 1, BOX, 0.7)])
    matches = match_detections(ground_truth, table)
    assert matches.objects.tolist() == [0, 0, 1]
    assert matches.ignored.tolist() == [True, True, False]
    assert triple(operating_point(ground_truth, table).overall) == (1, 0, 0)


def test_an_object_goes_before_a_crowd_that_overlaps_more(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, [0, 0, 200, 200], True), (1, 1, [0, 0, 100, 60])])
    matches = match_detections(ground_truth, make_table([(1, 1, [0, 0, 100, 100], 0.9)]))
    assert matches.objects.tolist() == [1]


def test_an_overlap_of_one_can_be_asked_for(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, [0, 0, 100, 100]), (2, 1, [0, 0, 100, 100])])
    table = make_table([(1, 1, [0, 0, 100, 100], 0.9), (2, 1, [0, 0, 100, 99.99], 0.9)])
    assert match_detections(ground_truth, table, iou=1.0).objects.tolist() == [0, -1]


def test_classes_and_images_are_apart(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)], classes=("a", "b"))
    found = operating_point(ground_truth, make_table([(1, 2, BOX, 0.9), (2, 1, BOX, 0.9)]))
    assert [triple(counts) for counts in found.per_class] == [(0, 1, 1), (0, 1, 0)]
    assert triple(found.overall) == (0, 2, 1)


def test_what_is_not_defined_is_none(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)], classes=("a", "b"))
    nothing = operating_point(ground_truth, make_table([]))
    a, b = nothing.per_class
    assert (a.precision, a.recall, a.f1) == (None, 0, 0)
    assert (b.precision, b.recall, b.f1) == (None, None, None)
    only_wrong = operating_point(ground_truth, make_table([(1, 2, BOX, 0.9)])).per_class[1]
    assert (only_wrong.precision, only_wrong.recall, only_wrong.f1) == (0, None, 0)


def overlap(detection: list[float], box: list[float], crowd: bool) -> float:
    width = min(detection[2], box[2]) - max(detection[0], box[0])
    height = min(detection[3], box[3]) - max(detection[1], box[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (detection[2] - detection[0]) * (detection[3] - detection[1])
    other = (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area if crowd else area + other - width * height)


def count_slowly(ground_truth: GroundTruth, table: DetectionTable, score: float) -> dict[int, list[int]]:
    """Category id -> [right, wrong, missing], by loops."""
    counts = {id_: [0, 0, 0] for id_ in ground_truth.category_ids}
    free = [not crowd for crowd in ground_truth.crowd]
    for row in sorted(range(len(table)), key=lambda row: -table.scores[row]):
        if table.scores[row] < score:
            continue
        best, best_overlap, on_crowd = None, 0.5, False
        for index in range(len(ground_truth)):
            same = ground_truth.object_image_ids[index] == table.image_ids[row]
            if not same or ground_truth.object_category_ids[index] != table.category_ids[row]:
                continue
            crowd = bool(ground_truth.crowd[index])
            share = overlap(table.boxes[row].tolist(), ground_truth.boxes[index].tolist(), crowd)
            on_crowd |= crowd and share >= 0.5
            if free[index] and share >= best_overlap:
                best, best_overlap = index, share
        if best is not None:
            free[best] = False
            counts[int(table.category_ids[row])][0] += 1
        elif not on_crowd:
            counts[int(table.category_ids[row])][1] += 1
    for index, missing in enumerate(free):
        counts[int(ground_truth.object_category_ids[index])][2] += missing
    return counts


def random_case(seed: int) -> tuple[GroundTruth, DetectionTable]:
    rng = np.random.default_rng(seed)
    objects, detections = int(rng.integers(0, 20)), int(rng.integers(0, 60))
    image_ids, category_ids = np.array([5, 3, 9]), (4, 2, 11)

    def boxes(count: int) -> np.ndarray:
        corners = rng.integers(0, 6, (count, 2)) * 5.0
        return np.concatenate([corners, corners + rng.integers(1, 6, (count, 2)) * 10], axis=1)

    of_objects = boxes(objects)
    ground_truth = GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        class_names=("a", "b", "c"),
        object_image_ids=rng.choice(image_ids, objects),
        object_category_ids=rng.choice(category_ids[:2], objects),
        boxes=of_objects,
        areas=np.ones(objects),
        crowd=rng.random(objects) < 0.2,
    )
    table = DetectionTable(
        image_ids=rng.choice(image_ids, detections),
        boxes=boxes(detections).astype(np.float32),
        scores=rng.integers(0, 8, detections) / 8,
        category_ids=rng.choice(category_ids, detections),
    )
    return ground_truth, table


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), score=st.sampled_from([0.0, 0.25, 0.5, 0.8, 2.0]))
def test_same_as_loops_and_as_matching_first(seed, score):
    ground_truth, table = random_case(seed)
    found = operating_point(ground_truth, table, score=score)
    expected = count_slowly(ground_truth, table, score)
    assert [list(triple(counts)) for counts in found.per_class] == list(expected.values())
    assert list(triple(found.overall)) == [sum(column) for column in zip(*expected.values(), strict=True)]

    chosen = table.scores >= score
    before, after = (
        match_detections(ground_truth, table.select(chosen)),
        match_detections(ground_truth, table),
    )
    np.testing.assert_array_equal(before.objects, after.objects[chosen])
    np.testing.assert_array_equal(before.ignored, after.ignored[chosen])

"""What a detection is: each row of the table by hand, random data against loops and against pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkit.evaluation import DetectionTable, GroundTruth
from detkit.evaluation.detection_errors import (
    ClassifiedDetections,
    DetectionKind,
    IgnoreRegions,
    classify_detections,
)
from detkit.evaluation.json_rows import to_coco_boxes

BOX = [100, 100, 200, 200]
THIRD = [150, 100, 250, 200]  # IoU 1/3 with BOX
AWAY = [400, 400, 500, 500]
CLASSES = ("a", "b")


def kinds_of(classified: ClassifiedDetections) -> list[str]:
    return [DetectionKind(number).words for number in classified.kinds.tolist()]


@pytest.mark.parametrize(
    ("objects", "detection", "expected"),
    [
        ([(1, 1, BOX)], (1, 1, BOX, 0.9), ("correct", 0, 1)),
        ([(1, 1, BOX)], (1, 1, [100, 100, 200, 150], 0.9), ("correct", 0, 0.5)),
        ([(1, 1, BOX, True)], (1, 1, [120, 120, 140, 140], 0.9), ("ignored", -1, 0)),
        ([(1, 2, BOX, True)], (1, 1, [120, 120, 140, 140], 0.9), ("ignored", -1, 0)),
        ([(1, 2, BOX, True)], (1, 1, THIRD, 0.9), ("ignored", -1, 0)),
        ([(1, 2, BOX, True)], (1, 1, [160, 100, 260, 200], 0.9), ("background", -1, 0)),
        ([(1, 2, BOX)], (1, 1, BOX, 0.9), ("wrong class", 0, 1)),
        ([(1, 1, BOX)], (1, 1, THIRD, 0.9), ("bad localisation", 0, 1 / 3)),
        ([(1, 2, BOX)], (1, 1, THIRD, 0.9), ("wrong class and bad localisation", 0, 1 / 3)),
        ([(1, 1, BOX)], (1, 1, AWAY, 0.9), ("background", -1, 0)),
        ([(1, 1, BOX)], (1, 1, [190, 100, 290, 200], 0.9), ("background", 0, 1 / 19)),
        ([(1, 1, BOX)], (2, 1, BOX, 0.9), ("background", -1, 0)),
        ([], (1, 1, BOX, 0.9), ("background", -1, 0)),
        # Its own class goes first, at each of the two limits.
        ([(1, 2, BOX), (1, 1, [140, 100, 240, 200])], (1, 1, THIRD, 0.9), ("correct", 1, 9 / 11)),
        ([(1, 2, BOX), (1, 1, [200, 100, 300, 200])], (1, 1, THIRD, 0.9), ("bad localisation", 0, 1 / 3)),
        ([(1, 2, BOX), (1, 1, [180, 100, 280, 200])], (1, 1, BOX, 0.9), ("wrong class", 0, 1)),
        # An object inside a crowd is found.
        ([(1, 1, BOX), (1, 2, [0, 0, 300, 300], True)], (1, 1, BOX, 0.9), ("correct", 0, 1)),
    ],
)
def test_every_row_of_the_table(make_ground_truth, make_table, objects, detection, expected):
    kind, nearest, iou = expected
    ground_truth = make_ground_truth(objects, classes=CLASSES)
    classified = classify_detections(ground_truth, make_table([detection]))
    assert kinds_of(classified) == [kind]
    assert classified.nearest_objects.tolist() == [nearest]
    assert classified.nearest_ious.tolist() == [pytest.approx(iou)]
    assert classified.counts()[kind] == 1
    assert sum(classified.counts().values()) == 1


def test_the_less_sure_of_two_is_a_duplicate(make_ground_truth, make_table):
    table = make_table([(1, 1, BOX, 0.5), (1, 1, [100, 100, 200, 190], 0.9), (1, 1, BOX, 0.4)])
    classified = classify_detections(make_ground_truth([(1, 1, BOX)]), table)
    assert kinds_of(classified) == ["duplicate", "correct", "duplicate"]


def test_an_ignore_region_hides_what_lies_on_it_but_not_what_is_found(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    table = make_table([(1, 1, BOX, 0.9), (1, 1, BOX, 0.8), (1, 1, AWAY, 0.7), (2, 1, BOX, 0.6)])
    ignore = IgnoreRegions(np.array([1]), np.array([[90, 90, 300, 300]]))
    classified = classify_detections(ground_truth, table, ignore=ignore)
    assert kinds_of(classified) == ["correct", "ignored", "background", "background"]
    assert classified.found.tolist() == [True]


def test_objects_are_found_or_missed_and_crowds_neither(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 1, AWAY), (2, 1, BOX, True)])
    classified = classify_detections(ground_truth, make_table([(1, 1, BOX, 0.9), (2, 1, BOX, 0.9)]))
    assert classified.found.tolist() == [True, False, False]
    assert classified.missed.tolist() == [False, True, False]


def test_the_limits_can_be_set(make_ground_truth, make_table):
    ground_truth, table = make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, THIRD, 0.9)])
    assert kinds_of(classify_detections(ground_truth, table, foreground_iou=0.3)) == ["correct"]
    assert kinds_of(classify_detections(ground_truth, table, background_iou=0.4)) == ["background"]


def test_no_detections(make_ground_truth, make_table):
    classified = classify_detections(make_ground_truth([(1, 1, BOX)]), make_table([]))
    assert len(classified.kinds) == len(classified.nearest_ious) == 0
    assert classified.missed.tolist() == [True]


def overlap(detection, box, crowd: bool) -> float:
    width = min(detection[2], box[2]) - max(detection[0], box[0])
    height = min(detection[3], box[3]) - max(detection[1], box[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (detection[2] - detection[0]) * (detection[3] - detection[1])
    other = (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area if crowd else area + other - width * height)


def classify_slowly(ground_truth: GroundTruth, table: DetectionTable) -> tuple[list[str], list[float]]:
    """Kinds and the nearest objects' IoU, one detection and one object at a time."""
    kinds, ious = [""] * len(table), [0.0] * len(table)
    free = [not crowd for crowd in ground_truth.crowd]
    for row in sorted(range(len(table)), key=lambda row: -table.scores[row]):
        here = [
            index
            for index in range(len(ground_truth))
            if ground_truth.object_image_ids[index] == table.image_ids[row]
        ]
        crowds = [index for index in here if ground_truth.crowd[index]]
        objects = [index for index in here if not ground_truth.crowd[index]]
        box = table.boxes[row].tolist()
        iou = {index: overlap(box, ground_truth.boxes[index].tolist(), False) for index in objects}
        on_crowd = any(overlap(box, ground_truth.boxes[index].tolist(), True) >= 0.5 for index in crowds)
        own = [
            index for index in objects if ground_truth.object_category_ids[index] == table.category_ids[row]
        ]
        others = [index for index in objects if index not in own]
        can_find = [index for index in own if free[index] and iou[index] >= 0.5]
        ious[row] = max(iou.values(), default=0.0)
        if can_find:
            kinds[row] = "correct"
            free[max(can_find, key=lambda index: (iou[index], index))] = False
        elif on_crowd:
            kinds[row] = "ignored"
        elif any(iou[index] >= 0.5 for index in own):
            kinds[row] = "duplicate"
        elif any(iou[index] >= 0.5 for index in others):
            kinds[row] = "wrong class"
        elif any(iou[index] >= 0.1 for index in own):
            kinds[row] = "bad localisation"
        elif any(iou[index] >= 0.1 for index in others):
            kinds[row] = "wrong class and bad localisation"
        else:
            kinds[row] = "background"
    return kinds, ious


def random_case(seed: int) -> tuple[GroundTruth, DetectionTable]:
    """Boxes on a coarse grid, so that overlaps of exactly a limit and equal scores are frequent."""
    rng = np.random.default_rng(seed)
    objects, detections = int(rng.integers(0, 20)), int(rng.integers(0, 60))
    image_ids, category_ids = np.array([5, 3, 9]), (4, 2, 11)

    def boxes(count: int) -> np.ndarray:
        corners = rng.integers(0, 12, (count, 2)) * 5.0
        return np.concatenate([corners, corners + rng.integers(1, 6, (count, 2)) * 10], axis=1)

    of_objects = boxes(objects)
    ground_truth = GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        class_names=("a", "b", "c"),
        object_image_ids=rng.choice(image_ids, objects),
        object_category_ids=rng.choice(category_ids[:2], objects),
        boxes=of_objects,
        areas=(of_objects[:, 2:] - of_objects[:, :2]).prod(axis=1),
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
@given(seed=st.integers(0, 2**32 - 1))
def test_same_as_loops(seed):
    ground_truth, table = random_case(seed)
    classified = classify_detections(ground_truth, table)
    kinds, ious = classify_slowly(ground_truth, table)
    assert kinds_of(classified) == kinds
    np.testing.assert_allclose(classified.nearest_ious, ious, rtol=0, atol=1e-12)
    assert int(classified.found.sum()) == kinds.count("correct")


def pycocotools_verdicts(ground_truth: GroundTruth, table: DetectionTable) -> tuple[set[int], set[int]]:
    """Rows that pycocotools counts as true positives, and that it ignores, at IoU .5 and of any size."""

    def indexed(annotations):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": id_} for id_ in ground_truth.image_ids.tolist()],
            "categories": [{"id": id_} for id_ in ground_truth.category_ids],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    objects = [
        {"id": row + 1, "image_id": image, "category_id": category, "bbox": box, "area": 1, "iscrowd": int(crowd)}
        for row, (image, category, box, crowd) in enumerate(
            zip(
                ground_truth.object_image_ids.tolist(), ground_truth.object_category_ids.tolist(),
                to_coco_boxes(ground_truth.boxes).tolist(), ground_truth.crowd.tolist(), strict=True,
            )
        )
    ]  # fmt: skip
    detections = [
        {"id": row + 1, "image_id": image, "category_id": category, "bbox": box, "area": 1, "score": score}
        for row, (image, category, box, score) in enumerate(
            zip(
                table.image_ids.tolist(), table.category_ids.tolist(),
                to_coco_boxes(table.boxes).tolist(), table.scores.tolist(), strict=True,
            )
        )
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(indexed(objects), indexed(detections), "bbox")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.iouThrs = np.array([0.5])
        evaluator.evaluate()
    correct, ignored = set(), set()
    for image in filter(None, evaluator.evalImgs):
        for id_, match, out in zip(image["dtIds"], image["dtMatches"][0], image["dtIgnore"][0], strict=True):
            if out:
                ignored.add(id_ - 1)
            elif match > 0:
                correct.add(id_ - 1)
    return correct, ignored


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_correct_and_ignored_are_those_of_pycocotools(seed):
    ground_truth, table = random_case(seed)
    correct, ignored = pycocotools_verdicts(ground_truth, table)
    kinds = classify_detections(ground_truth, table).kinds
    assert set(np.flatnonzero(kinds == DetectionKind.CORRECT).tolist()) == correct
    ours = set(np.flatnonzero(kinds == DetectionKind.IGNORED).tolist())
    assert ours >= ignored
    # What is ignored beyond that lies on a crowd of another class.
    for row in ours - ignored:
        assert any(
            crowd and image == table.image_ids[row] and category != table.category_ids[row]
            and overlap(table.boxes[row].tolist(), box.tolist(), True) >= 0.5
            for crowd, image, category, box in zip(
                ground_truth.crowd, ground_truth.object_image_ids, ground_truth.object_category_ids,
                ground_truth.boxes, strict=True,
            )
        )  # fmt: skip


def test_real_crowds_agree_with_pycocotools(shared_folder):
    from detkit.evaluation import read_ground_truth

    ground_truth = read_ground_truth(shared_folder / "data/coco-cc/annotations/instances_train.json")
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(ground_truth), 2000)
    boxes = ground_truth.boxes[rows] + rng.normal(0, 8, (2000, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    other = rng.choice(ground_truth.category_ids, 2000)
    table = DetectionTable(
        image_ids=ground_truth.object_image_ids[rows],
        boxes=boxes.astype(np.float32),
        scores=rng.random(2000),
        category_ids=np.where(rng.random(2000) < 0.7, ground_truth.object_category_ids[rows], other),
    )
    correct, ignored = pycocotools_verdicts(ground_truth, table)
    kinds = classify_detections(ground_truth, table).kinds
    assert correct == set(np.flatnonzero(kinds == DetectionKind.CORRECT).tolist())
    assert ignored <= set(np.flatnonzero(kinds == DetectionKind.IGNORED).tolist())
    assert ignored

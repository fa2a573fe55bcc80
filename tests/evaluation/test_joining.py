"""Two sets of images measured as one: ids that clash, orders that differ, classes that must agree."""

from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import Eye, simulated_detections, simulated_truth

from detkit.errors import DataError
from detkit.evaluation import DetectionTable, GroundTruth, evaluate_boxes
from detkit.evaluation.joining import join_ground_truths, join_tables


def truth_of(image_ids: list[int], objects: list[int]) -> GroundTruth:
    count = len(objects)
    return GroundTruth(
        image_ids=np.array(image_ids),
        category_ids=(3,),
        class_names=("face",),
        object_image_ids=np.array(objects, dtype=np.int64),
        object_category_ids=np.full(count, 3),
        boxes=np.arange(4.0 * count).reshape(count, 4),
        areas=np.ones(count),
        crowd=np.zeros(count, dtype=bool),
    )


def test_ids_are_counted_anew_in_the_order_of_each_set():
    joined = join_ground_truths([truth_of([7, 2], [2, 7, 2]), truth_of([2, 9, 1], [9])])
    assert joined.image_ids.tolist() == [0, 1, 2, 3, 4]
    assert joined.object_image_ids.tolist() == [1, 0, 1, 3]
    assert joined.boxes[:, 0].tolist() == [0, 4, 8, 0]


def test_detections_follow_their_images():
    truths = [truth_of([7, 2], []), truth_of([2, 9, 1], [])]
    tables = [
        DetectionTable(np.array(ids), np.zeros((len(ids), 4)), np.array(scores), np.full(len(ids), 3))
        for ids, scores in (([2, 7], [0.1, 0.2]), ([1, 2], [0.3, 0.4]))
    ]
    joined = join_tables(truths, tables)
    assert joined.image_ids.tolist() == [1, 0, 4, 2]
    assert joined.scores.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_a_set_cut_in_two_measures_as_it_did():
    whole = simulated_truth(30)
    table = simulated_detections(whole, Eye(), seed=1)
    halves = [whole.image_ids[:13], whole.image_ids[13:]]
    truths, tables = [], []
    for ids in halves:
        objects = np.isin(whole.object_image_ids, ids)
        truths.append(
            replace(
                whole,
                image_ids=ids,
                object_image_ids=whole.object_image_ids[objects],
                object_category_ids=whole.object_category_ids[objects],
                boxes=whole.boxes[objects],
                areas=whole.areas[objects],
                crowd=whole.crowd[objects],
            )
        )
        tables.append(table.select(np.isin(table.image_ids, ids)))
    joined = evaluate_boxes(join_ground_truths(truths), join_tables(truths, tables)).overall
    assert joined == pytest.approx(evaluate_boxes(whole, table).overall)


def test_sets_of_different_classes_are_refused():
    first = truth_of([1], [])
    with pytest.raises(DataError, match="different classes cannot be measured as one: face, and hand"):
        join_ground_truths([first, replace(first, class_names=("hand",))])

"""Metrics of a resample, against COCO's on images that were really copied."""

import numpy as np
import pytest

from detkit.evaluation import (
    DetectionTable,
    GroundTruth,
    evaluate_boxes,
    read_ground_truth,
    read_results,
)
from detkit.evaluation.detection_curve import detection_curve
from detkit.evaluation.resampling import match_once

BOX = [10, 10, 110, 110]
FAR = [300, 300, 400, 400]
COPIES = 1000


def copied(
    ground_truth: GroundTruth, table: DetectionTable, count: np.ndarray
) -> tuple[GroundTruth, DetectionTable]:
    """The images really copied; ids keep the images' order, and copies stand together."""
    rank = np.argsort(np.argsort(ground_truth.image_ids))
    pairs = [
        (id_, COPIES * int(rank[index]) + copy)
        for index, id_ in enumerate(ground_truth.image_ids.tolist())
        for copy in range(count[index])
    ]

    def rows(image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [(row, new) for old, new in pairs for row in np.flatnonzero(image_ids == old)]
        columns = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return columns[0], columns[1]

    objects, object_images = rows(ground_truth.object_image_ids)
    detections, detection_images = rows(table.image_ids)
    chosen = table.select(detections)
    return (
        GroundTruth(
            image_ids=np.array([new for _, new in pairs], dtype=np.int64),
            category_ids=ground_truth.category_ids,
            class_names=ground_truth.class_names,
            object_image_ids=object_images,
            object_category_ids=ground_truth.object_category_ids[objects],
            boxes=ground_truth.boxes[objects],
            areas=ground_truth.areas[objects],
            crowd=ground_truth.crowd[objects],
        ),
        DetectionTable(detection_images, chosen.boxes, chosen.scores, chosen.category_ids),
    )


def random_set(seed: int) -> tuple[GroundTruth, DetectionTable]:
    """Crowds, empty images and classes, scores that are equal across images but not within one."""
    rng = np.random.default_rng(seed)
    images, objects, detections = 7, int(rng.integers(1, 30)), int(rng.integers(1, 150))
    corners = rng.uniform(0, 60, (objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 60, (objects, 2))], axis=1)
    ids = rng.permutation(50)[:images]
    ground_truth = GroundTruth(
        image_ids=ids,
        category_ids=(5, 1, 3, 9),
        class_names=("a", "b", "c", "none"),
        object_image_ids=rng.choice(ids[:-1], objects),
        object_category_ids=rng.choice([1, 3, 5], objects),
        boxes=boxes,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        crowd=rng.random(objects) < 0.15,
    )
    near = rng.integers(0, objects, detections)
    moved = boxes[near] + rng.normal(0, 4, (detections, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    strays = rng.random(detections) < 0.4
    image_ids = np.where(strays, rng.choice(ids, detections), ground_truth.object_image_ids[near])
    # Detection k of an image has score s_k, the same in every image: equal across images, never within one.
    within = np.array([np.count_nonzero(image_ids[:row] == id_) for row, id_ in enumerate(image_ids)])
    table = DetectionTable(
        image_ids=image_ids,
        boxes=moved.astype(np.float32),
        scores=rng.permutation(np.linspace(0.01, 1, 160))[within].astype(np.float32),
        category_ids=np.where(
            rng.random(detections) < 0.2,
            rng.choice([1, 3, 5, 9], detections),
            ground_truth.object_category_ids[near],
        ),
    )
    return ground_truth, table


def number(value: float | None) -> float:
    return np.nan if value is None else value


@pytest.mark.parametrize("seed", range(12))
def test_same_as_coco_on_images_really_copied(seed):
    ground_truth, table = random_set(seed)
    rng = np.random.default_rng([seed, 1])
    counts = rng.multinomial(7, np.full(7, 1 / 7), 6)
    counts[0] = 1
    found = match_once(ground_truth, table).precision_and_recall(counts)
    for row, count in enumerate(counts):
        expected = evaluate_boxes(*copied(ground_truth, table, count)).overall
        for name, values in found.items():
            assert values[row] == pytest.approx(number(expected[name]), rel=0, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("seed", range(12))
def test_same_curve_as_on_images_really_copied(seed):
    ground_truth, table = random_set(seed)
    table = DetectionTable(
        table.image_ids, table.boxes, np.round(table.scores, 1), table.category_ids
    )  # ties
    counts = np.random.default_rng([seed, 2]).multinomial(7, np.full(7, 1 / 7), 6)
    matched = match_once(ground_truth, table)
    levels, recalls = (0.0, 0.1, 1.0, 3.0), np.array([0.0, 0.3, 0.5, 0.8, 1.0])
    found = matched.recall_at(counts, levels)
    false_positives = matched.false_positives_at(counts, recalls)
    for row, count in enumerate(counts):
        curve = detection_curve(*copied(ground_truth, table, count))
        expected = [number(curve.recall_at(level)) for level in levels]
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-12)
        expected = [number(curve.false_positives_at(recall)) for recall in recalls]
        np.testing.assert_allclose(false_positives[row], expected, rtol=0, atol=1e-12)
        assert matched.highest_recall(counts)[row] == pytest.approx(number(curve.highest_recall), nan_ok=True)


def test_each_resample_may_have_its_own_recall():
    ground_truth, table = random_set(3)
    counts = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), 20)
    matched = match_once(ground_truth, table)
    levels = np.random.default_rng(1).uniform(0.1, 0.9, (20, 3))
    found = matched.false_positives_at(counts, levels)
    one_by_one = [matched.false_positives_at(counts[[row]], levels[row])[0] for row in range(20)]
    np.testing.assert_array_equal(found, one_by_one)
    highest = matched.highest_recall(counts)
    reached = matched.false_positives_at(counts, highest[:, None])[:, 0]
    np.testing.assert_array_equal(np.isnan(reached), np.isnan(highest))


def test_a_resample_without_objects_has_nothing_to_measure(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)], images=2)
    matched = match_once(ground_truth, make_table([(1, 1, BOX, 0.9), (2, 1, FAR, 0.8)]))
    counts = np.array([[1, 1], [0, 2]])
    assert matched.precision_and_recall(counts)["AP"].tolist() == [
        pytest.approx(1),
        pytest.approx(np.nan, nan_ok=True),
    ]
    np.testing.assert_array_equal(matched.recall_at(counts, [1.0]), [[1], [np.nan]])
    np.testing.assert_array_equal(matched.false_positives_at(counts, np.array([0.5])), [[0], [np.nan]])
    np.testing.assert_array_equal(matched.highest_recall(counts), [1, np.nan])


def test_without_detections_everything_is_missed(make_ground_truth, make_table):
    matched = match_once(make_ground_truth([(1, 1, BOX)]), make_table([]))
    found = matched.precision_and_recall(np.ones((1, 2), dtype=np.int64))
    assert {name: values.tolist() for name, values in found.items()} == {
        "AP": [0], "AP50": [0], "AP75": [0], "AR100": [0]
    }  # fmt: skip


def test_at_most_a_hundred_detections_of_an_image_and_class_count_for_ap(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX)])
    strays = [(1, 1, [300 + i, 300, 350 + i, 350], 0.9 - i / 1000) for i in range(100)]
    table = make_table([*strays, (1, 1, BOX, 0.3), (2, 1, BOX, 0.2)])
    matched = match_once(ground_truth, table)
    everything = np.ones((1, 2), dtype=np.int64)
    found, expected = matched.precision_and_recall(everything), evaluate_boxes(ground_truth, table).overall
    for name, values in found.items():
        assert values[0] == pytest.approx(expected[name], abs=1e-12)
    assert found["AR100"][0] == 0.5
    assert matched.highest_recall(everything)[0] == 1


def test_published_numbers(shared_folder):
    """COCO's own example, as it is and with all of its images twice."""
    ground_truth = read_ground_truth(shared_folder / "eval" / "instances_val2014_100.json")
    table = read_results(shared_folder / "eval" / "instances_val2014_fakebbox100_results.json", ground_truth)
    images = len(ground_truth.image_ids)
    found = match_once(ground_truth, table).precision_and_recall(
        np.array([[1], [2]]) * np.ones(images, np.int64)
    )
    expected = {
        "AP": 0.504580698724963,
        "AP50": 0.696972724729957,
        "AP75": 0.572981666990482,
        "AR100": 0.595352982877607,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], [value, value], rtol=0, atol=1e-9)

"""Published ground truth and results have published numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detkit.evaluation import METRIC_NAMES, DetectionTable, GroundTruth, evaluate_boxes, read_results
from detkit.evaluation import read_ground_truth as read_annotations

# pycocotools' own digits are expected of it; another library may add up in another order.
TOLERANCE = {"pycocotools": 0.0, "fast": 1e-12}
BACKENDS = pytest.mark.parametrize("backend", ["pycocotools", "fast"])


def load(folder: Path, case: str) -> tuple[dict, GroundTruth, DetectionTable]:
    expected = json.loads((folder / "eval/expected_stats.json").read_text())
    assert tuple(expected["order"]) == METRIC_NAMES
    case_ = expected["results"][case]
    ground_truth = read_annotations(folder / "eval" / case_["gt"])
    return case_, ground_truth, read_results(folder / "eval" / case_["dt"], ground_truth)


def assert_stats(overall: dict[str, float | None], stats: list[float], backend: str) -> None:
    found = [-1.0 if value is None else value for value in overall.values()]
    np.testing.assert_allclose(found, stats, rtol=0, atol=TOLERANCE[backend])


@BACKENDS
@pytest.mark.parametrize("case", ["bbox", "tiny_bbox", "crowd_bbox"])
def test_twelve_numbers(shared_folder: Path, case: str, backend: str) -> None:
    expected, ground_truth, table = load(shared_folder, case)
    assert_stats(evaluate_boxes(ground_truth, table, backend=backend).overall, expected["stats"], backend)


@BACKENDS
def test_average_precision_of_each_class(shared_folder: Path, backend: str) -> None:
    expected, ground_truth, table = load(shared_folder, "bbox")
    found = {row.name: row.AP for row in evaluate_boxes(ground_truth, table, backend=backend).per_class}
    assert found.keys() == expected["per_category_AP"].keys()
    for name, value in expected["per_category_AP"].items():
        assert found[name] == (
            value if value is None else pytest.approx(value, rel=0, abs=TOLERANCE[backend])
        )


@BACKENDS
def test_all_classes_as_one(shared_folder: Path, backend: str) -> None:
    expected, ground_truth, table = load(shared_folder, "bbox_class_agnostic")
    # pycocotools without classes goes through them by id all the same, and equal scores keep that order.
    table = table.select(np.argsort(table.category_ids, kind="stable"))
    ground_truth = replace(
        ground_truth,
        category_ids=(1,),
        class_names=("object",),
        object_category_ids=np.ones_like(ground_truth.object_category_ids),
    )
    table = replace(table, category_ids=np.ones_like(table.category_ids))
    assert_stats(evaluate_boxes(ground_truth, table, backend=backend).overall, expected["stats"], backend)

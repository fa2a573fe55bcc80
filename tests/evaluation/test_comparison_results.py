"""results.json: everything comes back, and a file that is none is refused."""

import json
from dataclasses import asdict, replace

import pytest

from detkit.errors import DataError
from detkit.evaluation.compared_metrics import COMPARED_METRICS, ComparedMetric
from detkit.evaluation.comparison_results import (
    Arm,
    Comparison,
    Curves,
    Difference,
    DrawnDetection,
    Estimate,
    HardNegative,
    LearningPoint,
    Object,
    Panel,
    Picture,
    Resampling,
    RoundResult,
    Run,
    lead,
    ranking,
    read_comparison,
    write_comparison,
)

RUN = Run(
    seed=1,
    metrics={"AP50": 0.1 + 0.2, "fppi_at_recall_0.9": None},
    compute={"training": 3e9, "mining": 1e8},
    wall_clock=61.5,
    learning=(LearningPoint(1e9, {"AP50": 0.2}),),
    curves=Curves((1.0, None), (0.0, 0.5), 0.9),
    rounds=(RoundResult(1, 5e8, 80, 40, 20, 20, acceptance=0.01, rolled_back=True, reason="lost recall"),),
    hardest=(HardNegative("crops/1.jpg", "a/b.jpg", "bird", 0.97, 1),),
)
COMPARISON = Comparison(
    title="Vögel & <b>",
    images=80,
    objects=120,
    classes=("bird",),
    resampling=Resampling(2000, 7),
    arms=(Arm("focal", "gamma: 2\n", (RUN,), {"AP50": Estimate(0.3, None, 0.4)}),),
    differences=(
        Difference("focal", "cross entropy", "AP50", (1,), 0.1, 0.05, None, 0.01, 0.02, True, "A sentence.", 0.8),
    ),
    verdict=("First.", "Second."),
    recall_grid=(0.0, 1.0),
    false_positive_grid=(0.1, 1.0),
    pictures=(
        Picture("pictures/1.jpg", "x.jpg", 640, 480, "Drawn", (Object((1.0, 2.0, 3.0, 4.0), "bird"),),
                (Panel("focal", 1, 0.5, (DrawnDetection((1.0, 2.0, 3.0, 4.0), "bird", 0.6, "false"),), (0,)),)),
    ),
    picture_recall=0.8,
    config="arms: []\n",
    versions={"torch": "2.14"},
)  # fmt: skip


def test_everything_comes_back(tmp_path):
    write_comparison(tmp_path / "results.json", COMPARISON)
    assert read_comparison(tmp_path / "results.json") == COMPARISON
    tree = json.loads((tmp_path / "results.json").read_text())
    assert tree["format_version"] == 1
    assert tree["arms"][0]["runs"][0]["metrics"] == {"AP50": 0.1 + 0.2, "fppi_at_recall_0.9": None}
    assert "forward 1, backward 2" in tree["compute_unit"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version is 2, and 1 is read here"),
        ({"arms": [{"name": "focal"}]}, r"arms\.0\.config: Field required"),
        ({"images": "many"}, "images: Input should be a valid integer"),
    ],
)
def test_another_content_is_refused(tmp_path, change, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(asdict(COMPARISON) | change))
    with pytest.raises(DataError, match=message):
        read_comparison(path)


def test_other_json_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="format_version is None"):
        read_comparison(tmp_path / "results.json")


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_comparison(tmp_path / "results.json", replace(COMPARISON, picture_recall=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_a_lead_is_told_from_the_better_side():
    more, less = COMPARED_METRICS[0], ComparedMetric("x", "x", higher_is_better=False)
    one = replace(COMPARISON.differences[0], value=-0.1, low=-0.3, high=-0.05)
    assert (lead(one, more).better, lead(one, more).worse) == ("cross entropy", "focal")
    assert (lead(one, less).better, lead(one, less).worse) == ("focal", "cross entropy")
    for metric in (more, less):
        assert (lead(one, metric).value, lead(one, metric).low, lead(one, metric).high) == (0.1, 0.05, 0.3)
    assert lead(replace(one, value=0.0, low=-0.1, high=None), less).better == "focal"


@pytest.mark.parametrize(
    ("value", "low", "high", "apart"),
    [
        (0.1, 0.05, 0.2, True), (0.1, 0.05, None, True), (0.1, None, 0.2, False), (0.1, -0.05, 0.2, False),
        (-0.1, -0.2, -0.05, True), (-0.1, None, -0.05, True), (-0.1, -0.2, None, False), (-0.1, -0.2, 0.1, False),
        (0.1, -0.2, -0.1, False), (0.0, 0.0, 0.0, False), (None, None, None, False),
    ],
)  # fmt: skip
def test_an_interval_leaves_out_zero_on_the_values_side(value, low, high, apart):
    one = replace(COMPARISON.differences[0], value=value, low=low, high=high)
    assert one.leaves_out_zero is apart


def test_arms_are_ranked_and_those_without_a_value_come_last():
    arms = [
        replace(COMPARISON.arms[0], name=name, estimates={"x": Estimate(value, None, None)})
        for name, value in (("none", None), ("low", 0.1), ("high", 0.9))
    ]
    for higher, order in ((True, ["high", "low", "none"]), (False, ["low", "high", "none"])):
        assert [arm.name for arm in ranking(arms, ComparedMetric("x", "x", higher_is_better=higher))] == order


def test_texts_of_values():
    more, less = COMPARED_METRICS[0], ComparedMetric("x", "x", higher_is_better=False)
    assert [more.text(value) for value in (0.12345, 1.0, -0.0001, None)] == ["12.3", "100.0", "0.0", "n/a"]
    assert [less.text(value) for value in (0.12345, 12, 0.0123, -0.0001)] == [
        "0.12",
        "12.00",
        "0.012",
        "0.00",
    ]

"""The Markdown table: its numbers, its order, and names that are no markup."""

from simulated_runs import Eye, simulated_detections, simulated_truth

from detkit.comparison import FinishedArm, FinishedRun, markdown, summarise
from detkit.evaluation.compared_metrics import COMPARED_METRICS

TRUTH = simulated_truth(30)
HOSTILE = "<script>|`*x*`\n# [a](javascript:b)"


def table(names: tuple[str, str]) -> tuple[str, list[list[str]]]:
    eyes = (Eye(separation=0.5, backgrounds=20), Eye(separation=1.6, backgrounds=4))
    arms = [
        FinishedArm(
            name, "", [FinishedRun(1, simulated_detections(TRUTH, eye, seed=1), {"training": 1.0}, 90)]
        )
        for name, eye in zip(names, eyes, strict=True)
    ]
    text = markdown(summarise(TRUTH, arms, title="A title", resamples=50))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return text, [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_a_row_for_each_arm_from_best_to_worst():
    text, rows = table(("worse", "better"))
    assert text.startswith("## A title\n")
    assert len({len(row) for row in rows}) == 1
    assert rows[0][2:4] == ["AP50", "AP"]
    assert len(rows[0]) == 3 + len(COMPARED_METRICS)
    assert [row[0] for row in rows[2:]] == ["better", "worse"]
    assert rows[2][1] == "1"
    assert rows[2][-1] == "1.5"
    value, ends = rows[2][2].split(" (")
    low, high = ends.strip(")").split(" to ")
    assert float(low) <= float(value) <= float(high)
    assert "better beats worse" in text


def test_names_are_no_markup():
    text, rows = table(("plain", HOSTILE))
    assert len({len(row) for row in rows}) == 1
    for line in text.splitlines():
        for mark in "<`*[":
            assert line.count(mark) == line.count(f"\\{mark}"), line

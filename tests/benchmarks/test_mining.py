"""benchmarks/mining.py on a tiny case: it mines what it says, every time anew; no timings."""

import json
from functools import partial

import mining
import pytest
import torch
from mining import DETECTION, FILES, FORWARD, MINING, Case, Inputs
from scripts import run_main

from detkit.mining.manifest import read_manifest

CPU = torch.device("cpu")
TINY = Case(size=128, batch=2, classes=3, boxes=2)
KEYS = {
    "measure",
    "device",
    "dtype",
    "case",
    "images",
    "crops",
    "median_ms",
    "quartiles_ms",
    "rounds",
    "of_forward",
}


run = partial(run_main, mining)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return Inputs(TINY, 3, CPU, 0, tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("scores", [200, 20])
def test_scores_pass_the_threshold_as_promised(inputs, scores):
    inputs.spread_scores(scores)
    with torch.inference_mode():
        outputs = inputs.model.dense(inputs.batches[0])
    logits = torch.cat([level.flatten() for level in outputs.logits])
    assert (logits.sigmoid() > mining.THRESHOLD).sum() / 2 == pytest.approx(scores, rel=0.02, abs=1)


def test_every_call_is_a_whole_round(inputs):
    inputs.spread_scores(200)
    call = inputs.calls(torch.float32)[MINING]
    call.run()
    call.run()
    rounds = sorted(inputs.folder.glob("round-*/round_001/manifest.jsonl"))
    assert len(rounds) == 2
    first, second = (read_manifest(path)[1] for path in rounds)
    assert first == second
    assert inputs.crops == sum(row["decision"] == "kept" for row in first) > 0


@pytest.mark.parametrize(
    ("quick", "measures"),
    [((), [FORWARD, DETECTION, FILES, MINING]), (("--quick",), [FORWARD, MINING])],
    ids=["whole", "quick"],
)
def test_writes_a_record_of_every_measure(tmp_path, monkeypatch, capsys, quick, measures):
    file = tmp_path / "mining.json"
    case = ("--size", 64, "--batch", 1, "--classes", 2, "--boxes", 1, "--images", 2, "--workers", 0)
    told = ("--scores", 50, "--steps", 1, "--precision", "fp32", "--json", file, *quick)
    assert run(monkeypatch, *case, *told) == 0
    records = json.loads(file.read_text())
    assert [record["measure"] for record in records] == measures
    assert all(record.keys() >= KEYS for record in records)
    assert all(record["median_ms"] > 0 and record["images"] == 2 for record in records)
    assert records[0]["of_forward"] == 1
    assert records[-1]["of_forward"] == pytest.approx(records[0]["median_ms"] / records[-1]["median_ms"])
    assert "not measured  mining resnet18 640x640" in capsys.readouterr().out


def test_goals_are_those_of_the_goals_cases():
    record = {"measure": MINING, "case": str(Case(scores=mining.USUAL)), "dtype": "fp32", "of_forward": 0.84}
    found = [str(goal) for goal in mining.goals([record], CPU) if goal.found is not None]
    assert len(found) == 1
    assert found[0].startswith("missed")
    assert all(goal.found is None for goal in mining.goals([{**record, "case": str(TINY)}], CPU))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scores", "0"), "argument --scores"),
        (("--workers", "-1"), "argument --workers"),
        (("--arch", "resnet19", "--size", "64"), "resnet18"),
    ],
)
def test_a_mistake_ends_with_one_message(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_help_teaches(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "python benchmarks/mining.py --quick" in printed
    assert all(key in printed for key in KEYS)

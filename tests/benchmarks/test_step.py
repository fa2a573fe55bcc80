"""benchmarks/step.py on tiny cases: both detectors are the same and do what is said; no timings."""

import json
from dataclasses import replace
from functools import partial

import pytest
import step
import torch
from scripts import run_main
from step_cases import (
    CANDIDATES,
    CHANNELS_LAST,
    DETECTION,
    DETKIT,
    FORWARD,
    LOSSES,
    MATCHING,
    STEP,
    TORCHVISION,
    Case,
    Inputs,
)

CPU = torch.device("cpu")
TINY = Case(size=128, batch=1, classes=3, boxes=4)
KEYS = {"measure", "implementation", "device", "dtype", "case", "median_ms", "rounds", "images_per_second"}


run = partial(run_main, step)


def test_the_case_is_the_goals_but_for_what_is_asked_for():
    assert step.chosen_case(step.parse_arguments([]), torch.device("cuda")) == step.CUDA_GOAL_CASE
    asked = step.parse_arguments(["--size", "64", "--frozen-batch-norm"])
    assert step.chosen_case(asked, CPU) == replace(step.CPU_GOAL_CASE, size=64, frozen=True)


@pytest.fixture(scope="module", params=[False, True], ids=["trained batch norm", "frozen batch norm"])
def inputs(request) -> Inputs:
    return Inputs(replace(TINY, frozen=request.param), CPU)


def test_both_detectors_are_the_same(inputs):
    """One image, since torchvision normalises by image: the steps' losses and the weights after them agree."""
    ours, theirs = (inputs.calls(name, torch.float32) for name in (DETKIT, CHANNELS_LAST))
    expected = theirs[STEP].ready()()
    assert ours[STEP].run()["loss"] == pytest.approx(expected, rel=1e-4)
    levels = torch.cat([level[0] for level in ours[FORWARD].ready()().logits])
    outputs = theirs[FORWARD].ready()()[2]["cls_logits"][0]
    torch.testing.assert_close(levels, outputs, rtol=1e-3, atol=1e-3)


def test_losses_and_matches_are_the_same(inputs):
    ours, theirs = (inputs.calls(name, torch.float32) for name in (DETKIT, TORCHVISION))
    assert torch.equal(ours[MATCHING].run()[0].long(), theirs[MATCHING].run()[0])
    gradients, expected = ours[LOSSES].run(), theirs[LOSSES].run()
    by_kind = torch.cat(gradients[:5], dim=1), torch.cat(gradients[5:], dim=1)
    for mine, other in zip(by_kind, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_scores_pass_the_threshold_as_promised(inputs):
    with torch.inference_mode():
        outputs = inputs.calls(DETKIT, torch.float32)[FORWARD].ready()()
        logits = torch.cat([level.flatten() for level in outputs.logits])
    passing = (logits.sigmoid() > 0.05).sum().item()
    # A frozen and an untrained batch norm in evaluation are the same.
    assert passing == pytest.approx(CANDIDATES, rel=0.02)
    ours, theirs = (inputs.calls(name, torch.float32)[DETECTION].ready()() for name in (DETKIT, TORCHVISION))
    assert 0 < len(ours[0]["scores"]) <= 100
    torch.testing.assert_close(ours[0]["scores"], theirs[0]["scores"], rtol=1e-3, atol=1e-4)


def test_writes_a_record_of_every_measure(tmp_path, monkeypatch, capsys):
    file = tmp_path / "step.json"
    case = ("--size", 64, "--batch", 1, "--classes", 2, "--boxes", 2)
    assert run(monkeypatch, *case, "--steps", 1, "--json", file) == 0
    printed = capsys.readouterr().out
    records = json.loads(file.read_text())
    assert all(record.keys() >= KEYS for record in records)
    measured = [record for record in records if record["dtype"] == "fp32"]
    assert {(record["measure"], record["implementation"]) for record in measured} == {
        (what, name)
        for what in (STEP, LOSSES, MATCHING, DETECTION, FORWARD)
        for name in (DETKIT, TORCHVISION, CHANNELS_LAST)
    }
    assert all(record["median_ms"] > 0 and record["rounds"] == 1 for record in measured)
    for record in records:
        assert ("skipped" in record) == (record["median_ms"] is None)
    assert "training step  " in printed
    assert "not measured  training step resnet18 320x320" in printed


def test_bf16_is_not_measured_where_it_is_emulated(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert "emulated here (found AVX2)" in step.why_not("bf16", CPU)
    assert step.why_not("fp32", CPU) is None
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert step.why_not("bf16", CPU) is None


def records_with(**milliseconds):
    """Records of training steps from names such as ``detkit_fp32``."""
    return [
        {
            "measure": STEP,
            "implementation": name.split("_")[0],
            "dtype": name.split("_")[1],
            "median_ms": value,
        }
        for name, value in milliseconds.items()
    ]


def test_goals_are_those_of_the_goals_case():
    records = records_with(detkit_fp32=100.0, torchvision_fp32=124.0, detkit_bf16=50.0)
    fp32, bf16 = step.goals(records, step.CPU_GOAL_CASE, CPU)
    assert str(fp32).startswith("missed")
    assert fp32.found == pytest.approx(1.24)
    assert str(bf16).startswith("met")
    assert bf16.found == pytest.approx(2.48)
    assert all(goal.found is None for goal in step.goals(records, TINY, CPU))
    (cuda,) = step.goals(
        records_with(detkit_bf16=50.0, torchvision_bf16=80.0), step.CUDA_GOAL_CASE, torch.device("cuda")
    )
    assert str(cuda).startswith("missed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "100"), "argument --size: 100"),
        (("--batch", "0"), "argument --batch"),
        (("--arch", "resnet19", "--size", "64"), "resnet18"),
    ],
)
def test_a_mistake_ends_with_one_message(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_help_teaches(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "python benchmarks/step.py --quick" in printed
    assert all(key in printed for key in KEYS)

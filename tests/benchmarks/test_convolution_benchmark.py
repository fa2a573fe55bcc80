"""benchmarks/convolution.py on a tiny case: all compute the same gradients, of as many cells as was asked for."""

import json
from functools import partial

import convolution
import pytest
import torch
from scripts import run_main

run = partial(run_main, convolution)


@pytest.mark.parametrize(("dtype", "names"), [(torch.float32, 3), (torch.bfloat16, 2)], ids=str)
def test_all_compute_the_same(dtype, names):
    images, weight, gradient = convolution.inputs(8, 12, 2, 0.2, dtype)
    assert 0.2 <= (gradient != 0).any(1).float().mean() < 0.3
    found = {name: call.run() for name, call in convolution.calls(images, weight, gradient).items()}
    assert len(found) == names
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    for pair in found.values():
        for mine, theirs in zip(pair, found["torch"], strict=True):
            torch.testing.assert_close(
                mine, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item()
            )


def test_it_says_and_writes_what_it_measured(monkeypatch, capsys, tmp_path):
    file = tmp_path / "made.json"
    small = ("--channels", 8, "--size", 12, "--batch", 2, "--seconds", 0.01)
    assert run(monkeypatch, *small, "--shares", 0.1, 0.3, "--json", file) == 0
    records = json.loads(file.read_text())
    assert [one["implementation"] for one in records] == ["torch", "sparse", "winograd"] * 2
    assert all(one["median_ms"] > 0 and one["rounds"] >= 3 for one in records)
    said = capsys.readouterr().out
    assert "8x12x12 N=2, fp32" in said
    assert all(f"{one['implementation']} {one['median_ms']:.1f} ms" in said for one in records)


@pytest.mark.parametrize("arguments", [("--shares", 0), ("--shares", 0.2, 1), ("--size", 0)])
def test_nonsense_is_refused(monkeypatch, arguments, capsys):
    assert run(monkeypatch, *arguments) == 2
    assert "must be" in capsys.readouterr().err

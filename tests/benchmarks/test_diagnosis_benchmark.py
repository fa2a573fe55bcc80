"""The benchmark of a diagnosis's page runs, and its page is of the case that was asked for."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "diagnosis.py"


def test_a_small_case_is_measured(tmp_path, monkeypatch, capsys):
    told = ["--images", "12", "--detections", "240", "--classes", "3"]
    told += ["--json", str(tmp_path / "x.json"), "--keep", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["diagnosis.py", *told])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr()
    figures = json.loads((tmp_path / "x.json").read_text())
    assert (figures["images"], figures["detections"], figures["classes"]) == (12, 240, 3)
    assert 0 < figures["images shown"] <= 12
    assert figures["megabytes"] == pytest.approx((tmp_path / "diagnosis.html").stat().st_size / 1e6)
    assert figures["seconds"] > figures["seconds of the page"] > 0

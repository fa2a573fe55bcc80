"""How a script ends."""

import pytest

from detkit.console import run_tool


@pytest.mark.parametrize(("run_id", "processes"), [(None, "8"), ("1", "1"), ("1", None), (None, "")])
def test_a_script_runs_as_one_process(monkeypatch, run_id, processes):
    for name, value in (("TORCHELASTIC_RUN_ID", run_id), ("WORLD_SIZE", processes)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert run_tool(lambda: 3) == 3


def test_a_script_does_not_run_as_several_processes_of_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert run_tool(lambda: pytest.fail("it ran")) == 2
    said = capsys.readouterr().err
    assert "torchrun started 8 processes" in said
    assert "CUDA_VISIBLE_DEVICES" in said

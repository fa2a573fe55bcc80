"""Rows are written at once, as strict JSON, and a resumed log repeats nothing."""

import json
import math

import pytest

from detkit.errors import ConfigError, DataError, TrainingError
from detkit.training import run_log
from detkit.training.run_log import RunLog, read_log


def test_rows_are_on_disk_before_the_log_is_closed(tmp_path):
    log = RunLog(tmp_path)
    log.write({"event": "train", "step": 1, "loss": 0.5})
    assert read_log(tmp_path / "metrics.jsonl") == [
        {"event": "start", "format_version": 1},
        {"event": "train", "step": 1, "loss": 0.5},
    ]
    log.close()


def test_not_finite_numbers_become_null(tmp_path):
    with RunLog(tmp_path) as log:
        log.write({"event": "train", "step": 1, "loss": math.nan, "box": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(line, parse_constant=pytest.fail) == {
        "event": "train",
        "step": 1,
        "loss": None,
        "box": None,
    }


def test_resume_cuts_off_what_will_be_written_again(tmp_path):
    with RunLog(tmp_path) as log:
        log.write({"event": "train", "step": 1})
        size = log.flush()
        log.write({"event": "train", "step": 2, "loss": 9.0})
    with RunLog(tmp_path, resume_at=size) as log:
        log.write({"event": "train", "step": 2, "loss": 1.0})
    steps = [(row["step"], row.get("loss")) for row in read_log(tmp_path / "metrics.jsonl")[1:]]
    assert steps == [(1, None), (2, 1.0)]


def test_a_log_that_lost_rows_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"has 0 bytes.*saved with 10.*--overwrite"):
        RunLog(tmp_path, resume_at=10)


def test_a_new_run_begins_a_new_log(tmp_path):
    for _ in range(2):
        with RunLog(tmp_path) as log:
            log.write({"event": "train", "step": 1})
    assert len(read_log(tmp_path / "metrics.jsonl")) == 2


@pytest.mark.parametrize(
    "torn", [b'{"event": "train", "st', b'{"event": "train", "step": 2}', b'{"a": "\xc3']
)
def test_a_last_line_that_was_not_written_to_its_end_is_no_row(tmp_path, torn):
    with RunLog(tmp_path) as log:
        log.write({"event": "train", "step": 1})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    assert [row["event"] for row in read_log(path)] == ["start", "train"]


@pytest.mark.parametrize("line", [b'{"event": "train", "st', b"5", b'{"step": 2}', b'{"event": "\xff"}'])
def test_any_other_line_that_is_no_row_is_told_with_its_number(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"event": "start", "format_version": 1}\n' + line + b'\n{"event": "train", "step": 3}\n'
    )
    with pytest.raises(
        DataError, match=r"metrics.jsonl: line 2: is no row of a log.*put a copy of the file back"
    ):
        read_log(path)


def test_tensorboard_receives_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, tensorboard=True) as log:
        log.write({"event": "train", "step": 3, "loss": 0.25})
        log.write({"event": "validate", "step": 3, "AP": None, "AP50": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("validate/AP50")] == [(3, 0.5)]
    assert "validate/AP" not in events.Tags()["scalars"]


def test_tensorboard_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'detkit\[tensorboard\]'"):
        run_log.RunLog(tmp_path, tensorboard=True)

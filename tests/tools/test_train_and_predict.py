"""The scripts as a user runs them: train, be killed, resume, evaluate, predict."""

import json
import os
import random
import signal
import subprocess
import time

import cv2
import pytest
import torch
from scripts import ENVIRONMENT, ROOT, command, printed_by

from detkit.evaluation.loss_shares import load_logit_counts
from detkit.training.checkpoint import load_checkpoint
from detkit.training.run_log import read_log

TIMES = ("seconds", "images_per_second")


def rows(folder):
    log = folder / "metrics.jsonl"
    return read_log(log) if log.exists() else []


def comparable(folder):
    log = [{key: value for key, value in row.items() if key not in TIMES} for row in rows(folder)]
    return log, load_checkpoint(folder / "last.pt"), load_checkpoint(folder / "best.pt")


def assert_equal(first, second):
    """Nested dicts and lists with tensors, bit by bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_tiny_config):
    """A run of sixteen epochs left alone: its configuration and folder."""
    folder = tmp_path_factory.mktemp("scripts")
    config = write_tiny_config(folder, epochs=16)
    output = printed_by("train.py", config)
    assert "best AP50" in output
    return config, folder / "run"


def kill_at(moment, config, folder):
    """Start (or resume) the run and kill it, without warning, some steps after it began to take steps."""
    process = subprocess.Popen(
        command("train.py", config, "--resume", f"output={folder}"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    log = folder / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else None
    while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns != before):
        time.sleep(0.01)
    time.sleep(moment)
    assert process.poll() is None, f"the run ended within {moment:.3f} s, before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_at_three_random_moments_and_resumed_it_ends_the_same(trained, tmp_path):
    config, whole = trained
    folder = tmp_path / "killed"
    for moment in (random.uniform(0, 0.6) for _ in range(3)):
        kill_at(moment, config, folder)
    printed_by("train.py", config, "--resume", f"output={folder}")
    first, second = comparable(whole), comparable(folder)
    assert first[0] == second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        one["config"]["output"] = other["config"]["output"] = ""
        one.get("training", {}).pop("log_size", None)
        other.get("training", {}).pop("log_size", None)
        assert_equal(one, other)


@pytest.mark.parametrize(
    ("number", "send"),
    [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg)],
    ids=["ctrl-c", "terminated", "terminated with its workers"],
)
def test_a_signal_saves_and_says_how_to_go_on(trained, tmp_path, number, send):
    config, _ = trained
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        command("train.py", config, f"output={folder}", "training.epochs=400"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and len(rows(folder)) < 3:
        time.sleep(0.01)
    send(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "--resume" in output
    assert "Traceback" not in output
    assert load_checkpoint(folder / "last.pt")["step"] >= 2


def test_evaluate_and_predict_from_the_checkpoint(trained, tiny_coco, tmp_path):
    _, folder = trained
    output = printed_by("evaluate.py", folder / "best.pt", "--output", tmp_path / "val")
    assert "AP50" in output
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    best = max(row["AP50"] for row in rows(folder) if row["event"] == "validate")
    assert metrics["AP50"] == pytest.approx(best, abs=1e-6)
    assert [row["name"] for row in metrics["per_class"]] == ["bright", "dark"]
    named = tmp_path / "named"
    printed_by(
        "evaluate.py", folder / "best.pt", "--annotations", tiny_coco / "val.json",
        "--images", tiny_coco / "images", "--output", named,
    )  # fmt: skip
    assert json.loads((named / "metrics.json").read_text()) == metrics
    again = tmp_path / "again"
    printed_by(
        "evaluate.py", "--annotations", tiny_coco / "val.json", "--output", again,
        "--detections", tmp_path / "val" / "detections.json",
    )  # fmt: skip
    assert json.loads((again / "metrics.json").read_text())["AP50"] == metrics["AP50"]

    pictures = tmp_path / "pictures"
    printed_by(
        "predict.py",
        folder / "best.pt",
        tiny_coco / "images",
        "--output",
        pictures,
        "--limit",
        3,
        "--score",
        0.05,
    )
    assert len(list(pictures.glob("*.png"))) == 4
    assert cv2.imread(str(pictures / "contact_sheet.png")) is not None
    known = {image["id"] for image in json.loads((pictures / "images.json").read_text())["images"]}
    detections = json.loads((pictures / "detections.json").read_text())
    assert known == {0, 1, 2}
    assert {row["image_id"] for row in detections} <= known
    assert (folder / "curves.png").stat().st_size > 10_000


def test_loss_shares_from_the_checkpoint(trained, tmp_path):
    _, folder = trained
    output = printed_by(
        "loss_shares.py", folder / "best.pt", "--gammas", "0,2", "--output", tmp_path / "shares"
    )
    assert "Share of the loss in the hardest" in output
    counts = load_logit_counts(tmp_path / "shares" / "loss_shares.json")
    # Two levels of 8 x 8 and 4 x 4 places with two anchors each, two classes, eight images; few are ignored.
    assert 0.9 < (counts.positives.sum() + counts.negatives.sum()) / (8 * 2 * 2 * (64 + 16)) <= 1
    assert counts.positives.sum() > 10
    assert counts.hardest(0.01, "negatives", 2.0) > counts.hardest(0.01, "negatives", 0.0)
    assert "<svg" in (tmp_path / "shares" / "loss_shares.svg").read_text()
    for gammas in ("-1", "a", "nan"):
        said = printed_by("loss_shares.py", "best.pt", f"--gammas={gammas}", "--output", tmp_path, status=2)
        assert f"argument --gammas: {gammas}: write numbers from 0 on" in said


def test_mistakes_are_one_message_and_status_2(trained, tmp_path):
    config, folder = trained
    assert "--resume" in printed_by("train.py", config, status=2)
    assert "optimizer: there is no such key" in printed_by("train.py", config, "optimizer.x=1", status=2)
    assert "no such file" in printed_by("evaluate.py", tmp_path / "absent.pt", "--output", tmp_path, status=2)
    assert "data.test" in printed_by(
        "evaluate.py", folder / "best.pt", "--split", "test", "--output", tmp_path, status=2
    )
    assert "no-such-folder" in printed_by(
        "train.py", config, "data.root=no-such-folder", f"output={tmp_path}/x", status=2
    )
    assert "photo.jpg" in printed_by(
        "predict.py", folder / "best.pt", "photo.jpg", "--output", tmp_path, status=2
    )


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_help_teaches_by_example(tool):
    assert "example" in printed_by(tool, "--help")

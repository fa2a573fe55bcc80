"""A run with bootstrapping that is killed, wherever it is, and resumed: it ends as if it had been left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOTSTRAPPING = "detkit.bootstrap.bootstrapping"
STEP = "detkit.training.learner.Learner.step"
IN_A_SCAN = "detkit.mining.scan._batch_to_text"
SCAN_BATCHES = 6
"""Of 22 images, four at a time."""


@pytest.fixture
def killed_and_resumed(bootstrapped, kill_at, tmp_path):
    """Call with a run to repeat it, killed and resumed at one place after the other: (name, call) of ``kill_at``."""

    def repeat(whole, *places):
        for place in places:
            kill_at(bootstrapped(tmp_path, **whole.told), *place)
        run = bootstrapped(tmp_path, **whole.told)
        assert run.fit().finished
        return run

    return repeat


def test_in_a_round_that_scans_the_training_images(killed_and_resumed, of_train, assert_same_end):
    resumed = killed_and_resumed(
        of_train,
        (STEP, 4),
        (IN_A_SCAN, 3),
        ("detkit.mining.crops.CropWriter._write_one", 6),
        ("detkit.mining.round.write_json", 1),
        (f"{BOOTSTRAPPING}.Bootstrapping._keep", 1),
        (f"{BOOTSTRAPPING}.say", 1),
        (STEP, 2),
    )
    assert min(resumed.steps) == 4
    assert_same_end(resumed.folder, of_train.folder)


def test_in_a_round_that_also_scans_an_unverified_pool(killed_and_resumed, of_both, assert_same_end):
    # Between the steps after the first round; then, in the second, after the pool's suspects were set aside, and in the
    # scan that follows.
    after_quarantine = "detkit.mining.negative_set.NegativeSet.save"
    resumed = killed_and_resumed(of_both, (STEP, 4), (after_quarantine, 1), (IN_A_SCAN, 3))
    assert_same_end(resumed.folder, of_both.folder)


def test_in_a_round_that_is_undone_and_after_it(killed_and_resumed, undone, assert_same_end):
    resumed = killed_and_resumed(
        undone, (f"{BOOTSTRAPPING}.write_json", 2), (f"{BOOTSTRAPPING}.say", 1), (STEP, 3)
    )
    assert min(resumed.steps) == 6
    assert_same_end(resumed.folder, undone.folder)


def test_before_and_after_a_new_detector_begins(killed_and_resumed, scratch, assert_same_end):
    resumed = killed_and_resumed(scratch, (f"{BOOTSTRAPPING}.say", 1), (STEP, 2))
    assert_same_end(resumed.folder, scratch.folder)


DYING = """
import itertools, os, pkgutil, runpy, signal, sys
name, call, tool, *arguments = sys.argv[1:]
original, calls = pkgutil.resolve_name(name), itertools.count(1)
def dying(*told, **named):
    if next(calls) == int(call):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*told, **named)
owner, _, attribute = name.rpartition(".")
setattr(pkgutil.resolve_name(owner), attribute, dying)
sys.argv = [tool, *arguments]
runpy.run_path(tool, run_name="__main__")
"""


@pytest.fixture
def kill(told, of_train, with_pool, write_tiny_config):
    """Call with a folder, and the name and call of a function, to train there as a user does, up to a SIGKILL."""

    def run(folder, place, call):
        tool, config = ROOT / "tools" / "train.py", write_tiny_config(folder)
        flags = ["--resume", f"--data-root={with_pool}", *told(**of_train.told), "data.workers=1"]
        done = subprocess.run(
            [sys.executable, "-c", DYING, place, str(call), tool, config, *flags],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    return run


def test_by_a_signal_in_a_scan_moved_and_between_steps(
    kill, bootstrapped, of_train, assert_same_end, tmp_path
):
    folder = tmp_path / "first"
    folder.mkdir()
    kill(folder, IN_A_SCAN, SCAN_BATCHES + 3)
    assert len((folder / "run/rounds/train_002/scan.jsonl").read_text().splitlines()) == 1 + 2 * 4
    folder = folder.rename(tmp_path / "moved")
    kill(folder, STEP, 2)
    assert (folder / "run/rounds/round_002.json").exists()
    resumed = bootstrapped(folder, **of_train.told)
    assert resumed.fit().finished
    assert min(resumed.steps) == 4
    assert_same_end(resumed.folder, of_train.folder)

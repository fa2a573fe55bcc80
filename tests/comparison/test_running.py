"""Finished runs as files, and runs that are made once, whoever makes them."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from detkit.comparison.finished import FinishedRun, load_finished, rounded, save_finished
from detkit.comparison.running import PlannedRun, arm_slug, finished_file, make_runs, missing_runs
from detkit.errors import DataError
from detkit.evaluation import DetectionTable
from detkit.evaluation.comparison_results import HardNegative, LearningPoint, RoundResult

CHANCE = np.random.default_rng(0)
TABLE = DetectionTable(
    image_ids=np.array([3, 1, 1]),
    boxes=CHANCE.uniform(0, 5000, (3, 4)).astype(np.float32),
    scores=np.array([0.9, 0.30000001, 0.05], dtype=np.float32),
    category_ids=np.array([2, 2, 7]),
)


def finished(seed: int = 4) -> FinishedRun:
    return FinishedRun(
        seed=seed,
        detections=rounded(TABLE),
        compute={"training": 5e9, "mining": 1e8},
        wall_clock=61.5,
        learning=[LearningPoint(1e9, {"AP50": 0.5, "AP": None})],
        rounds=[RoundResult(1, 1e8, 40, 30, 20, 20, 0.5, False, "")],
        hardest=[HardNegative("crops/a-1.jpg", "images/1.png", "face", 0.8, 2)],
    )


def test_a_file_gives_back_what_was_saved(tmp_path):
    run = finished()
    save_finished(tmp_path / "run.npz", run, {"seed": 4, "loss.gamma": 2.0})
    loaded, identity = load_finished(tmp_path / "run.npz")
    assert identity == {"seed": 4, "loss.gamma": 2.0}
    for name in ("image_ids", "boxes", "scores", "category_ids"):
        first, second = getattr(loaded.detections, name), getattr(run.detections, name)
        assert np.array_equal(first, second)
        assert first.dtype == second.dtype
    for name in ("seed", "compute", "wall_clock"):
        assert getattr(loaded, name) == getattr(run, name)
    for name in ("learning", "rounds", "hardest"):
        assert list(getattr(loaded, name)) == list(getattr(run, name))


def test_boxes_are_rounded_to_a_sixteenth_of_a_pixel_at_most():
    assert np.abs(rounded(TABLE).boxes - TABLE.boxes).max() <= 1 / 32 + 1e-3
    assert np.array_equal(rounded(rounded(TABLE)).boxes, rounded(TABLE).boxes)


def test_files_that_are_none_are_refused_by_name(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(DataError, match=r"run\.npz: is no finished run \(FileNotFoundError\)"):
        load_finished(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="is no finished run"):
        load_finished(path)
    save_finished(path, finished(), {})
    with np.load(path) as archive:
        columns = dict(archive)
    tree = json.loads(str(columns["record"]))
    np.savez(path, **{**columns, "record": json.dumps({**tree, "format_version": 2})})
    with pytest.raises(DataError, match="of format version 2, this detkit reads version 1"):
        load_finished(path)
    np.savez(path, **{**columns, "record": json.dumps({**tree, "rounds": [{"number": 1}]})})
    with pytest.raises(DataError, match=r"is no finished run \(ValidationError\)"):
        load_finished(path)


PLAN = [
    PlannedRun(arm, seed, {"arm": arm, "seed": seed}) for seed in (0, 1) for arm in ("focal", "Random 1:3")
]


def make(planned: PlannedRun) -> FinishedRun:
    return finished(planned.seed)


def test_runs_are_made_in_order_and_those_that_are_there_are_not_made_again(tmp_path):
    made = []

    def first_two_then_stop(planned):
        if len(made) == 2:
            return None
        made.append(planned.slug)
        return make(planned)

    assert not make_runs(tmp_path, tmp_path / "work", PLAN, first_two_then_stop)
    assert made == ["focal-0", "random-1-3-0"]
    assert [one.slug for one in missing_runs(tmp_path, PLAN)] == ["focal-1", "random-1-3-1"]
    made.clear()
    made += [0, 0, 0]
    assert make_runs(tmp_path, tmp_path / "work", PLAN, first_two_then_stop)
    assert made[3:] == ["focal-1", "random-1-3-1"]
    assert missing_runs(tmp_path, PLAN) == []


def test_a_finished_run_of_another_configuration_is_refused(tmp_path):
    make_runs(tmp_path, tmp_path / "work", PLAN[:1], make)
    other = PlannedRun("focal", 0, {"arm": "focal", "seed": 0, "loss.gamma": 3.0})
    with pytest.raises(
        DataError, match=r"focal-0\.npz: was made with another .* \(loss.gamma was None, is 3\.0\)"
    ):
        make_runs(tmp_path, tmp_path / "work", [other], make)


def _make_slowly(folder, counts, barrier):
    def slowly(planned):
        with (folder / "made.txt").open("a") as stream:
            stream.write(f"{planned.slug}\n")
        return make(planned)

    barrier.wait()
    counts.put(make_runs(folder, folder / "work", PLAN, slowly))


def test_processes_share_the_runs_and_make_each_once(tmp_path):
    context = multiprocessing.get_context("fork")
    counts, barrier = context.Queue(), context.Barrier(3)
    workers = [context.Process(target=_make_slowly, args=(tmp_path, counts, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [counts.get(timeout=60) for _ in workers] == [True] * 3
    for worker in workers:
        worker.join(60)
    assert sorted((tmp_path / "made.txt").read_text().split()) == sorted(one.slug for one in PLAN)


def test_a_lock_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("fork")
    worker = context.Process(
        target=make_runs, args=(tmp_path, tmp_path / "work", PLAN[:1], lambda planned: os._exit(9))
    )
    worker.start()
    worker.join(60)
    assert worker.exitcode == 9
    assert make_runs(tmp_path, tmp_path / "work", PLAN[:1], make)
    assert finished_file(tmp_path, PLAN[0]).exists()


def test_a_lock_does_not_live_on_in_what_loads_the_data_of_a_killed_process(tmp_path):
    context = multiprocessing.get_context("fork")
    read, write = os.pipe()

    def make_and_fork(planned):
        if os.fork() == 0:
            time.sleep(60)
        os.write(write, str(os.getpid()).encode())
        time.sleep(60)

    worker = context.Process(
        target=make_runs, args=(tmp_path, tmp_path / "work", PLAN[:1], make_and_fork), daemon=True
    )
    worker.start()
    assert int(os.read(read, 20)) == worker.pid
    (loader,) = (
        int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    )
    try:
        assert make_runs(tmp_path, tmp_path / "work", PLAN[:1], make)
        assert not finished_file(tmp_path, PLAN[0]).exists()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(60)
        assert make_runs(tmp_path, tmp_path / "work", PLAN[:1], make)
        assert finished_file(tmp_path, PLAN[0]).exists()
    finally:
        os.kill(loader, signal.SIGKILL)


@pytest.mark.parametrize(("name", "slug"), [("Random 1:3", "random-1-3"), ("../../etc", "etc"), ("ß", "arm")])
def test_names_become_plain_parts_of_file_names(name, slug):
    assert arm_slug(name) == slug

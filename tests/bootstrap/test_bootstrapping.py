"""Bootstrapping in a run: what rounds do and cost, undone rounds, early ends, fresh starts."""

import json
import shutil
from dataclasses import fields
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.bootstrap.rounds import FinishedRound
from detkit.builders import build_run
from detkit.builders.background import background_counts
from detkit.config import load_config
from detkit.data.transforms import EvaluationTransform
from detkit.errors import ConfigError
from detkit.mining.canvases import CanvasDataset
from detkit.mining.manifest import read_manifest
from detkit.mining.negative_set import load_negative_set
from detkit.training.checkpoint import load_checkpoint
from detkit.training.resume import clear

CANVAS = 64 * 64
POOL_PART = 3 * CANVAS
"""Of a half of the pool, whose images are 48 x 64 and 64 x 64: looked at together they are padded to the larger."""
TRAIN, VAL = 22, 8
"""Images of the tiny data set."""


def kept_crops(run, folder):
    """The crops that a scan kept, as its manifest says."""
    _, rows = read_manifest(run.rounds / folder / "manifest.jsonl")
    return [row["crop"] for row in rows if row["decision"] == "kept"]


def joined_in(state, number):
    """Regions of a learner's state that joined in a round."""
    return int((regions_of(state)["members"]["rounds"] == number).sum())


def regions_of(state):
    return state["criterion"]["_extra_state"]


def test_a_round_records_what_was_scanned_and_what_joined(of_train):
    crops = 0
    for number in (1, 2, 3):
        record = of_train.record(number)
        assert list(record) == [*(field.name for field in fields(FinishedRound)), "acceptance_ratio"]
        assert record["acceptance_ratio"] == (record["crops"] + record["regions"]) / (TRAIN + record["seen"])
        assert (record["number"], record["step"], record["part"]) == (number, 2 * number, 0)
        assert (record["undone"], record["last"], record["reason"]) == (False, False, "")
        summary = json.loads((of_train.rounds / f"train_{number:03}" / "summary.json").read_text())
        assert record["scanned"] == summary["images"] == TRAIN
        assert record["false_positives"] == summary["detections"]["background"] > record["crops"]
        assert record["crops"] == len(kept_crops(of_train, f"train_{number:03}")) == 10
        crops += record["crops"]
        state = regions_of(of_train.after[number - 1])
        assert record["regions"] == joined_in(of_train.after[number - 1], number) > 0
        assert record["negatives"] == crops + len(state["members"]["boxes"])
        noted = len(regions_of(of_train.before[number - 1])["noted"]["boxes"])
        assert (record["seen"], record["noted"]) == (2 * 3, noted)
        assert noted >= record["regions"]
        assert (state["joined"], len(state["noted"]["boxes"])) == (number, 0)
    assert len(list((of_train.rounds / "crops").iterdir())) == crops


def test_a_round_remembers_what_watching_measured(of_train):
    records = [of_train.record(number) for number in (1, 2, 3)]
    assert records[0]["before"] is None
    assert [record["before"] for record in records[1:]] == [record["metrics"] for record in records[:2]]
    for record in records:
        assert record["recall"] == record["metrics"]["recall_at_fppi_1"]
        assert {"loss", "AP", "AP50"} <= record["metrics"].keys()


def test_a_round_that_is_not_watched_remembers_the_last_validation(bootstrapped, tmp_path):
    more = ["training.steps=16", "training.validate_every=1"]
    run = bootstrapped(tmp_path, crops={}, rounds=(3 / 16, 5 / 16, 12 / 16), more=more)
    run.fit()
    validations = {row["step"]: row for row in run.log("validate")}
    assert sorted(validations) == [5, 10, 15, 16]
    for row in validations.values():
        del row["seconds"]
    records = [run.record(number) for number in (1, 2, 3)]
    assert [record["metrics"] for record in records] == [None, validations[5], validations[10]]
    assert [record["before"] for record in records] == [None, None, validations[5]]
    assert [record["recall"] for record in records] == [None] * 3


def test_the_log_has_a_row_for_each_round(of_train):
    rows = of_train.log("round")
    assert [row["step"] for row in rows] == [2, 4, 6]
    for number, row in enumerate(rows, start=1):
        record = of_train.record(number)
        expected = {name: value for name, value in record.items() if name not in ("metrics", "before")}
        assert row.pop("seconds") > 0
        assert row == {"event": "round", "epoch": round(2 * number / 7, 4), **expected}
    assert of_train.said.count("false positives in 22 images, 10 crops joined") == 3


def test_canvases_take_their_share_of_the_steps_after_the_first_round(of_train):
    assert [len(of_train.canvases(step)) for step in range(8)] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [len(of_train.steps[step].names) for step in range(8)] == [3, 3, 4, 4, 4, 4, 4, 4]
    for step in range(2, 8):
        tracked = ["to_canvas" in target for target in of_train.steps[step].targets]
        assert tracked == [True, True, True, False]
        assert len(of_train.steps[step].targets[3]["boxes"]) == 0


def test_canvases_take_the_place_of_images_of_the_pool(of_pool):
    for step in range(8):
        names = of_pool.steps[step].names
        canvases, pool = (sum(word in name for name in names) for word in ("canvas", "background"))
        assert (len(names), canvases, pool) == ((4, 0, 2) if step < 2 else (4, 1, 1))
        assert ["to_canvas" in target for target in of_pool.steps[step].targets] == [
            "canvas" not in name for name in names
        ]


def test_canvases_show_the_crops_of_all_rounds_so_far(of_pool):
    scans, augment = of_pool.bootstrapping.scans, EvaluationTransform(64, 64)
    for step, ended in ((3, 1), (4, 2), (7, 3)):
        crops = of_pool.bootstrapping.crops(ended)
        assert set(crops.rounds.tolist()) == set(range(1, ended + 1))
        kept = [kept_crops(of_pool, f"pool_{number:03}") for number in range(1, ended + 1)]
        assert sorted(crops.files.tolist()) == sorted(chain.from_iterable(kept))
        canvases = CanvasDataset(crops, scans.crops_folder, (64, 64), augment)
        place = of_pool.steps[step].names.index(of_pool.canvases(step)[0])
        shown = of_pool.steps[step].pixels[place].permute(1, 2, 0).numpy()
        assert np.array_equal(shown, canvases.pixels(int(of_pool.canvases(step)[0].split()[1])))


def test_compute_is_three_passes_for_a_step_and_one_for_a_scan_and_for_watching(of_train):
    charge = (TRAIN + VAL) * CANVAS
    assert [of_train.steps[step].canvas_pixels for step in (0, 2)] == [3 * CANVAS, 4 * CANVAS]
    rounds = of_train.log("round")
    assert [row["charged"] for row in rounds] == [charge] * 3
    trained = [2 * 3, 2 * 3 + 2 * 4, 2 * 3 + 4 * 4]
    expected = [3 * CANVAS * images + number * charge for number, images in enumerate(trained, start=1)]
    assert [row["compute"] for row in rounds] == expected == of_train.computes
    position = load_checkpoint(of_train.folder / "last.pt")["training"]["position"]
    assert position["compute"] == 3 * CANVAS * (2 * 3 + 6 * 4) + 3 * charge
    assert of_train.log("validate")[-1]["compute"] == position["compute"]
    assert of_train.bootstrapping.charge() == sum(row["charged"] for row in rounds)


def test_the_parts_of_a_pool_take_turns_and_cost_what_their_images_cost(of_pool):
    rounds = of_pool.log("round")
    assert [row["part"] for row in rounds] == [0, 1, 0]
    assert [row["scanned"] for row in rounds] == [3, 3, 3]
    assert [row["charged"] for row in rounds] == [POOL_PART] * 3
    charged = 3 * POOL_PART
    assert of_pool.bootstrapping.charge() == charged
    assert of_pool.log("validate")[-1]["compute"] == 3 * CANVAS * 4 * 8 + charged


def test_what_may_be_an_object_in_an_unverified_pool_is_set_aside(of_both, suspicious):
    listed = json.loads((of_both.rounds / "pool-quarantine.json").read_text())
    assert sum(row["round"] == 1 for row in listed["annotations"]) == 5
    assert all(row["score"] >= suspicious for row in listed["annotations"])
    for number in (1, 2, 3):
        _, rows = read_manifest(of_both.rounds / f"pool_{number:03}" / "manifest.jsonl")
        looked_at = [row for row in rows if row["decision"] != "evicted"]
        assert all((row["decision"] == "quarantined") == (row["score"] >= suspicious) for row in looked_at)
        assert kept_crops(of_both, f"train_{number:03}")
    assert kept_crops(of_both, "pool_001")


def test_later_images_of_an_unverified_pool_ignore_it_and_are_not_tracked(of_both):
    listed = json.loads((of_both.rounds / "pool-quarantine.json").read_text())
    name_of = {image["id"]: image["file_name"] for image in listed["images"]}
    seen = 0
    for step, told in of_both.steps.items():
        for name, target in zip(told.names, told.targets, strict=True):
            assert ("to_canvas" in target) == (
                Path(name).parent.name != "background" and "canvas" not in name
            )
            if "background" not in name:
                continue
            wide = int(Path(name).stem) < 3
            scale = torch.tensor([64 / 80, 38 / 48] * 2 if wide else [1.0] * 4)
            boxes = [
                row["bbox"]
                for row in listed["annotations"]
                if name_of[row["image_id"]] == Path(name).name and 2 * row["round"] <= step and row["area"]
            ]
            expected = torch.tensor(boxes).reshape(-1, 4)
            expected = torch.cat([expected[:, :2], expected[:, :2] + expected[:, 2:]], dim=1) * scale
            assert torch.allclose(target["ignore_regions"], expected, atol=1e-3)
            seen += len(boxes)
    assert seen > 0


def test_a_round_that_loses_recall_is_compared_with_the_last_that_stayed(undone):
    rows = undone.log("round")
    assert [row["undone"] for row in rows] == [False, True, True, False, False, True]
    assert [row["part"] for row in rows] == [0, 1, 1, 1, 0, 1]
    reason = "recall fell from 0.800 after round 1 to 0.600, by more than 0.1"
    assert rows[2]["reason"] == undone.record(3)["reason"] == reason
    assert f"round 3, step 6: undone: {reason}\n" in undone.said
    assert undone.said.count("undone") == 3


def test_undoing_goes_back_to_before_the_round_before_added_anything(undone, same_state):
    for number, kept in ((2, 1), (3, 1), (6, 5)):
        before, after = undone.before[kept - 1], undone.after[number - 1]
        assert not same_state(undone.before[number - 1]["model"], before["model"])
        for name in ("model", "optimiser", "average"):
            assert same_state(after[name], before[name])
        assert same_state(regions_of(after)["members"], regions_of(before)["members"])
        assert regions_of(after)["joined"] == regions_of(before)["joined"]
        assert len(regions_of(before)["noted"]["boxes"]) > 0 == len(regions_of(after)["noted"]["boxes"])
    assert not same_state(undone.after[4], undone.after[0])


def test_nothing_is_mined_in_a_round_that_is_undone(undone):
    names = sorted(path.name for path in undone.rounds.glob("train_*"))
    assert names == ["train_001", "train_004", "train_005"]
    rows = undone.log("round")
    assert [(row["scanned"], row["crops"], row["regions"]) for row in rows[1:3]] == [(0, 0, 0)] * 2
    chance = len(regions_of(undone.before[0])["members"]["boxes"])
    assert rows[1]["negatives"] == rows[2]["negatives"] == chance < rows[0]["negatives"]
    assert [row["charged"] for row in rows] == [
        (VAL + scanned) * CANVAS for scanned in (TRAIN // 2, 0, 0, TRAIN // 2, TRAIN // 2, 0)
    ]
    # The crops of round 1, after step 2, were taken back by round 2, after step 4.
    assert [len(undone.canvases(step)) for step in (1, 3, 5, 7, 9)] == [0, 1, 0, 0, 1]


def test_a_complete_pass_that_finds_hardly_anything_ends_bootstrapping(bootstrapped, same_state, tmp_path):
    crops = {"sources": ["pool"], "threshold": 0.999}
    run = bootstrapped(tmp_path, pool="verified-empty", crops=crops, parts=2, least_acceptance=0.1)
    position = run.fit()
    first, second = run.log("round")
    assert (first["last"], second["last"]) == (False, True)
    assert [(row["scanned"], row["crops"]) for row in (first, second)] == [(3, 0)] * 2
    assert min(row["false_positives"] for row in (first, second)) > 0
    assert "a complete pass over 6 images added 0 crops an image" in second["reason"]
    assert f"bootstrapping ends: {second['reason']}" in run.said
    assert not (run.rounds / "round_003.json").exists()
    assert not (run.rounds / "pool_003").exists()
    assert same_state(run.after[2], run.before[2])
    # Nothing was found, and so there are no canvases, before the end and after; the run goes on to its end.
    assert not any(run.canvases(step) for step in range(8))
    assert (position.step, position.ended_pauses, position.finished) == (8, 3, True)
    assert position.compute == 3 * CANVAS * 4 * 8 + 2 * POOL_PART


@pytest.fixture(scope="module")
def dear(tmp_path_factory, bootstrapped):
    """A run with crops alone, whose first round costs more than mining may."""
    selection = {"name": "random", "ratio": 3.0, "minimum": 16}
    run = bootstrapped(tmp_path_factory.mktemp("dear"), selection=selection, most_compute=0.1)
    assert run.fit().finished
    return run


def test_mining_that_has_cost_its_share_ends_bootstrapping(dear, same_state):
    (row,) = dear.log("round")
    # 22 canvases, of the 72 that eight steps like the first two cost.
    assert "mining has cost 0.306 of what all steps cost, and may cost 0.1" in row["reason"]
    assert row["last"]
    assert dear.computes == [CANVAS * (18 + TRAIN), CANVAS * (18 + TRAIN + 24), CANVAS * (18 + TRAIN + 48)]
    assert all(same_state(dear.before[pause], dear.after[pause]) for pause in (1, 2))
    assert [len(dear.canvases(step)) for step in (1, 2, 7)] == [0, 1, 1]


def test_the_capacity_for_crops_is_the_configurations(bootstrapped, tmp_path):
    run = bootstrapped(tmp_path, crops={"sources": ["train"], "capacity": 7})
    run.fit()
    kept = load_negative_set(run.rounds / "train_003" / "negatives.npz")
    assert (kept.capacity, len(kept.crops)) == (7, 7)


def test_crops_alone_go_with_any_selection(dear):
    (row,) = dear.log("round")
    assert (row["regions"], row["crops"], row["negatives"]) == (0, 10, 10)
    assert not any("to_canvas" in target for step in dear.steps.values() for target in step.targets)


def test_regions_alone_need_no_scan_and_none_that_are_drawn_by_chance(bootstrapped, tmp_path):
    selection = {"name": "mined", "initial": 0, "per_image": 4, "threshold": 0.005}
    run = bootstrapped(tmp_path, crops={}, selection=selection, rounds=(0.5,), more=["training.steps=4"])
    run.fit()
    (row,) = run.log("round")
    assert (row["scanned"], row["crops"], row["charged"]) == (0, 0, 0)
    assert row["negatives"] == len(regions_of(run.after[0])["members"]["boxes"]) == row["regions"] > 0
    assert [path.name for path in run.rounds.iterdir()] == ["round_001.json"]
    assert [run.steps[step].canvas_pixels for step in range(4)] == [4 * CANVAS] * 4
    assert run.bootstrapping.charge() == 0


@pytest.mark.parametrize(("crops", "asked"), [({}, [0]), (None, [0, 2, 4, 6])], ids=["regions", "crops"])
def test_batches_are_asked_for_anew_where_a_round_may_change_them(bootstrapped, tmp_path, crops, asked):
    watched, steps = bootstrapped(tmp_path, crops=crops), []
    batches_from = watched.run.batches_from
    watched.run.batches_from = lambda step: steps.append(step) or batches_from(step)
    assert watched.fit().finished
    assert steps == asked


def test_batches_that_go_on_through_rounds_are_those_that_begin_anew(bootstrapped, same_state, tmp_path):
    told = {"crops": {}, "pool": "verified-empty", "more": ["data.workers=1"]}
    going_on = bootstrapped(tmp_path / "going on", **told)
    assert going_on.fit().finished
    anew = bootstrapped(tmp_path / "anew", **told)
    anew.run.pauses_change_batches = True
    assert anew.fit().finished
    for step in range(8):
        assert going_on.steps[step].names == anew.steps[step].names
        assert same_state(going_on.steps[step].pixels, anew.steps[step].pixels)
        assert same_state(going_on.steps[step].targets, anew.steps[step].targets)
    assert same_state(going_on.run.learner.state_dict(), anew.run.learner.state_dict())


def test_each_round_may_begin_with_a_new_detector(bootstrapped, scratch, same_state, tmp_path):
    initial = bootstrapped(tmp_path, **scratch.told).run.learner.state_dict()
    for before, after in zip(scratch.before, scratch.after, strict=True):
        for part in ("model", "average", "optimiser"):
            assert not same_state(before[part], initial[part])
            assert same_state(after[part], initial[part])


def test_a_new_detector_keeps_what_was_mined(scratch):
    for number, after in enumerate(scratch.after, start=1):
        assert joined_in(after, number) == scratch.record(number)["regions"] > 0
        assert all(joined_in(after, earlier) > 0 for earlier in range(1, number))
        assert set(scratch.bootstrapping.crops(number).rounds.tolist()) == set(range(1, number + 1))
    assert [len(scratch.canvases(step)) for step in range(6)] == [0, 0, 1, 1, 1, 1]


def test_the_schedule_of_a_new_detector_begins_anew(scratch, of_train):
    rates = [row["learning_rate"] for row in scratch.log("train")]
    # Means over two steps each; every round lasts two steps.
    assert rates[0] == rates[1] == rates[2] == pytest.approx(0.002 * (0.001 + 1) / 2)
    assert len({row["learning_rate"] for row in of_train.log("train")}) > 2


def test_a_run_that_begins_anew_forgets_the_rounds_of_the_one_before(of_train, tmp_path):
    folder = shutil.copytree(of_train.folder, tmp_path / "run")
    clear(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (
            ("verified-empty", 0.25, 0.5),
            r"crops\.share: 2 canvases .* of data\.background, of which there are 1",
        ),
        (("verified-empty", 0.99, 0.25), r"data\.background\.share: leaves 0 of train in a step of 4"),
        ((None, 0.5, 0.9), r"bootstrap\.crops\.share: leaves 0 of train in a step of 4"),
    ],
)
def test_shares_that_leave_no_room(tiny_config, told, shares, message):
    pool, share, canvases = shares
    overrides = told(pool=pool, share=share, crops={"sources": ["train"], "share": canvases})
    with pytest.raises(ConfigError, match=message):
        background_counts(load_config(tiny_config, overrides))


def test_each_batch_of_a_step_has_an_image_of_train(tiny_config, told):
    overrides = told(crops={"sources": ["train"], "share": 0.25})
    few = [*overrides, "training.batch_size=1", "training.accumulate=4"]
    with pytest.raises(ConfigError, match=r"leaves 3 of train .* each of its 4 batches needs one"):
        background_counts(load_config(tiny_config, few))


def test_a_run_that_is_too_short_for_its_rounds_is_refused(tiny_config, told):
    config = load_config(tiny_config, told(rounds=(0.1, 0.2), more=["training.steps=2"]))
    with pytest.raises(ConfigError, match="too short for 2 rounds"):
        build_run(config)

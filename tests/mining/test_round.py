"""Whole rounds: what ends up in the set and on record, over several rounds, and after interruptions."""

import json
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.data.coco import read_coco
from detkit.errors import ConfigError, DataError
from detkit.mining import round as mining_round
from detkit.mining.manifest import read_manifest
from detkit.mining.negative_set import NegativeSet, load_negative_set
from detkit.mining.round import MiningRound, mine, negatives_before, refuse_begun, remove_round
from detkit.mining.settings import MiningSettings

TOLD = MiningSettings(least_side=8, largest=(64, 64), threshold=0.1)
OBJECTS = ((0, 1, [60, 10, 80, 30]), (1, 1, [10, 10, 30, 30]))
DETECTIONS = [
    (0, [60, 10, 80, 30], 0.9),  # correct
    (1, [10, 10, 30, 30], 0.3),  # correct
    (0, [5, 5, 25, 25], 0.8),
    (1, [60, 30, 80, 50], 0.7),
    (2, [30, 30, 50, 50], 0.6),
    (2, [32, 30, 52, 50], 0.5),  # overlaps the former
    (3, [5, 5, 25, 25], 0.2),
    (3, [5, 45, 25, 60], 0.05),  # below the threshold
]


@pytest.fixture
def make_round(make_pool, make_source, tmp_path):
    def make(
        detections=DETECTIONS, objects=OBJECTS, *, told=TOLD, state="annotated", **others
    ) -> MiningRound:
        pool = make_pool(4, objects, state=state)
        others = {"number": 1, "root": tmp_path / "negatives", "negatives": NegativeSet.empty()} | others
        return MiningRound(source=make_source(pool, detections), settings=told, **others)

    return make


def test_a_round_from_detections_to_files(make_round):
    told = make_round()
    result = mine(told)
    crops = result.negatives.crops
    assert crops.scores.tolist() == pytest.approx([0.8, 0.7, 0.6, 0.2])
    assert crops.sources.tolist() == told.source.pool.files.tolist()
    assert crops.boxes[0].tolist() == [5, 5, 25, 25]
    assert crops.windows[0].tolist() == [0, 0, 40, 40]
    assert crops.rounds.tolist() == [1, 1, 1, 1]
    assert sorted(path.name for path in told.crops.iterdir()) == sorted(crops.files.tolist())
    for file, size, source, window in zip(
        crops.files, crops.sizes, crops.sources, crops.windows, strict=True
    ):
        x1, y1, x2, y2 = window.astype(int)
        picture = cv2.imread(str(told.crops / file))
        assert picture.shape[:2] == tuple(size)
        np.testing.assert_array_equal(picture, cv2.imread(str(source))[y1:y2, x1:x2])
    assert load_negative_set(told.folder / "negatives.npz").crops.files.tolist() == crops.files.tolist()


def test_the_manifest_has_everything(make_round):
    told = make_round()
    mine(told)
    header, rows = read_manifest(told.folder / "manifest.jsonl")
    assert header["round"] == 1
    assert header["checkpoint"] == "detector 1"
    assert header["settings"]["threshold"] == 0.1
    assert [(row["score"], row["decision"]) for row in rows] == [
        (0.8, "kept"), (0.7, "kept"), (0.6, "kept"), (0.5, "duplicate"), (0.2, "kept"),
    ]  # fmt: skip
    first = rows[0]
    assert set(first) == {
        "file", "sha256", "box", "score", "category_id", "class", "nearest_iou", "round", "checkpoint", "decision",
        "reason", "window", "crop",
    }  # fmt: skip
    assert first["class"] == "cat"
    assert len(first["sha256"]) == 64
    assert (told.crops / first["crop"]).exists()
    assert rows[3]["crop"] is None
    summary = json.loads((told.folder / "summary.json").read_text())
    assert summary["detections"] == {"background": 6, "correct": 2}
    assert summary["decisions"] == {"kept": 4, "duplicate": 1}
    assert (summary["images"], summary["kept"], summary["acceptance_ratio"]) == (4, 4, 1.0)


def test_the_crops_are_a_coco_file_without_boxes(make_round):
    told = make_round()
    mine(told)
    coco = read_coco(told.coco)
    assert len(coco) == 4
    assert len(coco.boxes) == 0
    assert coco.class_names == ("cat", "dog")
    for name, (height, width) in zip(coco.file_names, coco.sizes, strict=True):
        assert cv2.imread(str(told.crops / name)).shape[:2] == (height, width)


def test_a_threshold_from_the_true_positives(make_round):
    told = make_round(told=replace(TOLD, threshold="p50"))
    result = mine(told)
    assert result.summary["threshold"] == pytest.approx(0.6)
    assert result.negatives.crops.scores.tolist() == pytest.approx([0.8, 0.7, 0.6])
    assert result.summary["decisions"] == {"below threshold": 3, "kept": 3}


def test_a_threshold_from_true_positives_that_are_not_there(make_round, capsys):
    """A detector that has found no object yet mines nothing, and the next round can go on."""
    result = mine(make_round(DETECTIONS[2:], told=replace(TOLD, threshold="p50"), number=7))
    assert "threshold p50: no object was found" in capsys.readouterr().err
    assert (result.summary["threshold"], result.summary["kept"]) == (1.0, 0)
    assert set(result.summary["decisions"]) == {"below threshold"}
    assert len(result.negatives.crops) == 0


def test_nothing_found(make_round):
    result = mine(make_round([]))
    assert len(result.negatives.crops) == 0
    assert (result.summary["kept"], result.summary["acceptance_ratio"]) == (0, 0.0)
    assert result.summary["decisions"] == {}


def test_only_a_part_is_scanned(make_round):
    result = mine(make_round(part=(1, 2)))
    assert result.summary["images"] == 2
    assert (result.summary["part"], result.summary["parts"]) == (2, 2)
    assert result.negatives.crops.scores.tolist() == pytest.approx([0.7, 0.2])


def test_the_next_round_knows_what_there_is_and_how_hard_it_still_is(make_round):
    first = make_round()
    mine(first)
    detections = [
        (0, [6, 6, 25, 25], 0.35),  # in the first crop
        (2, [60, 5, 80, 25], 0.9),  # new
        (3, [5, 5, 25, 25], 0.4),
    ]
    before = negatives_before(first.root, 2, capacity=None)
    told = make_round(detections, number=2, negatives=before)
    result = mine(told)
    crops = result.negatives.crops
    assert crops.scores.tolist() == pytest.approx([0.35, 0, 0, 0.4, 0.9])
    assert crops.rounds.tolist() == [1, 1, 1, 1, 2]
    assert result.summary["decisions"] == {"known": 2, "kept": 1}
    assert (told.folder.name, result.summary["crops"]) == ("round_002", 5)
    assert len(read_coco(told.coco)) == 5
    assert negatives_before(first.root, 2, capacity=2).capacity == 2
    # The round is undone by going back to the set before.
    assert (
        negatives_before(first.root, 2, capacity=None).crops.scores.tolist() == before.crops.scores.tolist()
    )


def test_what_was_not_scanned_keeps_its_score(make_round):
    first = make_round()
    negatives = mine(first).negatives
    result = mine(make_round([], number=2, negatives=negatives, part=(0, 2)))
    assert result.negatives.crops.scores.tolist() == pytest.approx([0, 0.7, 0, 0.2])


def test_a_full_set_says_who_made_room(make_round):
    negatives = mine(make_round(negatives=NegativeSet.empty(capacity=4))).negatives
    detections = [*DETECTIONS, (2, [60, 5, 80, 25], 0.75), (3, [60, 5, 80, 25], 0.15)]
    told = make_round(detections, number=2, negatives=negatives)
    result = mine(told)
    assert sorted(result.negatives.crops.scores.tolist()) == pytest.approx([0.6, 0.7, 0.75, 0.8])
    _, rows = read_manifest(told.folder / "manifest.jsonl")
    evicted = [(row["round"], row["score"]) for row in rows if row["decision"] == "evicted"]
    assert evicted == [(2, 0.15), (1, pytest.approx(0.2))]
    assert (result.summary["evicted"], result.summary["kept"]) == (2, 1)
    assert result.summary["decisions"]["evicted"] == 1


def test_suspects_go_to_quarantine_and_stay_there(make_round):
    detections = [(0, [5, 5, 25, 25], 0.95), (1, [60, 30, 80, 50], 0.7)]
    result = mine(make_round(detections, (), state="unverified"))
    assert result.negatives.crops.scores.tolist() == pytest.approx([0.7])
    assert result.summary["decisions"] == {"quarantined": 1, "kept": 1}
    # In the next round it scores less; it is no negative for that.
    detections = [(0, [6, 5, 25, 25], 0.5), (0, [30, 5, 40, 15], 0.4)]
    told = make_round(detections, (), state="unverified", number=2, negatives=result.negatives)
    result = mine(told)
    assert result.summary["detections"] == {"background": 1, "ignored": 1}
    assert result.negatives.crops.windows[-1][0] >= 25
    assert len(json.loads(told.quarantine.read_text())["annotations"]) == 1


def test_crops_are_cut_at_the_scale_of_the_detector(make_round, make_source):
    told = make_round()
    told = replace(told, source=make_source(told.source.pool, DETECTIONS, scale=0.5))
    crops = mine(told).negatives.crops
    assert crops.sizes[0].tolist() == [22, 22]
    assert crops.windows[0].tolist() == [0, 0, 44, 44]
    assert crops.boxes[0].tolist() == [5, 5, 25, 25]


STEPS = ("choose_crops", "write_manifest", "write_quarantine", "write_coco_negatives", "write_json")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_anywhere_a_round_ends_as_if_it_had_not_been(
    make_round, tmp_path, monkeypatch, step, when
):
    options = {"state": "unverified", "negatives": NegativeSet.empty(capacity=3)}
    detections = [*DETECTIONS, (2, [5, 5, 20, 20], 0.95)]
    whole = mine(make_round(detections, (), root=tmp_path / "whole", **options))
    told = make_round(detections, (), root=tmp_path / "cut", **options)
    function = getattr(mining_round, step)

    def interrupted(*arguments, **keywords):
        if when == "after":
            function(*arguments, **keywords)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mining_round, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            mine(told)
    result = mine(told)
    for field in fields(result.negatives.crops):
        mine_, other = (getattr(one.negatives.crops, field.name) for one in (result, whole))
        np.testing.assert_array_equal(mine_, other)
    files = {
        path.relative_to(tmp_path / "whole"): path.read_bytes()
        for path in (tmp_path / "whole").rglob("*")
        if path.is_file()
    }
    assert len(files) > 8
    for name, content in files.items():
        again = (tmp_path / "cut" / name).read_bytes()
        assert again == content or name.suffix == ".npz"
    assert len(list((tmp_path / "cut").rglob("*"))) == len(list((tmp_path / "whole").rglob("*")))


def test_what_turns_out_to_be_a_suspect_is_taken_out_of_the_set(make_round):
    """A detector that has learned more sees an object where an earlier round cut a crop."""
    first = mine(make_round([(2, [5, 5, 20, 20], 0.3), (3, [5, 5, 20, 20], 0.4)], (), state="unverified"))
    assert len(first.negatives.crops) == 2
    options = {"state": "unverified", "number": 2, "negatives": first.negatives}
    told = make_round([(2, [8, 8, 22, 22], 0.95)], (), **options)
    second = mine(told)
    assert second.negatives.crops.sources.tolist() == [str(told.source.pool.files[3])]
    _, rows = read_manifest(told.folder / "manifest.jsonl")
    assert [row["decision"] for row in rows] == ["quarantined", "evicted"]
    assert rows[1]["reason"] == "holds what may be an object, as this round or a person says"
    assert rows[1]["crop"] in first.negatives.crops.files
    assert second.summary["evicted"] == 1
    coco = json.loads(told.coco.read_text())
    assert [image["file_name"] for image in coco["images"]] == second.negatives.crops.files.tolist()


def test_a_crop_that_a_suspect_took_out_does_not_come_back_when_its_round_is_undone(make_round):
    first = mine(make_round([(2, [5, 5, 20, 20], 0.3), (3, [5, 5, 20, 20], 0.4)], (), state="unverified"))
    told = {"state": "unverified", "negatives": first.negatives}
    suspected = mine(make_round([(2, [8, 8, 22, 22], 0.95)], (), number=2, **told))
    assert len(suspected.negatives.crops) == 1
    # Round 2 is undone: the next one begins with the set of round 1 again, and the list knows the place.
    third = make_round([(2, [8, 8, 22, 22], 0.95)], (), number=3, **told)
    assert mine(third).negatives.crops.sources.tolist() == [str(third.source.pool.files[3])]


def test_a_place_is_known_however_the_folder_is_told(make_round, monkeypatch):
    detections = [(0, [5, 5, 25, 25], 0.5)]
    first = mine(make_round(detections, ()))
    told = make_round([(0, [5, 5, 25, 25], 0.4)], (), number=2, negatives=first.negatives)
    pool = told.source.pool
    monkeypatch.chdir(pool.folder.parent)
    told = replace(told, source=replace(told.source, pool=replace(pool, folder=Path(pool.folder.name))))
    second = mine(told)
    assert second.summary["decisions"] == {"known": 1}
    assert second.negatives.crops.scores.tolist() == pytest.approx([0.4])


def test_a_round_that_was_begun_is_not_begun_again_by_mistake(make_round):
    told = make_round()
    refuse_begun(told, resume=False, overwrite=False)
    mine(told)
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite.*--round 2"):
        refuse_begun(told, resume=False, overwrite=False)
    refuse_begun(told, resume=True, overwrite=False)
    refuse_begun(told, resume=False, overwrite=True)
    assert (told.folder / "scan.jsonl").exists()
    (told.crops / ".round001-1.png.x.part").write_bytes(b"left by a kill")
    remove_round(told)
    assert list(told.folder.iterdir()) == list(told.crops.iterdir()) == []


def test_mistakes(make_round, tmp_path):
    with pytest.raises(ConfigError, match="round 0: rounds count from 1"):
        make_round(number=0)
    with pytest.raises(DataError, match=r"round_001/negatives\.npz: there is no such file"):
        negatives_before(tmp_path, 2, capacity=None)
    with pytest.raises(DataError, match=r"manifest\.jsonl: there is no such file"):
        read_manifest(tmp_path / "manifest.jsonl")
    (tmp_path / "manifest.jsonl").write_text('{"format": "detkit mining manifest", "format_version": 2}\n')
    with pytest.raises(DataError, match="is no manifest of format version 1"):
        read_manifest(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": "q5"}, {"threshold": "p101"}, {"per_image": 0}, {"least_side": 600}, {"context": 0.5},
     {"background_iou": 0.6}],
)  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MiningSettings(**wrong)

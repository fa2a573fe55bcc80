"""tools/mine.py as a user runs it: from a checkpoint, from results alone, killed and resumed."""

import json
import os
import signal
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from mining_script import SMALL, mine, refused, write_noise
from pycocotools.coco import COCO
from scripts import ENVIRONMENT, command, printed_by

from detkit.mining.manifest import read_manifest
from detkit.mining.negative_set import load_negative_set


def assert_crops_are_negatives(folder):
    """pycocotools reads the set, no image has a box, and every picture is a JPEG of the size it says."""
    coco = COCO(str(folder / "negatives.json"))
    assert coco.getImgIds()
    assert coco.getAnnIds() == []
    for image in coco.loadImgs(coco.getImgIds()):
        data = (folder / "crops" / image["file_name"]).read_bytes()
        assert data.startswith(b"\xff\xd8")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[:2] == (image["height"], image["width"])
    assert len(list((folder / "crops").iterdir())) == len(coco.getImgIds())
    return coco


def test_from_a_checkpoint_and_training_images(checkpoint, tiny_coco, tmp_path):
    truth = tiny_coco / "train.json"
    told = ("--annotations", truth, "--images", tiny_coco / "images", "--output", tmp_path)
    output = mine(checkpoint, *told, *SMALL)
    coco = assert_crops_are_negatives(tmp_path)
    assert f"{len(coco.getImgIds())} negatives" in output
    objects = COCO(str(truth))
    by_file = {image["file_name"]: image["id"] for image in objects.loadImgs(objects.getImgIds())}
    for crop in coco.loadImgs(coco.getImgIds()):
        x1, y1, x2, y2 = crop["window"]
        for row in objects.loadAnns(objects.getAnnIds(imgIds=[by_file[Path(crop["source"]).name]])):
            x, y, width, height = row["bbox"]
            assert min(x2, x + width) <= max(x1, x) or min(y2, y + height) <= max(y1, y)
    again = mine(checkpoint, *told, *SMALL, "--round", 2)
    assert "known" in again
    _, rows = read_manifest(tmp_path / "round_002" / "manifest.jsonl")
    windows = [crop["window"] for crop in coco.loadImgs(coco.getImgIds())]
    sources = [Path(crop["source"]).name for crop in coco.loadImgs(coco.getImgIds())]
    for row in (row for row in rows if row["decision"] == "kept"):
        middle = (np.array(row["box"][:2]) + row["box"][2:]) / 2
        for (x1, y1, x2, y2), source in zip(windows, sources, strict=True):
            inside = x1 <= middle[0] <= x2 and y1 <= middle[1] <= y2
            assert not (inside and Path(row["file"]).name == source)
    assert "builds on round 1" in refused(checkpoint, *told, *SMALL, "--overwrite")


@pytest.mark.parametrize("state", ["verified-empty", "unverified"])
def test_from_a_checkpoint_and_a_folder(checkpoint, photos, tmp_path, state):
    told = ("--images", photos, "--state", state, "--output", tmp_path / "my negatives")
    mine(checkpoint, *told, *SMALL, "--quarantine-score", 0.2)
    _, rows = read_manifest(tmp_path / "my negatives" / "round_001" / "manifest.jsonl")
    kept = [row for row in rows if row["decision"] == "kept"]
    suspects = [row for row in rows if row["decision"] == "quarantined"]
    assert kept
    assert bool(suspects) == (state == "unverified")
    assert (tmp_path / "my negatives" / "quarantine.json").exists() == (state == "unverified")
    assert all(row["score"] >= 0.2 for row in suspects)
    if suspects:
        assert max(row["score"] for row in kept) < 0.2
    assert_crops_are_negatives(tmp_path / "my negatives")


def test_results_of_any_program_need_no_checkpoint(checkpoint, tiny_coco, tmp_path):
    """Those of the same detector give the crops that the checkpoint gives."""
    truth = ("--annotations", tiny_coco / "train.json", "--images", tiny_coco / "images")
    printed_by("evaluate.py", checkpoint, *truth, "--output", tmp_path / "found")
    mine(checkpoint, *truth, *SMALL, "--output", tmp_path / "one")
    results = ("--detections", tmp_path / "found" / "detections.json")
    output = mine(*results, *truth, *SMALL, "--output", tmp_path / "other")
    assert "--held-out" in output
    one, other = ((tmp_path / name / "negatives.json").read_bytes() for name in ("one", "other"))
    assert [image["window"] for image in json.loads(one)["images"]] == [
        image["window"] for image in json.loads(other)["images"]
    ]


def test_a_threshold_from_the_true_positives(hand_made, tmp_path):
    found = [(1, [100, 20, 30, 30], 0.8), (1, [10, 10, 20, 20], 0.85), (1, [10, 60, 20, 20], 0.75)]
    mine(*hand_made(found, objects=[(1, [100, 20, 30, 30])]), "--threshold", "p50")
    summary = json.loads((tmp_path / "negatives" / "round_001" / "summary.json").read_text())
    assert summary["decisions"] == {"kept": 1, "below threshold": 1}


def test_a_full_set_keeps_the_hardest(hand_made, tmp_path):
    found = [(1, [10, 10, 20, 20], 0.7), (1, [10, 60, 20, 20], 0.9), (1, [100, 20, 20, 20], 0.8)]
    mine(*hand_made(found), "--capacity", 2)
    kept = load_negative_set(tmp_path / "negatives" / "round_001" / "negatives.npz").crops
    assert sorted(kept.scores.tolist()) == pytest.approx([0.8, 0.9])
    assert len(json.loads((tmp_path / "negatives" / "negatives.json").read_text())["images"]) == 2


def test_a_persons_marks(hand_made, tmp_path):
    rows = [("1.png", [10, 60, 30, 80]), ("other.png", [0, 0, 9, 9])]
    marks = [
        {"file_name": name, "box": box, "category": "cat", "score": 0.7, "mark": "rejected"}
        for name, box in rows
    ]
    tree = {"format": "detkit review marks", "format_version": 1, "marks": marks}
    (tmp_path / "marks.json").write_text(json.dumps(tree))
    arguments = hand_made([(1, [10, 10, 20, 20], 0.85), (1, [10, 60, 20, 20], 0.75)])
    said = mine(*arguments, "--marks", tmp_path / "marks.json")
    assert "1 marks are of images that are not mined here, as 'other.png'" in said
    summary = json.loads((tmp_path / "negatives" / "round_001" / "summary.json").read_text())
    assert (summary["detections"], summary["kept"]) == ({"ignored": 1, "background": 1}, 1)
    assert "is no file of review marks" in refused(*arguments, "--marks", tmp_path / "gt.json", "--overwrite")


def test_crops_at_the_borders_are_inside_the_image(hand_made, tmp_path):
    boxes = [[-8, -8, 30, 30], [140, -4, 30, 30], [-4, 100, 30, 30], [135, 95, 40, 40], [70, 0, 20, 20]]
    mine(*hand_made([(1, box, 0.9 - 0.1 * row) for row, box in enumerate(boxes)]))
    coco = assert_crops_are_negatives(tmp_path / "negatives")
    assert len(coco.getImgIds()) == len(boxes)
    picture = cv2.imread(str(tmp_path / "1.png")).astype(float)
    for image in coco.loadImgs(coco.getImgIds()):
        x1, y1, x2, y2 = map(int, image["window"])
        assert min(x1, y1) >= 0
        assert x2 <= 160
        assert y2 <= 120
        crop = cv2.imread(str(tmp_path / "negatives" / "crops" / image["file_name"]))
        assert np.abs(crop - picture[y1:y2, x1:x2]).mean() < 3


def test_images_smaller_than_a_crop(hand_made, tmp_path):
    output = mine(*hand_made([(1, [0, 0, 10, 10], 0.9)], sizes=((16, 20),)))
    assert "no new crop" in output
    assert "too small" in output
    assert json.loads((tmp_path / "negatives" / "negatives.json").read_text())["images"] == []


def test_nothing_found(hand_made, checkpoint, photos, tmp_path):
    output = mine(*hand_made([]))
    assert "no new crop: nothing on background scores 0.1 or more in 1 images; lower --threshold" in output
    folder = ("--images", photos, "--state", "verified-empty", "--output", tmp_path / "x")
    assert "scores 0.999 or more in 12 images" in mine(checkpoint, *folder, "--threshold", 0.999)


def test_ten_thousand_detections_in_one_image(hand_made, tmp_path):
    rng = np.random.default_rng(0)
    corners, sides, scores = (
        rng.integers(0, 560, (10_000, 2)),
        rng.integers(4, 80, (10_000, 2)),
        rng.random(10_000),
    )
    found = [
        (1, [*corner, *side], score)
        for corner, side, score in zip(corners.tolist(), sides.tolist(), scores.tolist(), strict=True)
    ]
    told = hand_made(found, sizes=((640, 640),), objects=[(1, [300, 300, 50, 50])])
    started = time.monotonic()
    mine(*told, "--threshold", 0)
    assert time.monotonic() - started < 10
    _, rows = read_manifest(tmp_path / "negatives" / "round_001" / "manifest.jsonl")
    assert len(rows) > 9_000
    assert 1 <= sum(row["decision"] == "kept" for row in rows) <= 8


def kill_in_the_middle(arguments, journal, lines, least=4):
    """Start mining and kill it, without warning, while it goes over the images."""
    process = subprocess.Popen(
        command("mine.py", *arguments),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=ENVIRONMENT,
    )  # fmt: skip
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < least):
        time.sleep(0.002)
    assert process.poll() is None, "the scan ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert least <= journal.read_bytes().count(b"\n") < 1 + lines


def test_killed_in_the_middle_and_resumed_it_ends_the_same(checkpoint, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for seed in range(160):
        write_noise(pool / f"{seed:03}.png", seed)
    told = (
        checkpoint,
        "--images",
        pool,
        "--state",
        "unverified",
        *SMALL,
        "--quarantine-score",
        0.3,
        "--per-image",
        1,
    )
    mine(*told, "--output", tmp_path / "whole")
    cut = (*told, "--output", tmp_path / "cut")
    kill_in_the_middle(cut, tmp_path / "cut" / "round_001" / "scan.jsonl", lines=160)
    assert "--resume" in refused(*cut)
    mine(*cut, "--resume")
    assert_same_files(tmp_path / "whole", tmp_path / "cut")


def assert_same_files(first, second):
    """Byte by byte, but for the negative set, whose archive is compared by its content."""
    names = [sorted(str(path.relative_to(top)) for path in top.rglob("*")) for top in (first, second)]
    assert names[0] == names[1]
    assert len(names[0]) > 100
    for name in names[0]:
        one, other = first / name, second / name
        if one.suffix == ".npz":
            crops = [load_negative_set(path).crops for path in (one, other)]
            for field in fields(crops[0]):
                np.testing.assert_array_equal(*(getattr(each, field.name) for each in crops))
        elif one.is_file():
            assert one.read_bytes() == other.read_bytes(), name


def test_help_teaches():
    output = printed_by("mine.py", "--help")
    for word in ("examples:", "--state", "verified-empty, somebody looked", "--resume", "negatives.json"):
        assert word in output

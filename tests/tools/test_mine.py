"""tools/mine.py as a user runs it: from a checkpoint, from results alone, killed and resumed, and with mistakes."""

import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from detkit.mining.manifest import read_manifest
from detkit.mining.negative_set import load_negative_set

ROOT = Path(__file__).parents[2]
SMALL = ("--threshold", 0.05, "--least-side", 8)
"""For pictures of 64 pixels and a detector that has hardly learned."""


def run(tool, *arguments):
    """Run a script in this process, which saves the seconds that importing torch takes: status and what it said."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setattr(sys, "argv", [tool, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    return ended.value.code, output.getvalue()


def mine(*arguments):
    status, output = run("mine.py", *arguments)
    assert status == 0, output
    return output


def refused(*arguments):
    """The one message of a mistake, without what argparse says before it."""
    status, output = run("mine.py", *arguments)
    assert status == 2, output
    assert "Traceback" not in output
    return output.partition("error: ")[2]


def write_noise(path, seed, size=(64, 64)):
    """A picture (height, width) of soft blobs and a bright and a dark square; another seed gives another one."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(
        rng.integers(60, 200, (8, 8, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC
    )
    for value in (250, 5):
        x, y = rng.integers(0, max(1, min(size) - 16), 2).tolist()
        picture[y : y + 16, x : x + 16] = value
    cv2.imwrite(str(path), picture)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, write_tiny_config):
    """Of a detector that has hardly learned, so that it fires on background."""
    folder = tmp_path_factory.mktemp("trained")
    status, output = run("train.py", write_tiny_config(folder, epochs=6))
    assert status == 0, output
    return folder / "run" / "best.pt"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures that are not in ``tiny_coco``; its name has spaces."""
    folder = tmp_path_factory.mktemp("pool") / "my web photos"
    folder.mkdir()
    for seed in range(12):
        write_noise(folder / f"photo {seed}.png", seed)
    return folder


@pytest.fixture
def hand_made(tmp_path):
    """Write pictures, a COCO file and results by hand; the arguments that mine them.

    ``detections``: (image id, xywh box, score).
    """

    def make(detections, sizes=((120, 160),), objects=()):
        for image, size in enumerate(sizes, start=1):
            write_noise(tmp_path / f"{image}.png", image, size)
        images = [
            {"id": image, "file_name": f"{image}.png", "width": width, "height": height}
            for image, (height, width) in enumerate(sizes, start=1)
        ]
        annotations = [
            {"id": row, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for row, (image, box) in enumerate(objects, start=1)
        ]  # fmt: skip
        tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        results = [
            {"image_id": image, "category_id": 1, "bbox": box, "score": score}
            for image, box, score in detections
        ]
        (tmp_path / "gt.json").write_text(json.dumps(tree))
        (tmp_path / "dt.json").write_text(json.dumps(results))
        files = ("--detections", tmp_path / "dt.json", "--annotations", tmp_path / "gt.json")
        return *files, "--images", tmp_path, "--output", tmp_path / "negatives"

    return make


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
    assert not any(row["decision"] == "kept" and row["score"] > 1 for row in rows)
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
    status, output = run("evaluate.py", checkpoint, *truth, "--output", tmp_path / "found")
    assert status == 0, output
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
    assert "1 marks are of images that are not mined here, as 'other.png'" in " ".join(said.split())
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
        [sys.executable, str(ROOT / "tools" / "mine.py"), *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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


def test_only_the_same_pool_is_gone_on_with(checkpoint, photos, tmp_path):
    pool = shutil.copytree(photos, tmp_path / "pool")
    told = (checkpoint, "--images", pool, "--state", "verified-empty", "--output", tmp_path / "x")
    mine(*told, *SMALL)
    assert "was begun with threshold 0.05, this scan has 0.5" in refused(
        *told, *SMALL, "--resume", "--threshold", 0.5
    )
    (pool / "photo 0.png").rename(pool / "another.png")
    assert "was begun with pool_sha256" in refused(*told, *SMALL, "--resume")
    before = sorted((tmp_path / "x" / "crops").iterdir())
    mine(*told, *SMALL, "--overwrite", "--threshold", 0.999)
    assert before
    assert not list((tmp_path / "x" / "crops").iterdir())


@pytest.mark.parametrize("copy", ["file", "JPEG"])
def test_images_of_validation_are_refused_and_nothing_is_written(
    checkpoint, photos, tiny_coco, tmp_path, copy
):
    pool = shutil.copytree(photos, tmp_path / "pool")
    held_out = shutil.copytree(photos, tmp_path / "validation")
    for path in pool.iterdir():
        if path.name != "photo 3.png":
            path.unlink()
    told = (checkpoint, "--images", pool, "--state", "unverified", "--output", tmp_path / "x")
    if copy == "file":
        shutil.copy(tiny_coco / "images" / "101.png", pool / "renamed.png")
        found = refused(*told)
        assert "renamed.png is the very same file as" in found
        assert "101.png" in found
    else:
        picture = cv2.resize(cv2.imread(str(pool / "photo 3.png")), (96, 96))
        (pool / "photo 3.png").unlink()
        cv2.imwrite(str(pool / "web.jpg"), picture)
        found = refused(*told, "--held-out", held_out)
        assert "web.jpg looks like" in found
        assert "photo 3.png" in found
    assert "take them out" in found
    assert not (tmp_path / "x").exists()


@pytest.fixture
def broken(tmp_path, photos):
    """A folder with a whole image, a cut-off JPEG and a text that is called an image."""
    folder = tmp_path / "broken"
    folder.mkdir()
    shutil.copy(photos / "photo 0.png", folder)
    cv2.imwrite(str(folder / "cut.jpg"), cv2.imread(str(photos / "photo 1.png")))
    data = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    return folder


def test_mistakes_about_images(checkpoint, tiny_coco, broken, tmp_path):
    output = ("--output", tmp_path / "x")
    empty = tmp_path / "empty"
    empty.mkdir()
    folder = (checkpoint, *output, "--state", "verified-empty", "--images")
    assert "no image found; detkit looks for .jpg" in refused(*folder, empty)
    assert "absent: there is no such file or folder" in refused(*folder, tmp_path / "absent")
    assert "is a file; name the folder" in refused(*folder, checkpoint)
    assert "cut.jpg: is truncated" in refused(*folder, broken, "--overwrite")
    assert "needs --state" in refused(checkpoint, *output, "--images", broken)
    assert "--threshold p50: needs --annotations" in refused(*folder, broken, "--threshold", "p50")
    assert "lies in the folder that is mined" in refused(*folder, broken, "--output", broken / "negatives")
    coco = (checkpoint, *output, "--images", tiny_coco / "images", "--annotations")
    assert "has 43 boxes" in refused(*coco, tiny_coco / "train.json", "--state", "verified-empty").replace(
        str(len(COCO(str(tiny_coco / "train.json")).anns)), "43"
    )
    assert "is not JSON" in refused(*coco, ROOT / "LICENSE")
    assert "absent.json: cannot be read" in refused(*coco, tmp_path / "absent.json")
    other = json.loads((tiny_coco / "train.json").read_text())
    other["categories"][0]["name"] = "zebra"
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "has the classes zebra, which the checkpoint does not know (it knows bright, dark)" in refused(
        *coco, tmp_path / "other.json"
    )


def test_mistakes_about_detectors(checkpoint, hand_made, photos, tmp_path):
    pool = ("--images", photos, "--state", "verified-empty", "--output", tmp_path / "x")
    assert "absent.pt: there is no such file" in refused(tmp_path / "absent.pt", *pool)
    assert "LICENSE: is not a checkpoint" in refused(ROOT / "LICENSE", *pool)
    assert "give a checkpoint, or --detections" in refused(*pool)
    assert "name them with --held-out or --data-root" in refused(
        checkpoint, *pool, "--data-root", tmp_path / "no"
    )
    assert "--classes: does not go with checkpoint" in refused(checkpoint, *pool, "--classes", "cat")
    told = hand_made([(1, [0, 0, 9, 9], 0.5)])
    assert "--device: does not go with detections" in refused(*told, "--device", "cpu")
    assert "has no class 'cow'" in refused(*told, "--classes", "cow")
    assert "shorter side comes first" in refused(*told, "--resize", 9, 8)
    unknown = hand_made([(7, [0, 0, 9, 9], 0.5)])
    assert "image id 7: not in the annotations" in refused(*unknown)
    (tmp_path / "dt.json").write_text('[{"image_id": 1,')
    assert "dt.json: line 1, column 17: is not JSON" in refused(*unknown)
    (tmp_path / "dt.json").unlink()
    assert "dt.json: cannot be read" in refused(*unknown)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--round", 2), r"round_001/negatives.npz: there is no such file; do the round before"),
        (("--round", 0), "round 0: rounds count from 1"),
        (("--round", "two"), "invalid int value: 'two'"),
        (("--part", "5/4"), "write 2/4 for the second of four parts"),
        (("--part", "2/2"), "has 1 images, so that part 2 of 2 is empty"),
        (("--threshold", "high"), "high: write a score such as 0.1, or a percentile such as p50"),
        (("--threshold", "p200"), "threshold 'p200': write a score"),
        (("--threshold", "nan"), "threshold nan: out of range"),
        (("--quarantine-score", "nan"), "quarantine_score nan: out of range"),
        (("--per-image", 0), "per_image 0: out of range"),
        (("--capacity", -5), "-5: write a whole number from 1 on"),
        (("--held-out", "absent.json"), "absent.json: cannot be read"),
    ],
)
def test_wrong_values(hand_made, wrong, message):
    assert message in refused(*hand_made([(1, [0, 0, 9, 9], 0.5)]), *wrong)


def test_an_output_that_is_a_file(hand_made, tmp_path):
    told = hand_made([])
    (tmp_path / "negatives").write_text("")
    assert "is a file; name a folder" in refused(*told)


def test_help_teaches():
    status, output = run("mine.py", "--help")
    assert status == 0
    for word in ("examples:", "--state", "verified-empty, somebody looked", "--resume", "negatives.json"):
        assert word in output

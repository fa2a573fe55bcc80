"""What tools/mine.py refuses: other pools, images of validation, broken files, and arguments that make no sense."""

import json
import shutil

import cv2
import pytest
from mining_script import SMALL, mine, refused
from pycocotools.coco import COCO
from scripts import ROOT


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
    assert "--classes and --resize go with --detections" in refused(checkpoint, *pool, "--classes", "cat")
    told = hand_made([(1, [0, 0, 9, 9], 0.5)])
    assert "--data-root, --device and --precision go with a checkpoint" in refused(*told, "--device", "cpu")
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

"""Crops: what is cut out, which of them look alike, and their files."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detkit.mining.candidates import Candidate
from detkit.mining.crops import CropWriter, choose_crops, surroundings
from detkit.mining.decision import Decision

NOTHING_KNOWN = np.zeros(0, dtype=np.uint64)


def candidate(image, window, score=0.5, box=None):
    return Candidate(image, tuple(map(float, box or window)), score, 1, 0.0, window=window)


@pytest.fixture
def writer(make_pool, tmp_path):
    pool = make_pool(4)
    return CropWriter(pool, dict.fromkeys(range(4), (64, 96)), tmp_path / "crops", "r1", "png")


def choose(candidates, writer, limit=10, known=NOTHING_KNOWN):
    return choose_crops(candidates, writer, limit=limit, alike_bits=4, known_hashes=known)


def test_crops_are_parts_of_the_image_and_each_image_is_read_once(writer, monkeypatch):
    reads = []
    read = type(writer.pool).read
    monkeypatch.setattr(
        type(writer.pool), "read", lambda pool, index: reads.append(index) or read(pool, index)
    )
    windows = [(0, (0, 0, 40, 30)), (2, (10, 5, 50, 45)), (0, (56, 34, 96, 64))]
    crops = writer.cut([candidate(image, window) for image, window in windows])
    for crop, (image, (x1, y1, x2, y2)) in zip(crops, windows, strict=True):
        np.testing.assert_array_equal(crop.pixels, read(writer.pool, image)[y1:y2, x1:x2])
    assert sorted(reads) == [0, 2]


def test_crops_of_a_resized_image(writer):
    half = replace(writer, input_sizes=dict.fromkeys(range(4), (32, 48)))
    (crop,) = half.cut([candidate(1, (4, 2, 24, 22))])
    small = cv2.resize(writer.pool.read(1), (48, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(crop.pixels, small[2:22, 4:24])


@pytest.mark.parametrize(("file_format", "largest"), [("png", 0), ("jpg", 6)])
def test_files_hold_what_was_cut(writer, file_format, largest):
    writer = replace(writer, file_format=file_format)
    wanted = candidate(3, (10, 10, 50, 40))
    chosen = choose([wanted], writer)
    assert chosen.decided == [wanted.decided(Decision.KEPT)]
    (file,) = writer.folder.iterdir()
    assert file.name == writer.name_of(wanted) == f"r1-000003-10-10-50-40.{file_format}"
    written = cv2.imread(str(file))[..., ::-1].astype(int)
    assert np.abs(written - writer.pool.read(3)[10:40, 10:50]).max() <= largest


def test_of_those_that_look_alike_the_hardest_stays(writer):
    hard, alike, other = (
        candidate(0, (0, 0, 40, 40), 0.9),
        candidate(0, (0, 0, 40, 41), 0.8),
        candidate(1, (0, 0, 40, 40)),
    )
    chosen = choose([hard, alike, other], writer)
    decisions = [verdict.decision for verdict in chosen.decided]
    assert decisions == [Decision.KEPT, Decision.NEAR_DUPLICATE, Decision.KEPT]
    assert writer.name_of(hard) in chosen.decided[1].reason
    assert len(list(writer.folder.iterdir())) == len(chosen.hashes) == 2
    again = choose([hard, other], writer, known=chosen.hashes[:1])
    assert [verdict.decision for verdict in again.decided] == [Decision.NEAR_DUPLICATE, Decision.KEPT]
    assert "an earlier round" in again.decided[0].reason


def test_a_small_false_positive_is_not_lost_in_equal_surroundings(make_pool, tmp_path):
    pool, rng = make_pool(2), np.random.default_rng(0)
    for file in pool.files:
        image = np.full((64, 96, 3), 128, dtype=np.uint8)
        image[28:36, 28:36] = rng.integers(0, 256, (8, 8, 1))
        cv2.imwrite(str(file), image)
    writer = CropWriter(pool, dict.fromkeys(range(2), (64, 96)), tmp_path / "crops", "r1", "png")
    specks = [candidate(image, (0, 0, 64, 64), box=(28, 28, 36, 36)) for image in range(2)]
    assert [verdict.decision for verdict in choose(specks, writer).decided] == [Decision.KEPT] * 2


def test_the_limit_of_a_round(make_pool, tmp_path):
    pool = make_pool(300, size=(32, 32))
    writer = CropWriter(pool, dict.fromkeys(range(300), (32, 32)), tmp_path / "crops", "r1", "png")
    chosen = choose([candidate(image, (0, 0, 32, 32)) for image in range(300)], writer, limit=5)
    decisions = [verdict.decision for verdict in chosen.decided]
    assert decisions[:5] == [Decision.KEPT] * 5
    assert decisions[5:] == [Decision.OVER_ROUND_LIMIT] * 295
    assert len(list(writer.folder.iterdir())) == 5
    assert choose([], writer).decided == []


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ([40, 40, 60, 50], (20, 40)),
        ([-10, -10, 10, 10], (20, 20)),
        ([90, 40, 110, 60], (40, 20)),
        ([150, 150, 170, 170], (1, 1)),
        ([-60, 20, -40, 40], (40, 1)),
    ],
    ids=["inside", "at the left", "at the right", "beyond the corner", "left of it"],
)
def test_the_surroundings_of_a_box_are_cut_where_the_image_ends(box, size):
    cut = surroundings(np.zeros((100, 100, 3), np.uint8), np.array(box, dtype=np.float32), 2.0)
    assert cut.shape[:2] == size


def test_surroundings_are_whole_pixels_by_the_sides_of_the_box():
    image = np.arange(100 * 100).reshape(100, 100)
    cut = surroundings(image, np.array([20.0, 40.0, 30.0, 60.0]), 1.5)
    np.testing.assert_array_equal(cut, image[35:65, 17:33])

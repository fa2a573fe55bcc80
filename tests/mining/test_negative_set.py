"""The negative set: who makes room, and the file."""

from dataclasses import fields

import numpy as np
import pytest

from detkit.errors import DataError
from detkit.mining.negative_set import MinedRegions, NegativeSet, load_negative_set


def make_regions(scores):
    count = len(scores)
    return MinedRegions(
        image_ids=np.arange(count),
        boxes=np.ones((count, 4), dtype=np.float32),
        scores=np.array(scores, dtype=np.float32),
        rounds=np.full(count, 2, dtype=np.int32),
    )


def assert_equal(first, second):
    for field in fields(first):
        mine, other = getattr(first, field.name), getattr(second, field.name)
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype or mine.dtype.kind == "U"


def test_as_long_as_there_is_room_the_easy_stay(make_crops):
    negatives, evicted = NegativeSet.empty(crop_capacity=4).with_crops(make_crops([0.5, 0.0, 0.9]))
    assert len(evicted) == 0
    negatives, evicted = negatives.with_crops(make_crops([0.01], number=2))
    assert len(evicted) == 0
    assert negatives.crops.scores.tolist() == pytest.approx([0.5, 0, 0.9, 0.01])


def test_a_full_set_loses_the_lowest_latest_scores(make_crops):
    negatives, _ = NegativeSet.empty(crop_capacity=3).with_crops(make_crops([0.5, 0.8, 0.9]))
    negatives = negatives.with_scores(crops=np.array([0.5, 0.8, 0.1], dtype=np.float32))
    negatives, evicted = negatives.with_crops(make_crops([0.4, 0.6], number=2))
    assert negatives.crops.files.tolist() == ["1-0.png", "1-1.png", "2-1.png"]
    assert evicted.files.tolist() == ["1-2.png", "2-0.png"]


def test_of_equals_those_who_came_first_stay(make_crops):
    negatives, evicted = NegativeSet.empty(crop_capacity=2).with_crops(make_crops([0.5, 0.5, 0.5]))
    assert negatives.crops.files.tolist() == ["1-0.png", "1-1.png"]
    assert evicted.files.tolist() == ["1-2.png"]


def test_regions_and_crops_have_room_of_their_own(make_crops):
    negatives, _ = NegativeSet.empty(crop_capacity=1, region_capacity=2).with_crops(make_crops([0.1]))
    negatives, evicted = negatives.with_regions(make_regions([0.9, 0.8, 0.95]))
    assert len(negatives.crops) == 1
    assert negatives.regions.image_ids.tolist() == [0, 2]
    assert evicted.image_ids.tolist() == [1]
    assert negatives.with_scores(regions=np.zeros(2, np.float32)).regions.scores.tolist() == [0, 0]


def test_reads_back_as_it_was(make_crops, tmp_path):
    negatives = NegativeSet(make_crops([0.5, 0.25]), make_regions([0.1]), 7, None)
    path = tmp_path / "folder" / "negatives.npz"
    negatives.save(path)
    back = load_negative_set(path)
    assert_equal(back.crops, negatives.crops)
    assert_equal(back.regions, negatives.regions)
    assert (back.crop_capacity, back.region_capacity) == (7, None)
    NegativeSet.empty().save(path)
    empty = load_negative_set(path)
    assert len(empty.crops) == len(empty.regions) == 0
    assert [file.name for file in path.parent.iterdir()] == ["negatives.npz"]


def test_what_is_no_negative_set_is_refused(tmp_path):
    path = tmp_path / "negatives.npz"
    with pytest.raises(DataError, match="no such file"):
        load_negative_set(path)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="is no negative set"):
        load_negative_set(path)
    np.savez(path, boxes=np.zeros(3))
    with pytest.raises(DataError, match="is no negative set"):
        load_negative_set(path)
    np.savez(path, format="detkit negatives", format_version=2)
    with pytest.raises(DataError, match="format version 2, this detkit reads version 1"):
        load_negative_set(path)
    np.savez(path, format="detkit negatives", format_version=1)
    with pytest.raises(DataError, match="is no negative set"):
        load_negative_set(path)


def test_columns_of_different_lengths_are_a_mistake():
    with pytest.raises(ValueError, match="different lengths"):
        MinedRegions(np.arange(2), np.ones((3, 4)), np.ones(2), np.ones(2))

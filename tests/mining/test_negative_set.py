"""The negative set: who makes room, and the file."""

from dataclasses import fields, replace

import numpy as np
import pytest

from detkit.errors import DataError
from detkit.mining.negative_set import MinedCrops, NegativeSet, load_negative_set


def assert_equal(first, second):
    for field in fields(first):
        mine, other = getattr(first, field.name), getattr(second, field.name)
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype or mine.dtype.kind == "U"


def test_as_long_as_there_is_room_the_easy_stay(make_crops):
    negatives, evicted = NegativeSet.empty(capacity=4).with_crops(make_crops([0.5, 0.0, 0.9]))
    assert len(evicted) == 0
    negatives, evicted = negatives.with_crops(make_crops([0.01], number=2))
    assert len(evicted) == 0
    assert negatives.crops.scores.tolist() == pytest.approx([0.5, 0, 0.9, 0.01])


def test_a_full_set_loses_the_lowest_latest_scores(make_crops):
    negatives, _ = NegativeSet.empty(capacity=3).with_crops(make_crops([0.5, 0.8, 0.9]))
    negatives = negatives.with_scores(np.array([0.5, 0.8, 0.1], dtype=np.float32))
    negatives, evicted = negatives.with_crops(make_crops([0.4, 0.6], number=2))
    assert negatives.crops.files.tolist() == ["1-0.png", "1-1.png", "2-1.png"]
    assert evicted.files.tolist() == ["1-2.png", "2-0.png"]


def test_of_equals_those_who_came_first_stay(make_crops):
    negatives, evicted = NegativeSet.empty(capacity=2).with_crops(make_crops([0.5, 0.5, 0.5]))
    assert negatives.crops.files.tolist() == ["1-0.png", "1-1.png"]
    assert evicted.files.tolist() == ["1-2.png"]


def test_crops_can_be_taken_out(make_crops):
    negatives, _ = NegativeSet.empty(capacity=3).with_crops(make_crops([0.5, 0.8, 0.9]))
    negatives, gone = negatives.without(np.array([False, True, False]))
    assert negatives.crops.files.tolist() == ["1-0.png", "1-2.png"]
    assert gone.files.tolist() == ["1-1.png"]
    assert negatives.capacity == 3


def test_reads_back_as_it_was(make_crops, tmp_path):
    negatives = NegativeSet(make_crops([0.5, 0.25]), 7)
    path = tmp_path / "folder" / "negatives.npz"
    negatives.save(path)
    back = load_negative_set(path)
    assert_equal(back.crops, negatives.crops)
    assert back.capacity == 7
    NegativeSet.empty().save(path)
    empty = load_negative_set(path)
    assert (len(empty.crops), empty.capacity) == (0, None)
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
        replace(MinedCrops.none(), scores=np.ones(1, np.float32))

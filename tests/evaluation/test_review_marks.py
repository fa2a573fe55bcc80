"""The file that a person's marks are kept in."""

import json

import pytest

from detkit.errors import DataError
from detkit.evaluation.review_marks import (
    NO_MARKS,
    ReviewMark,
    ReviewMarks,
    read_review_marks,
    write_review_marks,
)
from detkit.files import sha256_of

MARK = {"file_name": "a/ü.jpg", "box": [1, 2.5, 30, 40], "category": "cat", "score": 0.9, "mark": "rejected"}


def written(path, marks, **others):
    path.write_text(
        json.dumps({"format": "detkit review marks", "format_version": 1, "marks": marks} | others)
    )
    return path


def test_what_is_written_is_read_back(tmp_path):
    marks = [
        ReviewMark(**MARK),
        ReviewMark(**{**MARK, "file_name": "b.jpg", "mark": "accepted"}),
        ReviewMark(**{**MARK, "box": [5, 5, 6, 6]}),
    ]
    write_review_marks(tmp_path / "marks.json", marks)
    found = read_review_marks(tmp_path / "marks.json")
    assert found.marks == marks
    assert {name: boxes.tolist() for name, boxes in found.boxes("rejected").items()} == {
        "a/ü.jpg": [[1, 2.5, 30, 40], [5, 5, 6, 6]]
    }
    assert list(found.boxes("accepted")) == ["b.jpg"]
    assert found.digest != NO_MARKS.digest


def test_a_mark_is_of_the_file_that_was_looked_at(tmp_path):
    (tmp_path / "one.jpg").write_bytes(b"one")
    (tmp_path / "two.jpg").write_bytes(b"two")
    digest = sha256_of(tmp_path / "one.jpg")[:16]
    rows = [
        ("one.jpg", digest),
        ("two.jpg", digest),
        ("two.jpg", None),
        ("three.jpg", None),
        ("three.jpg", digest),
    ]
    told = ReviewMarks(marks=[ReviewMark(**MARK | {"file_name": name, "sha256": one}) for name, one in rows])
    found = told.of_images(tmp_path, ["one.jpg", "two.jpg"])
    assert [(mark.file_name, mark.sha256) for mark in found.marks] == [rows[0], rows[2]]
    assert [mark.file_name for mark in told.without(found)] == ["two.jpg", "three.jpg", "three.jpg"]


def test_names_that_are_no_unicode_are_read(tmp_path):
    odd = MARK | {"file_name": "\udcff.jpg", "category": "\ud800"}
    found = read_review_marks(written(tmp_path / "marks.json", [odd]))
    assert list(found.boxes("rejected")) == ["\udcff.jpg"]
    assert len(found.digest) == 16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"box": [1, 2, 1, 4]}, "marks.0: .*x1 < x2"),
        ({"box": [1, 2, 3]}, "marks.0.box"),
        ({"box": [1, 2, 3, float("inf")]}, "marks.0.box.3"),
        ({"mark": "maybe"}, "marks.0.mark"),
        ({"file_name": ""}, "marks.0: .*file_name is empty"),
        ({"sha256": "x" * 16}, "marks.0.sha256"),
        ({"score": "high"}, "marks.0.score"),
        ({"note": "?"}, "marks.0.note"),
    ],
)
def test_a_bad_mark_is_named(tmp_path, wrong, message):
    with pytest.raises(DataError, match=message):
        read_review_marks(written(tmp_path / "marks.json", [MARK | wrong]))


def test_other_files_are_refused(tmp_path):
    for content in ("[]", "{}", '{"format": "coco", "marks": []}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(DataError, match=r"other.json: is no file of review marks; save one from"):
            read_review_marks(tmp_path / "other.json")
    with pytest.raises(DataError, match="format_version"):
        read_review_marks(written(tmp_path / "new.json", [MARK], format_version=2))
    with pytest.raises(DataError, match="cannot be read"):
        read_review_marks(tmp_path / "none.json")

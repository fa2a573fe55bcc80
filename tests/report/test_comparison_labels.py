"""Text that has to find room: names in charts, scores in pictures."""

import warnings

import cv2
import numpy as np
import pytest

from detkit.errors import DataError
from detkit.evaluation.comparison_results import DrawnDetection, Panel, Picture
from detkit.report.comparison_pictures import MOST_FALSE, crop_uri, drawn_picture
from detkit.report.comparison_text import fitted, fitted_pair, text_width


def test_a_name_is_cut_to_its_room():
    assert fitted("focal", 100, 11) == "focal"
    assert fitted("two\n lines", 100, 11) == "two lines"
    for name in ("x" * 99, "W" * 99, "a name of many words, " * 5, "\N{BIRD}" * 40, "\u4e2d" * 40):
        cut = fitted(name, 100, 11)
        assert cut.endswith("…")
        assert 75 < text_width(cut, 11) <= 100


def test_of_two_names_the_longer_is_cut():
    assert fitted_pair("a", "b", 100, 11) == "a over b"
    assert fitted_pair("focal", "x" * 99, 150, 11).startswith("focal over xxx")
    assert fitted_pair("x" * 99, "focal", 150, 11).endswith("… over focal")
    both = fitted_pair("x" * 99, "y" * 99, 150, 11)
    assert text_width(both, 11) <= 150
    assert abs(both.count("x") - both.count("y")) < 2


def test_letters_that_no_font_has_are_measured_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text_width("\N{FLYING SAUCER}\u0e01\u1234", 10) > 15


def _false(x: float, y: float, score: float) -> DrawnDetection:
    return DrawnDetection((x, y, x + 40, y + 40), "bird", score, "false")


def _drawn(tmp_path, *detections: DrawnDetection, at_most=()):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((52, 52, 3), np.uint8))
    panel = Panel("focal", 1, 0.1, tuple(detections), ())
    picture = Picture("a.png", "a.jpg", 520, 520, "Drawn at random", (), (panel,))
    return drawn_picture(tmp_path, picture, 1, dict(at_most)).panels[0]


def test_a_score_that_would_cover_a_surer_one_is_left_out(tmp_path):
    panel = _drawn(tmp_path, _false(100, 100, 0.5), _false(110, 104, 0.9), _false(100, 300, 0.4))
    labels = {mark.title[-4:]: mark.label for mark in panel.marks}
    assert labels == {"0.90": "0.90", "0.50": "", "0.40": "0.40"}
    assert [mark.title[-4:] for mark in panel.marks] == ["0.40", "0.50", "0.90"]  # the surest on top


def test_scores_near_each_other_are_not_enlarged(tmp_path):
    panel = _drawn(tmp_path, _false(100, 100, 0.9), _false(160, 100, 0.5), _false(300, 100, 0.4))
    assert [(mark.label, mark.enlarged) for mark in panel.marks[::-1]] == [
        ("0.90", True), ("0.50", False), ("0.40", True)
    ]  # fmt: skip


def test_a_score_left_out_takes_no_room(tmp_path):
    panel = _drawn(
        tmp_path, *(_false(x, 100, score) for x, score in ((100, 0.9), (160, 0.8), (205, 0.7), (290, 0.6)))
    )
    assert [(mark.label, mark.enlarged) for mark in panel.marks[::-1]] == [
        ("0.90", True), ("0.80", False), ("", False), ("0.60", True)
    ]  # fmt: skip


def test_scores_stay_inside_the_picture(tmp_path):
    for mark in _drawn(tmp_path, _false(0, 0, 0.9), _false(505, 480, 0.8)).marks:
        assert 0 <= mark.label_x <= 520 - 50
        assert 20 <= mark.label_y <= 520


def test_the_surest_false_detections_are_drawn_and_all_are_counted(tmp_path):
    found = DrawnDetection((1, 1, 9, 9), "bird", 0.0, "correct")
    panel = _drawn(tmp_path, found, *(_false(10, 10, index / 100) for index in range(90)))
    assert (panel.correct, panel.false, panel.undrawn) == (1, 90, 90 - MOST_FALSE)
    assert len(panel.marks) == MOST_FALSE + 1
    assert min(float(mark.title[-4:]) for mark in panel.marks if mark.outcome == "false") == 0.3


def test_an_arm_that_finds_less_than_the_others_says_so(tmp_path):
    assert _drawn(tmp_path).at_most is None
    assert _drawn(tmp_path, at_most={"focal": 0.31}).at_most == 0.31


def test_a_large_crop_is_embedded_as_small_as_it_is_shown(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), noise)
    cv2.imwrite(str(tmp_path / "small.png"), noise[:20, :20])
    assert crop_uri(tmp_path, "small.png").startswith("data:image/png;")
    uri = crop_uri(tmp_path, "large.png")
    assert uri.startswith("data:image/jpeg;")
    assert len(uri) < 30_000 < (tmp_path / "large.png").stat().st_size
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20_000))
    with pytest.raises(DataError, match=r"broken\.png': is damaged"):
        crop_uri(tmp_path, "broken.png")

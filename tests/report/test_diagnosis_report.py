"""The page of a diagnosis: whole, self-contained, safe with any name; what its script does is tested in a browser."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
from html_page import Page
from simulated_comparison import HOSTILE
from simulated_diagnosis import diagnosed_from, simulated_diagnosis

from detkit.evaluation.diagnosed import TrainingLog
from detkit.evaluation.error_costs import ERRORS
from detkit.evaluation.missing_labels import suspected_missing_labels
from detkit.evaluation.number_texts import points
from detkit.evaluation.review_marks import ReviewMark, ReviewMarks
from detkit.report.diagnosis import render, write_diagnosis
from detkit.report.diagnosis_charts import MANY_CLASSES
from detkit.report.diagnosis_data import gallery_data
from detkit.report.diagnosis_gallery import choose_items
from detkit.report.diagnosis_text import WORDS, count_text, findings, suspects

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)
CLOSING = "</script><script>alert(1)</script><!--"


@pytest.fixture(scope="module")
def diagnosed():
    return simulated_diagnosis(pictures=True)


@pytest.fixture(scope="module")
def report(diagnosed) -> str:
    return render(diagnosed)


@pytest.fixture(scope="module")
def hostile() -> str:
    return render(
        simulated_diagnosis(
            classes=(HOSTILE, CLOSING),
            names='{}/"><img src=x onerror=alert(1)>' + CLOSING + ".jpg",
            title=HOSTILE + CLOSING,
            pictures=True,
        )
    )


def data_of(report: str) -> dict:
    """What the page's script reads."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', report, re.DOTALL)
    assert block
    return json.loads(block[1])


def test_tags_are_balanced_and_ids_unique(report, hostile):
    for one in (Page(report), Page(hostile)):
        assert one.open == []
        ids = [attributes["id"] for _, attributes in one.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = [value[1:] for _, attributes in one.elements for name, value in attributes.items()
                   if name in ("href", "xlink:href") and value.startswith("#")]  # fmt: skip
        targets += [
            id_ for _, attributes in one.elements for id_ in attributes.get("aria-labelledby", "").split()
        ]
        assert len(targets) > 15
        assert set(targets) <= set(ids)


def test_it_loads_nothing_and_runs_its_own_script_alone(report, hostile):
    for text in (report, hostile):
        page = Page(text)
        assert page.all("link", "iframe", "object", "embed", "base", "img") == []
        for _, attributes in page.elements:
            for name, value in attributes.items():
                assert not name.startswith("on")
                if name in ("src", "href", "xlink:href", "action"):
                    assert value.startswith("#"), value
        kinds = [one.get("type") for one in page.all("script")]
        assert kinds == ["application/json", None]
        script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = next(one["content"] for one in page.all("meta") if "http-equiv" in one)
        assert f"script-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'; img-src data:; ")
        assert "innerHTML" not in script
        assert "insertAdjacentHTML" not in script


def test_names_reach_the_page_as_they_are(hostile):
    data = data_of(hostile)
    assert data["classes"] == [HOSTILE, CLOSING]
    assert all(image["name"].endswith(CLOSING + ".jpg") for image in data["images"])
    assert HOSTILE in " ".join(Page(hostile).text["th"])


def test_a_name_that_is_no_unicode_is_written_all_the_same(tmp_path):
    diagnosed = diagnosed_from(
        [(1, 1, BOX)], [(1, 1, BOX, 0.9), (2, 1, FAR, 0.9)], classes=("half \ud800", "\x01")
    )
    write_diagnosis(diagnosed, tmp_path / "x.html")
    assert data_of((tmp_path / "x.html").read_text())["classes"] == ["half \ud800", "\x01"]


def test_what_costs_most_comes_first(diagnosed, report):
    costly = max(diagnosed.diagnosis.parts[0].errors, key=lambda error: error.cost)
    first = findings(diagnosed)[0]
    assert first.startswith(f"What costs most: {WORDS[costly.name]}, {points(costly.cost)} points of AP50 (")
    assert count_text(costly) in first
    assert report.index(first) < report.index('id="costs"') < report.index('id="gallery"')
    paragraphs = [text.strip() for text in Page(report).text["p"]]
    for sentence in findings(diagnosed):
        assert sentence in paragraphs


def test_what_was_said_in_training_is_said_again(diagnosed):
    verdict = {
        "event": "verdict",
        "cause": "prior",
        "sentence": "every anchor <b>begins</b> with a score of 0.51",
    }
    curve = [{"event": "validate", "epoch": epoch, "loss": 1.0, "AP": 0.0} for epoch in (1, 2, 3)]
    found = findings(replace(diagnosed, log=TrainingLog([{"event": "start"}, verdict, *curve], "AP")))
    assert "In training, prior: every anchor <b>begins</b> with a score of 0.51." in found
    assert found[-1].startswith("In training, never learned: ")
    assert not [sentence for sentence in findings(diagnosed) if "In training" in sentence]


def test_training_is_judged_by_the_metric_of_the_run(diagnosed):
    curve = [
        {"event": "validate", "epoch": epoch, "loss": 1.0, "AP": 0.0, "AP50": 0.3} for epoch in (1, 2, 3)
    ]

    def said(metric: str) -> list[str]:
        found = findings(replace(diagnosed, log=TrainingLog(curve, metric)))
        return [sentence for sentence in found if "In training" in sentence]

    assert said("AP50") == []
    assert [sentence.split(";")[0] for sentence in said("AP")] == [
        "In training, never learned: the best AP is 0.000"
    ]


def test_a_score_that_was_given_is_not_said_to_be_that_of_found_objects():
    diagnosed = diagnosed_from([(1, 1, BOX)], [(1, 1, BOX, 0.5), (2, 1, FAR, 0.9)])
    assert "scores 0.50 or more, as nine in ten found objects do, and may be a missing label;" in suspects(
        diagnosed
    )
    table, classified = diagnosed.table, diagnosed.classified
    given = replace(diagnosed, suspects=suspected_missing_labels(table, classified, score=0.6))
    assert "scores 0.60 or more and may be a missing label;" in suspects(given)


def test_every_part_has_its_row_with_all_costs(diagnosed, report):
    cells = Page(report).text["td"]
    for row in diagnosed.diagnosis.parts:
        assert row.name in [text.strip() for text in Page(report).text["th"]]
        for error in row.errors:
            assert points(error.cost) in [cell.strip() for cell in cells]


def test_charts_say_what_they_show(report):
    page = Page(report)
    titles = " | ".join(page.text["title"])
    for words in ("What each kind of error costs", "Precision, recall and F1", "FROC", "chance of being right",
                  "Alarms on images without objects"):  # fmt: skip
        assert words in titles
    captions = [text.strip() for text in page.text["figcaption"]]
    assert len(captions) == len(page.text["desc"]) == 5
    assert [text.strip() for text in page.text["desc"]] == captions
    assert all(re.search(r"\d", caption) for caption in captions)


def test_the_gallery_says_what_part_of_the_errors_it_has(diagnosed, report):
    data = data_of(report)
    rows = re.findall(r'<th scope="row">([^<]+)<small>.*?<td>([\d,]+)</td><td>([\d,]+)</td>', report)
    there = {error.name: error.count for error in diagnosed.diagnosis.parts[0].errors}
    assert {name: int(count.replace(",", "")) for name, count, _ in rows} == {
        WORDS[name]: count for name, count in there.items()
    }
    for place, name in enumerate(ERRORS):
        here = sum(item["kind"] == place for item in data["items"])
        assert next(int(shown) for word, _, shown in rows if word == WORDS[name]) == here <= there[name]


def test_pictures_are_kept_once_and_within_their_room(diagnosed, report):
    data = data_of(report)
    uris = [image["uri"] for image in data["images"]] + [item["patch"]["uri"] for item in data["items"]]
    assert len({image["name"] for image in data["images"]}) == len(data["images"])
    room = sum(map(len, uris)) // 2
    small = data_of(render(diagnosed, picture_bytes=room))
    assert 0 < len(small["items"]) < len(data["items"])
    kept = [image["uri"] for image in small["images"]] + [item["patch"]["uri"] for item in small["items"]]
    assert room / 2 < sum(map(len, kept)) <= room


def test_without_images_there_are_no_patches():
    data = data_of(render(simulated_diagnosis()))
    assert {item["patch"] for item in data["items"]} == {None}
    assert {image["uri"] for image in data["images"]} == {None}
    assert len(data["items"]) > 100


def test_the_boxes_of_suspects_keep_all_digits_for_their_marks():
    box = (50.123456789, 50, 60.987654321, 60)
    diagnosed = diagnosed_from([(1, 1, BOX)], [(1, 1, BOX, 0.5), (2, 1, box, 0.654321987)])
    (item,) = data_of(render(diagnosed))["items"]
    assert (item["suspect"], item["box"], item["score"]) == (0, list(box), 0.654321987)


def test_marks_made_before_are_in_the_page():
    mark = ReviewMark(file_name="photo 2.jpg", box=list(FAR), category="cat", score=0.9, mark="rejected")
    diagnosed = diagnosed_from([(1, 1, BOX)], [(1, 1, BOX, 0.5), (2, 1, FAR, 0.9)])
    data = data_of(render(replace(diagnosed, marks=ReviewMarks(marks=[mark]))))
    assert ReviewMarks.model_validate(data["marks"]).marks == [mark]


def test_the_page_says_how_marks_come_to_training_first(report):
    commands = [text for text in Page(report).text["code"] if text.startswith("python")]
    assert commands[0] == "python tools/diagnose.py RUN --split train"
    assert "tools/mine.py" in commands[1]


def test_images_of_suspects_have_their_digest_in_the_page():
    diagnosed = diagnosed_from([(1, 1, BOX)], [(1, 1, BOX, 0.5), (2, 1, FAR, 0.9), (3, 1, FAR, 0.1)])
    known = replace(diagnosed, image_digests={2: "0123456789abcdef"})
    images = gallery_data(known, choose_items(known), None)["images"]
    assert {image["name"]: image["sha256"] for image in images} == {
        "photo 2.jpg": "0123456789abcdef",
        "photo 3.jpg": None,
    }


def test_many_classes_are_a_picture_and_a_list():
    classes = tuple(f"kind {number}" for number in range(MANY_CLASSES + 1))
    objects = [(1, 1 + number, (20 * number, 0, 20 * number + 10, 10)) for number in range(len(classes))]
    detections = [(image, 1 + (category - 1 + (category < 4)), box, 0.9) for image, category, box in objects]
    page = Page(render(diagnosed_from(objects, detections, classes=classes)))
    assert "Confusion at a glance" in " ".join(page.text["title"])
    assert all("matrix" not in one.get("class", "") for one in page.all("table"))
    assert [cell for cell in page.text["td"] if cell.startswith("kind")] == ["kind 1", "kind 2", "kind 3"]


def test_nothing_at_all_is_said_in_words():
    for objects, detections in (([], []), ([(1, 1, BOX)], []), ([], [(1, 1, BOX, 0.9)])):
        text = render(diagnosed_from(objects, detections))
        assert Page(text).open == []
        assert "no missing label is suspected" in text
    assert "no average precision can be measured" in render(diagnosed_from([], []))
    perfect = render(diagnosed_from([(1, 1, BOX)], [(1, 1, BOX, 0.9)]))
    assert "No kind of error costs as much as a tenth of a point of AP50 (100.0)." in perfect

"""The report: whole, self-contained, safe with any name, and readable without seeing it."""

import base64
import json
import re
import shutil
from itertools import pairwise

import cv2
import numpy as np
import pytest
from html_page import Page
from simulated_comparison import HOSTILE

from detkit.errors import DataError
from detkit.evaluation.compared_metrics import COMPARED_METRICS
from detkit.evaluation.comparison_results import read_comparison
from detkit.report.comparison import write_report


@pytest.fixture(scope="module")
def report(comparison_folder) -> str:
    return write_report(comparison_folder).read_text()


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report)


@pytest.fixture(scope="module")
def hostile(hostile_folder) -> str:
    return write_report(hostile_folder).read_text()


def test_tags_are_balanced_and_ids_unique(page, hostile):
    for one in (page, Page(hostile)):
        assert one.open == []
        ids = [attributes["id"] for _, attributes in one.elements if "id" in attributes]
        assert len(ids) == len(set(ids))


def test_it_needs_no_network_no_script_and_no_other_file(report, page):
    assert page.all("script", "link", "iframe", "object", "embed", "base") == []
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
                assert value.startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,")), value
    assert not re.search(r"@import|url\((?!#)", report)
    policies = [
        one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_reference_inside_the_page_has_its_target(page):
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = [
        value[1:] for _, attributes in page.elements for name, value in attributes.items()
        if name in ("href", "xlink:href") and value.startswith("#")
    ]  # fmt: skip
    targets += [one["clip-path"][5:-1] for _, one in page.elements if "clip-path" in one]
    targets += [id_ for _, one in page.elements for id_ in one.get("aria-labelledby", "").split()]
    assert len(targets) > 50
    assert set(targets) <= ids


def test_the_verdict_comes_first_and_every_difference_has_its_sentence(report, page, comparison_folder):
    comparison = read_comparison(comparison_folder / "results.json")
    text = " ".join(page.text["p"])
    places = [text.index(sentence) for sentence in comparison.verdict]
    assert places == sorted(places)
    assert report.index('id="verdict"') < report.index('id="ranking"') < report.index("<table")
    sentences = {text.strip() for text in page.text["li"]}
    assert {one.sentence for one in comparison.differences} <= sentences


def test_the_table_holds_every_metric_of_every_arm(page, comparison_folder):
    comparison = read_comparison(comparison_folder / "results.json")
    shown = page.text["b"]
    for arm in comparison.arms:
        for metric in COMPARED_METRICS:
            assert metric.text(arm.estimates[metric.name].value) in shown


def test_all_charts_are_there_and_their_text_is_text(page):
    titles = " | ".join(page.text["title"])
    for words in (
        "Ranking of the arms by AP50", "Ranking of the arms by false positives per image at recall 0.8",
        "Differences of all pairs in AP50", "Differences of all pairs in false positives per image",
        "AP50 over compute", "Precision against recall", "Recall against false positives per image",
        "added in each round", "New hard negatives per image",
    ):  # fmt: skip
        assert words in titles
    labels = page.text["text"]
    for words in (
        "bootstrapped over random 1:3",
        "false positives per image",
        "recall, points",
        "0.01",
        "10",
    ):
        assert words in labels


def test_charts_take_the_pages_colours_and_one_for_each_arm(report):
    charts = report[report.index("<main>") :]
    assert not re.search(r"#0[0-9a]0[0-9a]0[0-9a]\b", charts)
    for index in range(4):
        assert charts.count(f"var(--line-{index})") > 8
    assert "var(--line-4)" not in charts
    assert "stroke: #000000" not in charts
    for scheme in ("prefers-color-scheme: dark", "@media print"):
        assert scheme in report


def test_pictures_are_embedded_once_and_drawn_under_every_arm(report, page, comparison_folder):
    comparison = read_comparison(comparison_folder / "results.json")
    images, uses = page.all("image"), [one["href"] for one in page.all("use") if "href" in one]
    assert len(images) == len(comparison.pictures) == 4
    for index, picture in enumerate(comparison.pictures):
        content = base64.b64decode(images[index]["href"].partition(",")[2])
        assert content == (comparison_folder / picture.picture).read_bytes()
        assert uses.count(f"#{images[index]['id']}") == len(comparison.arms)
    boxes = [one for one in page.all("rect") if "halo" not in one.get("class", "")]
    drawn = sum(
        len(panel.detections) + len(panel.missed) for one in comparison.pictures for panel in one.panels
    )
    assert sum(one.get("class") in ("correct", "false", "ignored", "missed") for one in boxes) == drawn
    false = sum(
        one.outcome == "false"
        for picture in comparison.pictures
        for panel in picture.panels
        for one in panel.detections
    )
    assert sum(one.get("class") == "false" for one in boxes) == false > 0


def test_mining_is_shown_round_by_round_with_its_hardest_crops(page, comparison_folder):
    comparison = read_comparison(comparison_folder / "results.json")
    mined = [arm for arm in comparison.arms if arm.runs[0].rounds]
    assert len(mined) == 2
    shown = [re.search(r"score (\d\.\d\d), from (.*)", one["alt"]).groups() for one in page.all("img")]
    expected = []
    for arm in mined:
        crops = [crop for run in arm.runs for crop in run.hardest]
        hardest = {
            image: max(c.score for c in crops if c.source == image) for image in {c.source for c in crops}
        }
        assert 1 < len(hardest) < len(crops)
        expected += [(f"{hardest[image]:.2f}", image) for image in sorted(hardest, key=lambda i: -hardest[i])]
    assert shown == expected
    cells = page.text["td"]
    for arm in mined:
        for run in arm.runs:
            for one in run.rounds:
                assert str(one.false_positives) in cells
    assert any(text.startswith("rolled back") for text in cells)


def test_it_can_be_read_without_seeing_it(page):
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(one.get("alt") for one in page.all("img"))
    for one in page.all("svg"):
        assert one.get("aria-hidden") == "true" or one.get("aria-label") or one.get("aria-labelledby")
    assert all(one.get("scope") for one in page.all("th"))
    for _, one in page.elements:
        if one.get("class") == "scroll":
            assert (one["tabindex"], one["role"]) == ("0", "region")
            assert one["aria-label"]


def test_configs_and_versions_are_exact(page, comparison_folder):
    comparison = read_comparison(comparison_folder / "results.json")
    assert page.text["pre"] == [comparison.config, *(arm.config for arm in comparison.arms)]
    assert set(comparison.versions.values()) <= set(page.text["dd"])


def test_hostile_names_are_shown_and_do_nothing(hostile):
    page = Page(hostile)
    assert page.all("script") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(one["src"].startswith("data:") for one in page.all("img"))
    names = [f"{HOSTILE}0", f"{HOSTILE}1"]
    for name in names:
        assert name in page.text["span"]  # the legend
    assert any(text.startswith("<script>") for text in page.text["text"])  # a chart
    assert any(HOSTILE in text for text in page.text["li"])  # a sentence
    assert any(HOSTILE in one["alt"] and "onerror" in one["alt"] for one in page.all("img"))  # class and file
    assert any("onerror" in text for text in page.text["h3"])
    assert any(HOSTILE in text for text in page.text["title"])  # a box's tooltip


def test_a_picture_outside_the_folder_is_refused(edited, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    for path in ("../secret.png", str(secret)):
        folder = edited(lambda tree, path=path: tree["pictures"][0].update(picture=path))
        with pytest.raises(DataError, match="lies outside the folder"):
            write_report(folder)
        assert not (folder / "report.html").exists() or "secret" not in (folder / "report.html").read_text()
        shutil.rmtree(folder)


def test_a_link_out_of_the_folder_is_refused(edited, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    folder = edited(lambda tree: tree["pictures"][0].update(picture="link.png"))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="lies outside the folder"):
        write_report(folder)


def test_a_picture_that_is_none_is_refused(edited):
    folder = edited(lambda tree: tree["pictures"][0].update(picture="results.json"))
    with pytest.raises(DataError, match="is no JPEG or PNG"):
        write_report(folder)


def test_a_missing_picture_is_refused(edited):
    folder = edited(lambda tree: tree["pictures"][0].update(picture="gone.png"))
    with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file"):
        write_report(folder)


def test_a_comparison_with_little_in_it(edited):
    """One arm, no mining, pictures, curve or recall: what is missing is left out, and the rest is there."""

    def bare(tree):
        arm = tree["arms"][0]
        for run in arm["runs"]:
            run.update(learning=[], rounds=[], hardest=[], metrics=dict.fromkeys(run["metrics"]))
            run["curves"] = {
                "precision": [None] * len(tree["recall_grid"]),
                "recall": [None] * len(tree["false_positive_grid"]),
                "highest_recall": None,
            }
        arm["estimates"] = {name: {"value": None, "low": None, "high": None} for name in arm["estimates"]}
        tree.update(
            arms=[arm], differences=[], pictures=[], verdict=["One arm."], picture_recall=None, versions={}
        )

    text = write_report(edited(bare)).read_text()
    page = Page(text)
    assert "One arm." in page.text["p"]
    for section in ("mining", "pictures", "differences", "curves"):
        assert f'id="{section}"' not in text
        assert f'href="#{section}"' not in text
    assert page.all("figure") == []
    assert set(page.text["b"]) == {"n/a"}
    assert 'class="best"' not in text
    assert 'class="highlight' not in text


def test_an_open_interval_is_said(edited):
    def open_ends(tree):
        tree["arms"][0]["estimates"]["fppi_at_recall_0.8"].update(value=1.25, low=None, high=None)
        tree["arms"][1]["estimates"]["fppi_at_recall_0.8"].update(value=2.5, low=1.5, high=None)

    page = Page(write_report(edited(open_ends)).read_text())
    assert "1.50 to open" in page.text["small"]
    assert "open" in page.text["small"]
    assert "2.50 (1.50 to open)" in page.text["text"]


def test_an_arm_that_does_not_reach_the_recall_keeps_its_row(edited):
    page = Page(write_report(edited(lambda tree: _unmeasured(tree["arms"][0]))).read_text())
    assert "recall not reached" in page.text["text"]
    assert "nothing to measure" in page.text["text"]


def _unmeasured(arm) -> None:
    arm["estimates"] = {name: {"value": None, "low": None, "high": None} for name in arm["estimates"]}


@pytest.mark.parametrize("gone", [{"pictures", "mining"}, {"differences", "curves"}])
def test_sections_appear_only_with_what_they_show(edited, gone):
    def change(tree):
        for part in gone & {"pictures", "differences"}:
            tree[part] = []
        for run in (run for arm in tree["arms"] for run in arm["runs"]):
            if "mining" in gone:
                run.update(rounds=[], hardest=[])
            if "curves" in gone:
                for name in ("precision", "recall"):
                    run["curves"][name] = [None] * len(run["curves"][name])

    text = write_report(edited(change)).read_text()
    parts = {"pictures", "differences", "mining", "curves"}
    assert {one for one in parts if f'<section id="{one}"' in text} == parts - gone
    assert {one for one in parts if f'href="#{one}"' in text} == parts - gone


def test_equal_compute_is_said_only_where_it_was(edited, report):
    def more(tree):
        tree["arms"][0]["runs"][0]["compute"]["training"] *= 1.2

    assert "Comparison at equal compute" in report
    assert "Learning at equal compute" in report
    assert "t equal compute" not in write_report(edited(more)).read_text()


def test_the_leaders_are_named_before_the_sentences(report, page, comparison_folder):
    comparison = read_comparison(comparison_folder / "results.json")
    best = max(comparison.arms, key=lambda arm: arm.estimates["AP50"].value)
    box = report[report.index('class="highlights"') : report.index("How sure this is")]
    assert (
        box.index("Highest AP50") < box.index(best.name) < box.index("Fewest false positives at 80 % recall")
    )
    assert f"<b>{100 * best.estimates['AP50'].value:.1f}</b> points" in box


def test_more_arms_than_colours(edited):
    def many(tree):
        arms = tree["arms"]
        tree["arms"] = [{**arms[index % 4], "name": f"arm {index}"} for index in range(11)]
        tree.update(differences=[], pictures=[])

    page = Page(write_report(edited(many)).read_text())
    keys = [one["d"] for one in page.all("path") if one.get("d", "").startswith("M1")]
    assert "arm 10" in page.text["span"]
    assert len(keys) >= 22


def test_the_report_is_the_same_each_time_and_goes_where_it_is_told(comparison_folder, report, tmp_path):
    path = write_report(comparison_folder, tmp_path / "other" / "page.html")
    assert path == tmp_path / "other" / "page.html"
    assert path.read_text() == report


def test_six_arms_that_all_mined_stay_small(edited):
    """Five seeds each, crops and pictures larger than they are shown, and an arm that fires everywhere."""

    def large(tree):
        arms = [json.loads(json.dumps(tree["arms"][2 + index % 2])) for index in range(6)]
        for index, arm in enumerate(arms):
            arm["name"] = f"arm {index}"
            arm["runs"] = [{**arm["runs"][0], "seed": seed} for seed in range(5)]
            for number, crop in enumerate(arm["runs"][0]["hardest"]):
                crop["picture"] = f"{number}.png"
        tree.update(arms=arms, differences=[])
        false = {"box": [1.0, 2, 30, 40], "class_name": "bird", "score": 0.5, "outcome": "false"}
        for picture in tree["pictures"]:
            panel = {**picture["panels"][0], "detections": [false] * 300}
            picture["panels"] = [{**panel, "arm": arm["name"]} for arm in arms]

    folder = edited(large)
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(
            str(folder / f"{number}.png"), cv2.resize(noise, (400, 400), interpolation=cv2.INTER_CUBIC)
        )
    assert (folder / "0.png").stat().st_size > 100_000
    path = write_report(folder)
    assert path.stat().st_size < 1_500_000
    text = path.read_text()
    assert text.count("(the 60 surest drawn)") == 24
    assert text.count("<img ") == 36

"""The page of a search: what it says first, its charts, hostile names, and that test stays unseen."""

from dataclasses import replace

import pytest
from html_page import Page
from simulated_comparison import HOSTILE

from detkit.errors import DataError
from detkit.evaluation.search_results import (
    CurvePoint,
    ModelCost,
    Parameter,
    Search,
    SearchTrial,
    TestScore,
    best_trial,
    cost_front,
    read_search,
    smaller_trial,
    write_search,
    write_test_score,
)
from detkit.report.search import render_search, write_search_report
from detkit.search.sentences import search_sentences

PARAMETERS = (
    Parameter("optimiser.learning_rate", 1e-5, 0.1, log=True, importance=0.7),
    Parameter("size", choices=("small", "large"), importance=0.2),
    Parameter("loss.gamma", 0, 4, importance=0.1),
)


def trial(number, value, *, flops=10, state="complete", rate=1e-3, size="large", **given):
    curve = tuple(CurvePoint(epoch, 1e9 * epoch, value * epoch / 3) for epoch in range(1, 4)) if value else ()
    values = {"optimiser.learning_rate": rate, "size": size, "loss.gamma": 2}
    cost = ModelCost(flops * 1000, flops * 10**9, 192, 192)
    return SearchTrial(number, values, state, value, curve, cost, 3e9, 60.0, **given)


TRIALS = (
    trial(0, 0.5),
    trial(1, 0.61, rate=3e-3),
    trial(2, 0.6, flops=3, size="small"),
    trial(3, 0.2, state="pruned"),
    trial(4, None, state="failed", reason="the loss is nan"),
    trial(5, 0.4, flops=1, size="small"),
    trial(6, 0.4, flops=5, size="small"),
)


def search_of(trials=TRIALS, parameters=PARAMETERS, **given):
    told = {"title": "Faces", "metric": "AP50", "wanted": len(trials), "has_test": True, **given}
    best = best_trial(trials)
    return Search(
        parameters=parameters,
        trials=trials,
        winner=best and best.number,
        winner_config="model: {backbone: resnet18}\n" if best else "",
        verdict=search_sentences("AP50", trials, parameters, told["wanted"]),
        **told,
    )


def test_the_front_has_no_model_that_another_is_as_good_and_as_cheap_as():
    assert [one.number for one in cost_front(TRIALS)] == [1, 2, 5]
    assert smaller_trial(TRIALS).number == 2
    assert smaller_trial(TRIALS[:2]) is None


def test_of_equals_the_cheaper_wins_and_a_pruned_trial_never():
    assert best_trial([trial(0, 0.5), trial(1, 0.5, flops=2), trial(2, 0.9, state="pruned")]).number == 1
    assert best_trial([trial(2, 0.9, state="pruned")]) is None


def test_the_verdict_says_the_most_important_first():
    first, *rest = search_sentences("AP50", TRIALS, PARAMETERS, 7)
    assert first.startswith("Trial 1 is best on validation, with 61.0 points of AP50, 1.0 ahead of the next")
    assert "learning_rate 0.003" in first
    text = " ".join(rest)
    assert "Trial 2 is smaller and nearly as good: 30 % of the winner's FLOPs for 1.0 points" in text
    assert "optimiser.learning_rate mattered most, with 70 %" in text
    assert "7 of 7 trials: 5 complete, 1 pruned, 1 failed." in text
    assert "end of its range" not in text


@pytest.mark.parametrize(("rate", "end"), [(0.08, "upper"), (1.2e-5, "lower")])
def test_a_winner_at_the_end_of_a_range_is_told(rate, end):
    text = " ".join(search_sentences("AP50", [trial(0, 0.5, rate=rate)], PARAMETERS, 1))
    assert f"is at the {end} end of its range" in text


def test_the_page_holds_everything_and_loads_nothing():
    text = render_search(search_of(), None)
    page = Page(text)
    assert not page.open
    assert "default-src 'none'" in text
    assert not page.all("script", "link", "img", "iframe")
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(set(ids)) == len(ids)
    assert len([one for one in page.all("svg") if "viewbox" in one]) == 3 + 1 + 3
    for word in ("Smaller and nearly as good", "resnet18", "pruned", "the loss is nan", "importance"):
        assert word in text


def test_test_is_on_the_page_only_when_it_is_scored(tmp_path):
    write_search(tmp_path / "search.json", search_of())
    before = write_search_report(tmp_path).read_text()
    assert "not yet" in before
    write_test_score(tmp_path / "test.json", TestScore(1, 20, {"AP": 0.3, "AP50": 0.5678}))
    after = write_search_report(tmp_path).read_text()
    assert "not yet" not in after
    assert "56.8" in after
    assert "56.8" not in before


def test_names_are_text_and_never_markup():
    hostile = [
        replace(one, values={HOSTILE: 1e-3, "size": HOSTILE}, reason=HOSTILE if one.reason else "")
        for one in TRIALS
    ]
    parameters = (
        Parameter(HOSTILE, 1e-5, 0.1, log=True, importance=0.6),
        Parameter("size", choices=(HOSTILE, "plain"), importance=0.4),
    )
    found = search_of(tuple(hostile), parameters, title=HOSTILE)
    text = render_search(replace(found, winner_config=HOSTILE), None)
    page = Page(text)
    assert not page.all("script")
    assert "<script" not in text
    assert "{{ 7*7 }}" in text


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (trial(0, None, state="running"),),
        (trial(0, None, state="failed", reason="x"),),
        (trial(0, 0.0),),
        TRIALS[:1],
    ],
    ids=["none", "running", "failed", "zero", "one"],
)
def test_a_search_of_hardly_anything_has_a_page(trials):
    plain = tuple(replace(one, importance=None) for one in PARAMETERS)
    text = render_search(search_of(trials, plain, wanted=5), None)
    assert "not over" in text
    assert not Page(text).open


def test_models_of_one_cost_are_told_as_such():
    text = render_search(search_of(TRIALS[:2]), None)
    assert "All models cost the same to use" in text


def test_what_was_written_is_read(tmp_path):
    write_search(tmp_path / "search.json", search_of())
    assert read_search(tmp_path / "search.json") == search_of()
    (tmp_path / "search.json").write_text('{"format_version": 9}')
    with pytest.raises(DataError, match="format_version is 9, and 1 is read here"):
        read_search(tmp_path / "search.json")
    (tmp_path / "search.json").write_text('{"format_version": 1}')
    with pytest.raises(DataError, match=r"title: .*make it again with tools/search.py"):
        read_search(tmp_path / "search.json")

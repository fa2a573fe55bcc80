"""Ranges as optuna draws from them, and what a drawn value sets."""

import optuna
import pytest

from detkit.search.space import ChoiceRange, NumberRange, draw_values, label, overrides_of


def drawn(one, count=60):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [draw_values([one], study.ask())[one.name] for _ in range(count)]


def test_whole_numbers_stay_whole_and_reach_both_ends():
    values = drawn(NumberRange("channels", 16, 64, step=16))
    assert set(values) == {16, 32, 48, 64}
    assert all(type(value) is int for value in values)


@pytest.mark.parametrize(
    "given", [(8, 16), (8, 16, False, 2), (8, 16, False, 0.5), (8, 16.0), (8.0, 16, True)]
)
def test_the_ends_are_of_the_type_that_is_drawn(given):
    one = NumberRange("channels", *given)
    assert {type(value) for value in one.ends} == {type(value) for value in drawn(one, 3)}
    assert one.ends == (8, 16)


def test_steps_of_fractions():
    assert {round(value, 9) for value in drawn(NumberRange("alpha", 0.25, 1, step=0.25))} == {
        0.25,
        0.5,
        0.75,
        1.0,
    }


def test_a_logarithmic_range_draws_each_decade_alike():
    values = drawn(NumberRange("rate", 1e-6, 1.0, log=True), 300)
    assert all(1e-6 <= value <= 1 for value in values)
    for decade in range(-6, 0):
        assert 25 < sum(10.0**decade <= value < 10.0 ** (decade + 1) for value in values) < 75


def test_whole_numbers_may_be_logarithmic():
    values = drawn(NumberRange("channels", 1, 1000, log=True), 200)
    assert all(type(value) is int for value in values)
    assert 40 < sum(value < 32 for value in values) < 160


def test_a_choice_is_kept_by_its_label_and_sets_all_its_keys():
    one = ChoiceRange("size", {"null": {"model.weights": None}, "both": {"a.b": [1, 2], "c": {"d": None}}})
    assert set(drawn(one)) == {"null", "both"}
    number = NumberRange("rate", 0.0, 1.0)
    found = overrides_of([one, number], {"size": "both", "rate": 0.5})
    assert found == {"a.b": [1, 2], "c": {"d": None}, "rate": 0.5}
    assert overrides_of([one], {"size": "null"}) == {"model.weights": None}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.1, "0.1"),
        ("resnet18", "resnet18"),
        ([3, 4], "[3, 4]"),
        ({"name": "é"}, '{"name": "é"}'),
    ],
)
def test_labels_are_read_by_people(value, text):
    assert label(value) == text


def test_what_was_drawn_before_is_drawn_again():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = [NumberRange("rate", 1e-6, 1.0, log=True), ChoiceRange("size", {"a": {}, "b": {}})]
    trial = study.ask()
    first = draw_values(space[:1], trial)
    again = optuna.trial.Trial(study, trial._trial_id)
    assert draw_values(space, again)["rate"] == first["rate"]

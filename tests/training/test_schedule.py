"""The learning rate at every step, against numbers worked out by hand."""

import math

import pytest
import torch

from detkit.training.schedule import LearningRateSchedule


def test_step_follows_the_papers_recipe():
    schedule = LearningRateSchedule("step", 90_000, warmup_steps=0, milestones=[2 / 3, 8 / 9], decay=0.1)
    assert schedule.factor(0) == 1
    assert schedule.factor(59_999) == 1
    assert schedule.factor(60_000) == pytest.approx(0.1)
    assert schedule.factor(79_999) == pytest.approx(0.1)
    assert schedule.factor(80_000) == pytest.approx(0.01)


def test_milestones_written_with_three_digits_are_rounded_to_a_step():
    schedule = LearningRateSchedule("step", 1000, milestones=[0.667])
    assert [schedule.factor(step) for step in (666, 667)] == [1, pytest.approx(0.1)]


def test_warmup_rises_linearly_and_meets_the_schedule():
    schedule = LearningRateSchedule("constant", 100, warmup_steps=10, warmup_factor=0.2)
    assert schedule.factor(0) == pytest.approx(0.2)
    assert schedule.factor(5) == pytest.approx(0.6)
    assert [schedule.factor(step) for step in (10, 99)] == [1, 1]


def test_cosine_ends_at_its_final_factor():
    schedule = LearningRateSchedule("cosine", 110, warmup_steps=10, final_factor=0.1)
    assert schedule.factor(10) == pytest.approx(1)
    assert schedule.factor(60) == pytest.approx(0.55)
    assert schedule.factor(110) == pytest.approx(0.1)


def test_one_cycle_equals_torchs():
    steps, warmup = 50, 15
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=steps, pct_start=warmup / steps, div_factor=25, final_div_factor=1e4,
        cycle_momentum=False,
    )  # fmt: skip
    # torch puts the peak and the end on the last step of each part, one earlier than ours.
    ours = LearningRateSchedule(
        "one_cycle", steps - 1, warmup_steps=warmup - 1, warmup_factor=1 / 25, final_factor=1 / 25 / 1e4
    )
    for step in range(steps - 1):
        assert ours.factor(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        optimiser.step()
        theirs.step()


def test_a_run_shorter_than_its_warmup_stays_finite():
    for name in ("constant", "step", "cosine", "one_cycle"):
        schedule = LearningRateSchedule(name, 3, warmup_steps=500)
        assert all(math.isfinite(schedule.factor(step)) for step in range(4))


def test_apply_keeps_the_ratio_of_the_groups():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimiser = torch.optim.SGD(
        [
            {"params": [first], "lr": 0.1, "initial_lr": 0.1},
            {"params": [second], "lr": 0.01, "initial_lr": 0.01},
        ]
    )
    LearningRateSchedule("constant", 10, warmup_steps=4, warmup_factor=0.0).apply(optimiser, 2)
    assert [group["lr"] for group in optimiser.param_groups] == [pytest.approx(0.05), pytest.approx(0.005)]


def factors(schedule):
    return [schedule.factor(step) for step in range(schedule.steps)]


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "one_cycle"])
def test_a_restart_begins_the_whole_schedule_anew_and_ends_it_where_the_next_begins(name):
    whole = LearningRateSchedule(name, 100, warmup_steps=5, milestones=[0.5], restarts=(20, 60))
    parts = [LearningRateSchedule(name, steps, warmup_steps=5, milestones=[0.5]) for steps in (20, 40, 40)]
    assert factors(whole) == [factor for part in parts for factor in factors(part)]


def test_a_cosine_with_restarts_by_hand():
    schedule = LearningRateSchedule("cosine", 30, final_factor=0.2, restarts=[10])
    assert [schedule.factor(step) for step in (0, 10)] == [1, 1]
    assert [schedule.factor(step) for step in (5, 20, 30)] == [pytest.approx(v) for v in (0.6, 0.6, 0.2)]


def test_a_round_shorter_than_the_warmup_only_warms_up():
    schedule = LearningRateSchedule("cosine", 20, warmup_steps=10, warmup_factor=0.0, restarts=[4])
    assert [schedule.factor(step) for step in (0, 2, 3, 4, 9)] == [0, 0.5, 0.75, 0, 0.5]

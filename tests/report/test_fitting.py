"""Verdicts on learning curves, each on curves that show it and silent on those that do not."""

import math

import numpy as np
import pytest

from detkit.report.fitting import fitting


def curves(train, validation, metric, *, epochs=10) -> list[dict]:
    """Rows of a run; each argument is a function of the share of the run that is over."""
    rows: list[dict] = [{"event": "start", "format_version": 1}]
    for epoch in range(1, epochs + 1):
        for part in (0.5, 1.0):
            at = epoch - 1 + part
            rows.append({"event": "train", "epoch": at, "loss": train(at / epochs)})
        over = epoch / epochs
        rows.append(
            {"event": "validate", "epoch": float(epoch), "loss": validation(over), "AP50": metric(over)}
        )
    return rows


def falling(over: float) -> float:
    return 0.2 + math.exp(-6 * over)


def rising(over: float) -> float:
    return 0.9 * (1 - math.exp(-6 * over))


def verdict(rows) -> str:
    return fitting(rows, metric="AP50").verdict


def test_a_healthy_run_settles():
    found = fitting(curves(falling, falling, rising), metric="AP50")
    assert found.verdict == "settled"
    assert found.epoch == 10
    assert found.sentence == "best AP50 0.898 at epoch 10"


@pytest.mark.parametrize("seed", range(5))
def test_what_a_small_validation_set_wavers_by_is_no_verdict(seed):
    rng = np.random.default_rng(seed)
    rows = curves(falling, lambda over: falling(over) * (1 + 0.02 * rng.standard_normal()), rising)
    assert verdict(rows) == "settled"


def test_overfitting_since_the_least_validation_loss():
    rows = curves(falling, lambda over: 0.5 + 2 * (over - 0.4) ** 2, lambda over: 0.6 - (over - 0.4) ** 2)
    found = fitting(rows, metric="AP50")
    assert (found.verdict, found.epoch) == ("overfitting", 4)
    assert "since epoch 4: the validation loss rose from 0.5 to 1.22" in found.sentence


def test_surer_of_its_mistakes_but_better_is_no_overfitting():
    assert verdict(curves(falling, lambda over: 0.5 + 2 * (over - 0.4) ** 2, rising)) == "settled"


def test_both_losses_rising_are_no_overfitting():
    def worse(over: float) -> float:
        return 0.5 + 2 * (over - 0.4) ** 2

    assert verdict(curves(worse, worse, lambda over: 0.6 - (over - 0.4) ** 2)) == "settled"


def test_a_run_that_ends_too_early_is_still_falling():
    rows = curves(falling, lambda over: 1 - 0.7 * over, lambda over: 0.5 * over)
    found = fitting(rows, metric="AP50")
    assert (found.verdict, found.epoch) == ("still falling", 7.5)
    assert "train for more epochs" in found.sentence


# What healthy runs of the demo gave, three arms, and one that its four epochs were too short for.
ANNEALED = {
    "focal": ([0.56, 0.503, 0.315, 0.221], [0.506, 0.775, 0.84, 0.908], "settled"),
    "both cures": ([0.837, 0.554, 0.314, 0.233], [0.516, 0.748, 0.839, 0.899], "settled"),
    "OHEM": ([1.83, 0.952, 0.562, 0.403], [0.182, 0.738, 0.832, 0.892], "settled"),
    "too short": ([1.9, 1.8, 1.5, 0.8], [0.05, 0.1, 0.2, 0.45], "still falling"),
}


@pytest.mark.parametrize("name", ANNEALED)
def test_what_annealing_alone_gives_at_the_end_is_no_reason_to_go_on(name):
    losses, metrics, expected = ANNEALED[name]
    rows = curves(
        falling, lambda over: losses[round(4 * over) - 1], lambda over: metrics[round(4 * over) - 1], epochs=4
    )
    assert verdict(rows) == "still falling", "with a constant rate it would be one"
    for row in rows:
        if row["event"] == "train":
            row["learning_rate"] = 0.002 * (1 + math.cos(math.pi * row["epoch"] / 4)) / 2
    assert verdict(rows) == expected


def test_a_loss_that_falls_while_the_metric_stands_is_no_reason_to_go_on():
    rows = curves(falling, lambda over: 1 - 0.7 * over, lambda over: min(0.38, 0.5 * over))
    assert fitting(rows, metric="AP50").verdict == "settled"


def test_never_learned_whatever_the_losses_do():
    rows = curves(falling, lambda over: 1 - 0.9 * over, lambda over: 0.01 * over)
    found = fitting(rows, metric="AP50")
    assert found.verdict == "never learned"
    assert "best AP50 is 0.010" in found.sentence


@pytest.mark.parametrize("rows", [[], curves(falling, falling, rising, epochs=2)])
def test_too_few_validations_say_nothing(rows):
    assert fitting(rows, metric="AP50") is None


def test_values_that_are_missing_are_left_out():
    rows = curves(falling, falling, rising)
    rows[3]["AP50"] = None
    rows[6]["loss"] = float("nan")
    assert verdict(rows) == "settled"
    assert fitting(rows, metric="AP") is None

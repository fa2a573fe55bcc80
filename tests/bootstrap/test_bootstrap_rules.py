"""When rounds end, when one is undone, when bootstrapping stops, and what a run is charged."""

from dataclasses import replace

import pytest

from detkit.bootstrap.compute import affordable_steps, scan_compute
from detkit.bootstrap.rounds import FinishedRound, exhausted, loses, too_dear
from detkit.bootstrap.settings import BootstrapSettings
from detkit.errors import ConfigError


def finished(number, *, part=0, scanned=100, crops=50, recall=0.5, undone=False, charged=0.0):
    return FinishedRound(
        number=number, step=10 * number, compute=100.0 * number, charged=charged, part=part, scanned=scanned,
        false_positives=crops, crops=crops, seen=0, noted=0, regions=0, negatives=crops, recall=recall, undone=undone,
    )  # fmt: skip


def test_rounds_end_at_their_shares_of_the_run():
    assert BootstrapSettings(rounds=(0.05, 0.5, 0.8)).pauses(200) == (10, 100, 160)
    assert BootstrapSettings(rounds=()).pauses(5) == ()


@pytest.mark.parametrize(("rounds", "steps"), [((0.05, 0.06), 20), ((0.5, 0.99), 10), ((0.5,), 1)])
def test_a_run_that_is_too_short_is_refused(rounds, steps):
    with pytest.raises(ConfigError, match="too short for"):
        BootstrapSettings(rounds=rounds).pauses(steps)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        BootstrapSettings(rounds=(0.5, 0.2), parts=0, least_acceptance=-1, lost_recall=2, false_positives=0)
    for name in ("rounds", "parts", "least_acceptance", "lost_recall", "false_positives"):
        assert f"bootstrap: {name} " in str(error.value)


def test_rounds_from_scratch_cannot_end_early():
    """The schedule begins anew at steps that are set beforehand."""
    for early in ({"least_acceptance": 0.1}, {"most_compute": 0.5}):
        with pytest.raises(ConfigError, match="start scratch: each round begins anew"):
            BootstrapSettings(start="scratch", **early)
    assert BootstrapSettings(start="warm", most_compute=0.5).most_compute == 0.5


def test_mining_that_has_cost_its_share_ends_it():
    # 100 a round, 20 of it mining: the 40 steps of the run cost 40 x 8 = 320, of which 40 are an eighth.
    rounds = [finished(1, charged=20.0), finished(2, charged=20.0)]
    assert too_dear(rounds, steps=40, most=0.13) == ""
    assert "0.125 of what all steps cost, and may cost 0.12" in too_dear(rounds, steps=40, most=0.12)
    assert too_dear([finished(1, charged=99.0)], steps=40, most=1.0) == ""


def test_a_round_is_undone_only_where_more_recall_is_lost_than_allowed():
    before = [finished(1, recall=0.6), finished(2, recall=0.8), finished(3, recall=0.2, undone=True)]
    assert loses(0.76, before, tolerance=0.05) == ""
    reason = loses(0.7, before, tolerance=0.05)
    assert "0.800 after round 2 to 0.700" in reason
    assert loses(0.0, before, tolerance=1.0) == ""


def test_recall_that_was_not_measured_undoes_nothing():
    assert loses(0.1, [], tolerance=0.0) == ""
    assert loses(None, [finished(1)], tolerance=0.0) == ""
    assert loses(0.1, [finished(1, recall=None)], tolerance=0.0) == ""


def test_only_a_complete_pass_that_adds_hardly_anything_ends_it():
    easy = [finished(1, part=0, crops=0), finished(2, part=1, crops=0)]
    assert exhausted(easy[:1], parts=2, least_acceptance=0.1) == ""
    assert "200 images added 0 crops" in exhausted(easy, parts=2, least_acceptance=0.1)
    hard = [*easy, finished(3, part=0, crops=30)]
    assert exhausted(hard, parts=2, least_acceptance=0.1) == "", "the latest look at a part counts"
    assert "0.15 crops" in exhausted(hard, parts=2, least_acceptance=0.2)


def test_a_pass_that_had_to_leave_crops_out_was_not_short_of_them():
    limited = replace(finished(2, part=1, crops=0), over_limit=3)
    assert exhausted([finished(1, part=0, crops=0), limited], parts=2, least_acceptance=0.1) == ""


def test_a_record_holds_the_acceptance_ratio_and_gives_the_round_back():
    round_ = replace(finished(1, scanned=100, crops=50), seen=300, regions=10)
    assert round_.record()["acceptance_ratio"] == 60 / 400
    assert FinishedRound.of_record(round_.record()) == round_
    assert finished(1, scanned=0, crops=0).acceptance_ratio is None


def test_bootstrapping_goes_on_where_nothing_was_scanned_or_a_round_was_undone():
    assert exhausted([finished(1, scanned=0, crops=0)], parts=1, least_acceptance=1.0) == ""
    undone = [finished(1, part=0, crops=0), finished(2, part=1, undone=True)]
    assert exhausted(undone, parts=2, least_acceptance=1.0) == ""
    assert exhausted([finished(1, crops=0)], parts=1, least_acceptance=0.0) == ""


def test_a_scan_costs_the_canvases_of_its_images():
    sizes = [(100, 200), (128, 256), (1, 1)]
    assert scan_compute(sizes, stride=32, batch=1) == 128 * 224 + 128 * 256 + 32 * 32
    assert scan_compute([], stride=32, batch=4) == 0


def test_a_scan_costs_the_padding_of_its_batches():
    upright_and_not = [(640, 480), (480, 640), (480, 640)]
    assert scan_compute(upright_and_not, stride=32, batch=2) == 2 * 640 * 640 + 480 * 640


def test_scans_are_paid_before_steps():
    assert affordable_steps(3000, step=30, scans=0) == 100
    assert affordable_steps(3000, step=30, scans=299) == 90
    assert affordable_steps(3000, step=30, scans=2970) == 1
    # Sums of large floats may be off in their last bit.
    assert affordable_steps(0.3, step=0.1, scans=0.0) == 3
    with pytest.raises(ConfigError, match="leaves less than a step"):
        affordable_steps(3000, step=30, scans=2971)

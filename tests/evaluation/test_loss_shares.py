"""Where the loss comes from: counts in bins against the loss of every sample."""

import json

import numpy as np
import pytest

from detkit.errors import DataError
from detkit.evaluation.loss_shares import BINS, BINS_PER_UNIT, LIMIT, LogitCounts, load_logit_counts


def counted(positives, negatives=()):
    """Counts of truths' logits."""
    places = [
        np.floor((np.asarray(one, dtype=float) + LIMIT) * BINS_PER_UNIT).astype(int)
        for one in (positives, negatives)
    ]
    return LogitCounts(*(np.bincount(one, minlength=BINS) for one in places), about="made up")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_shares_are_those_of_every_sample(gamma):
    truths = np.random.default_rng(0).normal(3, 3, 20_000)
    losses = (1 + np.exp(truths)) ** -gamma * np.log1p(np.exp(-truths))
    hardest = np.sort(losses)[::-1]
    counts = counted([], truths)
    for share in (0.01, 0.2, 0.5):
        exact = hardest[: round(share * len(truths))].sum() / losses.sum()
        assert counts.hardest(share, "negatives", gamma) == pytest.approx(exact, abs=0.005)
    samples, shares = counts.cumulative("negatives", gamma)
    assert (samples[0], shares[0], samples[-1], shares[-1]) == (0, 0, 1, pytest.approx(1))
    assert (np.diff(shares) >= 0).all()
    assert (shares <= samples + 1e-9).all()  # the easiest come first


def test_gamma_moves_the_loss_to_the_hard_ones():
    counts = counted([2.0] * 100, [6.0] * 990 + [-1.0] * 10)
    assert counts.hardest(0.01, "negatives", 0.0) == pytest.approx(0.84, abs=0.01)
    assert counts.hardest(0.01, "negatives", 2.0) > 0.9999
    for gamma in (0.0, 2.0):
        assert counts.hardest(0.2, "positives", gamma) == pytest.approx(0.2)


def test_nothing_has_no_shares():
    assert counted([]).hardest(0.2, "positives", 2.0) == 1.0
    assert counted([]).cumulative("positives", 2.0)[1].max() == 0.0


def test_kept_in_a_file(tmp_path):
    counts = counted([0.5, 0.5, -7.25], [12.0, 39.99])
    counts.save(tmp_path / "shares.json")
    again = load_logit_counts(tmp_path / "shares.json")
    np.testing.assert_array_equal(again.positives, counts.positives)
    np.testing.assert_array_equal(again.negatives, counts.negatives)
    assert again.about == "made up"
    counted([]).save(tmp_path / "none.json")
    assert load_logit_counts(tmp_path / "none.json").positives.sum() == 0


@pytest.mark.parametrize(
    "wrong", [{"format": "x"}, {"format_version": 2}, {"positives": None}, {"first": 10**6}]
)
def test_other_files_are_refused(tmp_path, wrong):
    counted([0.5]).save(tmp_path / "shares.json")
    tree = json.loads((tmp_path / "shares.json").read_text()) | wrong
    (tmp_path / "shares.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="is no file of loss shares of format version 1"):
        load_logit_counts(tmp_path / "shares.json")

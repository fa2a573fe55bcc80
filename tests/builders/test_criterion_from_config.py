"""Every row of the table of cures from a configuration: any selection goes with any weighting."""

import pytest

from detkit import selection as selections
from detkit.builders import build_criterion
from detkit.config import load_config

ROWS = {
    "{name: all}": None,
    "{name: random, ratio: 3.0, minimum: 16}": selections.RandomNegatives(3.0, 16),
    "{name: hard, ratio: 2.0, minimum: 8}": selections.HardNegatives(2.0, 8),
    "{name: ohem, budget: 64, nms_iou: 0.6, shortlist: 500}": selections.HardExamples(64, 0.6, 500),
}


@pytest.mark.parametrize(("alpha", "gamma"), [(None, 0.0), (0.75, 0.0), (0.25, 2.0)])
@pytest.mark.parametrize("told", ROWS)
def test_a_selection_and_a_weighting(tiny_config, told, alpha, gamma):
    weighting = [f"loss.alpha={'null' if alpha is None else alpha}", f"loss.gamma={gamma}"]
    criterion = build_criterion(load_config(tiny_config, [f"selection={told}", *weighting]))
    assert criterion.selection == ROWS[told]
    assert (criterion.alpha, criterion.gamma) == (alpha, gamma)


def test_the_mined_selection(tiny_config):
    told = "selection={name: mined, initial: 3, per_image: 5, threshold: 0.2, iou: 0.7, at_once: false, capacity: 90}"
    selection = build_criterion(load_config(tiny_config, [told, "bootstrap={}"])).selection
    assert isinstance(selection, selections.MinedNegatives)
    assert (selection.initial, selection.per_image, selection.threshold, selection.iou) == (3, 5, 0.2, 0.7)
    assert (selection.at_once, selection.regions.capacity) == (False, 90)

"""A study of a function that costs nothing, and what runs its trials."""

from pathlib import Path

import pytest

pytest.importorskip("optuna")

from detkit.search.space import ChoiceRange, NumberRange
from detkit.search.study import Study

SPACE = [
    NumberRange("rate", 1e-6, 1.0, log=True),
    NumberRange("channels", 16, 64, step=16),
    ChoiceRange(
        "size", {"small": {"model.backbone": "a"}, "large": {"model.backbone": "b", "model.weights": None}}
    ),
]


@pytest.fixture
def open_study(tmp_path):
    """Call for the study in tmp_path; what differs may be given."""

    def opened(folder: Path = tmp_path, **given) -> Study:
        told = {
            "identity": {"loss.gamma": 2.0},
            "seed": 0,
            "seal": folder / "test.json",
            "space": SPACE,
            **given,
        }
        space = told.pop("space")
        return Study(folder, space, **told)

    return opened

"""The folders of simulated comparisons, made once."""

import json
import shutil
from pathlib import Path

import pytest
from simulated_comparison import EYES, HOSTILE, simulated_comparison


def _make(folder: Path, **options) -> Path:
    simulated_comparison(folder, images=24, resamples=60, **options)
    return folder


@pytest.fixture(scope="session")
def comparison_folder(tmp_path_factory) -> Path:
    """Four arms, two of which mined, two seeds or more each."""
    eyes = {name: EYES[name] for name in ("focal", "random 1:3", "bootstrapped", "bootstrapped with focal")}
    return _make(tmp_path_factory.mktemp("comparison"), eyes=eyes, seeds=2)


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory) -> Path:
    """Arms, classes and files whose names are markup, in every place that shows a name."""
    return _make(
        tmp_path_factory.mktemp("hostile"),
        eyes={f"{HOSTILE}{index}": eye for index, eye in enumerate(list(EYES.values())[:2])},
        mining=(f"{HOSTILE}0",),
        seeds=1,
        classes=(HOSTILE, "plain"),
        file_name='{}/"><img src=x onerror=alert(1)>.jpg',
    )


@pytest.fixture
def edited(comparison_folder, tmp_path):
    """Call with a function that edits results.json's tree; returns the new folder."""

    def edit(change) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(comparison_folder, folder)
        tree = json.loads((folder / "results.json").read_text())
        change(tree)
        (folder / "results.json").write_text(json.dumps(tree))
        return folder

    return edit

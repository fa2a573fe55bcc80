"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real data sets, weights and published evaluation cases; skips where it is not there."""
    name = os.environ.get("DETKIT_TEST_DATA")
    if not name:
        pytest.skip("DETKIT_TEST_DATA is not set: it names the folder with data/, eval/ and weights/")
    folder = Path(name)
    if not (folder / "data").is_dir():
        pytest.skip(f"DETKIT_TEST_DATA={name} has no folder data/")
    return folder

"""A COCO file without a defect, and its images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sound_file import sound_tree


@pytest.fixture
def tree() -> dict:
    return sound_tree()


@pytest.fixture
def folder(tmp_path) -> Path:
    """The images of the sound file."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((50, 100, 3), 99, np.uint8)).save(folder / name)
    return folder

"""Fixtures that every test may use."""

import json
import os
import shutil
from collections.abc import Callable
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


TINY_CONFIG = """
output: {output}
seed: 7
device: cpu
precision: fp32
channels_last: true
data:
  root: {root}
  train: {{annotations: train.json, images: images}}
  val: {{annotations: val.json, images: images}}
  test: null
  classes: null
  resize: {{shorter: 64, longest: 64}}
  augment:
    - {{name: HorizontalFlip, p: 0.5}}
    - {{name: RandomBrightnessContrast, p: 0.5}}
  min_visible: 0.1
  workers: 1
model:
  backbone: shufflenet_v2_x0_5
  levels: [3, 4]
  pyramid_channels: 16
  head_depth: 1
  head_norm: group
  dropout: 0.1
  anchor_sizes: [[12, 16], [24, 32]]
  anchor_ratios: [1.0]
loss: {{alpha: 0.25, gamma: 2.0, box: smooth_l1}}
optimiser: {{name: adamw, learning_rate: 0.002, weight_decay: 0.01}}
schedule: {{name: cosine, warmup_steps: 3}}
training:
  epochs: {epochs}
  batch_size: 4
  clip_norm: 5.0
  ema_decay: 0.9
  metric: AP50
  checkpoint_every: 2
  log_every: 2
"""


def _write_tiny_split(folder: Path, name: str, images: int, first: int) -> None:
    """Bright squares (one class) and dark ones (the other) on grey noise; every fifth image is empty."""
    # Imported here: the op tests also run where torch is installed alone.
    import cv2
    import numpy as np

    rng = np.random.default_rng(first)
    tree: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "bright"}, {"id": 5, "name": "dark"}],
    }
    for number in range(first, first + images):
        pixels = rng.integers(100, 156, (64, 64, 3), dtype=np.uint8)
        for _ in range(0 if number % 5 == 4 else int(rng.integers(1, 4))):
            side = int(rng.integers(10, 28))
            x, y = (int(rng.integers(0, 64 - side)) for _ in range(2))
            category = int(rng.choice([3, 5]))
            pixels[y : y + side, x : x + side] = 250 if category == 3 else 5
            tree["annotations"].append(
                {"id": len(tree["annotations"]) + 1, "image_id": number, "category_id": category,
                 "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            )  # fmt: skip
        cv2.imwrite(str(folder / "images" / f"{number:03}.png"), pixels)
        tree["images"].append({"id": number, "file_name": f"{number:03}.png", "width": 64, "height": 64})
    (folder / f"{name}.json").write_text(json.dumps(tree))


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory) -> Path:
    """A COCO data set of 64 x 64 pictures: train.json (22 images), val.json (8), images/; two classes."""
    folder = tmp_path_factory.mktemp("tiny_coco")
    (folder / "images").mkdir()
    _write_tiny_split(folder, "train", 22, first=1)
    _write_tiny_split(folder, "val", 8, first=101)
    return folder


@pytest.fixture(scope="session")
def coco_with_background(tmp_path_factory, tiny_coco) -> Path:
    """A copy of the tiny data set with background/: five pictures, each of one grey that no other has."""
    import cv2
    import numpy as np

    copy = tmp_path_factory.mktemp("with_background") / "data"
    shutil.copytree(tiny_coco, copy)
    (copy / "background").mkdir()
    stripes = np.random.default_rng(0).integers(0, 2, (5, 1, 64, 1), dtype=np.uint8)
    for number in range(5):
        pixels = np.broadcast_to(20 + 40 * number + 10 * stripes[number], (64, 64, 3))
        cv2.imwrite(str(copy / "background" / f"{number}.png"), pixels)
    return copy


@pytest.fixture(scope="session")
def write_tiny_config(tiny_coco) -> Callable[..., Path]:
    """Call with a folder for a configuration that trains the smallest detector on ``tiny_coco`` in seconds.

    Its output is the folder's "run"; ``epochs`` may be given.
    """

    def write(folder: Path, epochs: int = 3) -> Path:
        path = folder / "tiny.yaml"
        path.write_text(TINY_CONFIG.format(root=tiny_coco, output=folder / "run", epochs=epochs))
        return path

    return write


@pytest.fixture
def tiny_config(write_tiny_config, tmp_path) -> Path:
    """A tiny configuration of three epochs whose output is tmp_path / "run"."""
    return write_tiny_config(tmp_path)

"""Every selection, and either loss of boxes, trains a detector, from the configuration on."""

import math

import pytest

from detkit.builders import build_run
from detkit.config import load_config
from detkit.training.run_log import read_log

MINED = "{name: mined, initial: 4, per_image: 4, threshold: 0.005}"


@pytest.mark.parametrize(
    "told",
    [
        ["selection={name: all}"],
        ["selection={name: all}", "loss.box=giou"],
        ["selection={name: random, ratio: 3.0, minimum: 16}"],
        ["selection={name: hard, ratio: 3.0, minimum: 16}"],
        ["selection={name: ohem, budget: 64, nms_iou: 0.7, shortlist: 500}"],
        [f"selection={MINED}", "bootstrap={rounds: [0.5]}"],
    ],
    ids=["all", "all, giou", "random", "hard", "ohem", "mined"],
)
def test_a_run_ends_with_less_loss(tiny_config, tmp_path, told):
    config = load_config(tiny_config, [*told, "training.epochs=2", "training.log_every=1", "data.workers=0"])
    assert build_run(config).fit().finished
    rows = read_log(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if row["event"] == "train"]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < sum(losses[:3])
    assert math.isfinite([row["loss"] for row in rows if row["event"] == "validate"][-1])

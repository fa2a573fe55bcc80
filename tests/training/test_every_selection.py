"""Every selection, and either loss of boxes, trains a detector, from the configuration on."""

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
def test_the_validation_loss_falls(tiny_config, tmp_path, told):
    assert build_run(load_config(tiny_config, [*told, "data.workers=0"])).fit().finished
    rows = read_log(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if row["event"] == "validate"]
    assert losses[2] < losses[1] < losses[0]

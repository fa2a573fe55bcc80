"""A person's marks in training: what was rejected is never a negative, what was accepted is one from the beginning."""

import json
from pathlib import Path

import pytest
import torch

from detkit.builders import build_run
from detkit.builders.training_images import training_images
from detkit.config import load_config
from detkit.errors import TrainingError
from detkit.labels import IGNORE
from detkit.training.checkpoint import load_checkpoint

MINED = ("selection={name: mined, initial: 0, per_image: 64, threshold: 0.0}", "bootstrap={}")
PLAIN = ("data.augment=[]", "training.batch_size=22", "training.steps=20")


@pytest.fixture
def make_config(tiny_config, tmp_path):
    def make(*marks, overrides=()):
        """``marks``: (file name, xyxy box, mark)."""
        rows = [
            {"file_name": name, "box": box, "category": "bright", "score": 0.9, "mark": mark}
            for name, box, mark in marks
        ]
        tree = {"format": "detkit review marks", "format_version": 1, "marks": rows}
        (tmp_path / "marks.json").write_text(json.dumps(tree))
        return load_config(tiny_config, [f"data.marks={tmp_path / 'marks.json'}", *PLAIN, *overrides])

    return make


def target_of(run, image_id):
    """Its place in the first batch, with all targets and the outputs of the model."""
    images, targets = next(run.batches_from(0))
    with torch.no_grad():
        return images.image_ids.index(image_id), targets, run.learner.model.train()(images)


@pytest.mark.parametrize("selection", [(), MINED])
def test_what_was_rejected_counts_nowhere(make_config, selection):
    rejected = [16.0, 16.0, 32.0, 32.0]
    run = build_run(make_config(("004.png", rejected, "rejected"), overrides=selection))
    place, targets, outputs = target_of(run, 4)
    assert not len(targets[place]["boxes"])
    assert targets[place]["ignore_regions"].tolist() == [rejected]
    criterion, anchors = run.learner.criterion, torch.cat(list(outputs.anchors))
    matches = criterion.match(anchors, targets)
    at = (anchors - torch.tensor(rejected)).abs().amax(dim=1) <= 2
    assert at.any()
    assert (matches[place][at] == IGNORE).all()
    outputs.logits[0].requires_grad_(True)
    outputs.logits[1].requires_grad_(True)
    sum(criterion(outputs, targets).values()).backward()
    slopes = torch.cat([level.grad for level in outputs.logits], dim=1)
    assert (slopes[place][at] == 0).all()
    assert (slopes[place][~at] != 0).any()


def test_without_the_mark_the_same_anchors_count(make_config):
    run = build_run(make_config())
    place, targets, outputs = target_of(run, 4)
    anchors = torch.cat(list(outputs.anchors))
    assert (run.learner.criterion.match(anchors, targets)[place] != IGNORE).all()


def test_what_was_accepted_counts_from_the_beginning(make_config):
    accepted = [16.0, 16.0, 32.0, 32.0]
    chance = "selection={name: mined, initial: 0, per_image: 1, threshold: 1.0}"
    run = build_run(make_config(("004.png", accepted, "accepted"), overrides=(chance, "bootstrap={}")))
    place, targets, outputs = target_of(run, 4)
    criterion = run.learner.criterion
    for level in outputs.logits:
        level.requires_grad_(True)
    sum(criterion(outputs, targets).values()).backward()
    slopes = torch.cat([level.grad for level in outputs.logits], dim=1)[place].abs().sum(dim=1)
    anchors = torch.cat(list(outputs.anchors))
    counted = anchors[slopes > 0]
    assert len(counted)
    assert ((counted - torch.tensor(accepted)).abs().amax(dim=1) < 12).all()
    assert criterion.selection.regions.of(4).boxes.tolist() == [accepted]


def test_marks_of_other_images_are_told(make_config, capsys):
    images = training_images(make_config(("other.png", [0.0, 0.0, 9.0, 9.0], "rejected")))
    said = " ".join(capsys.readouterr().err.split())
    assert "1 marks of" in said
    assert "'other.png'" in said
    assert images.identity["marks"] is None


def test_a_run_goes_on_with_the_same_marks_alone(make_config):
    short = ("training.steps=1", "schedule.warmup_steps=0")
    config = make_config(("004.png", [16.0, 16.0, 32.0, 32.0], "rejected"), overrides=short)
    build_run(config).fit()
    checkpoint = load_checkpoint(Path(config.output) / "last.pt")
    assert build_run(config, resumed=True).fit(checkpoint).finished
    make_config(("004.png", [16.0, 16.0, 32.0, 30.0], "rejected"))
    with pytest.raises(TrainingError, match="was trained with other review marks"):
        build_run(config, resumed=True).fit(checkpoint)

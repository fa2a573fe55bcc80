"""Each verdict on a run that provokes it; a healthy run gives none."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detkit.builders import build_run
from detkit.config import load_config
from detkit.report.fitting import fitting
from detkit.training.run_log import read_log
from detkit.training.verdicts import verdicts

SIDE = 12
CATEGORIES = [{"id": 3, "name": "bright"}, {"id": 5, "name": "dark"}]


def write_split(
    folder: Path, name: str, images: int, first: int, *, shift: int = 0, empty: int = 0, paired=False
) -> None:
    """One small square in each picture.

    ``shift`` moves each category to the other one, ``empty`` images have none; ``paired`` squares have categories that
    cannot be told from their brightness, but only be learned by heart.
    """
    rng = np.random.default_rng(first)
    tree: dict = {"images": [], "annotations": [], "categories": CATEGORIES}
    for number in range(first, first + images):
        pixels = rng.integers(100, 156, (128, 128, 3), dtype=np.uint8)
        x, y = rng.integers(0, 128 - SIDE, 2).tolist()
        if number - first >= empty:
            pixels[y : y + SIDE, x : x + SIDE] = (250, 5)[number % 2]
            category = CATEGORIES[(number // 2 if paired else number + shift) % 2]["id"]
            tree["annotations"].append(
                {"id": number, "image_id": number, "category_id": category, "bbox": [x, y, SIDE, SIDE]}
            )
        cv2.imwrite(str(folder / "images" / f"{number:03}.png"), pixels)
        size = {"width": 128, "height": 128}
        tree["images"].append({"id": number, "file_name": f"{number:03}.png"} | size)
    (folder / f"{name}.json").write_text(json.dumps(tree))


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """Pictures with one small square each, so that background is nearly all; and what can be wrong with them."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    write_split(folder, "val", 8, 101)
    write_split(folder, "train", 20, 1)
    write_split(folder, "shifted", 20, 1, shift=1)
    write_split(folder, "empty", 20, 201, empty=17)
    write_split(folder, "paired", 8, 301, paired=True)
    return folder


@pytest.fixture
def train(squares, tiny_config):
    def run(*overrides):
        """The rows of the log of 40 steps."""
        told = (
            f"data.root={squares}",
            "data.resize={shorter: 128, longest: 128}",
            "data.augment=[]",
            "data.workers=0",
            "model.levels=[2, 3]",
            "model.anchor_sizes=[[10, 12, 14], [20, 24, 28]]",
            "model.dropout=0",
            "training={epochs: 8, batch_size: 4, clip_norm: 5.0, validate_every: 2, log_every: 2}",
        )
        config = load_config(tiny_config, [*told, *overrides])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # rounding follows the number of threads, and a blown detector goes anywhere
        try:
            build_run(config).fit()
        finally:
            torch.set_num_threads(threads)
        return read_log(Path(config.output) / "metrics.jsonl")

    return run


def causes(rows):
    return [row["cause"] for row in rows if row["event"] == "verdict"]


def test_a_healthy_run_is_not_judged(train, capsys):
    rows = train()
    assert [row["AP50"] for row in rows if row["event"] == "validate"][-1] > 0.6
    assert causes(rows) == []
    assert fitting(rows, metric="AP50").verdict == "settled"
    assert "warning" not in capsys.readouterr().err


PROVOKED = {
    "prior": ["model.prior=0.5", "loss={alpha: null, gamma: 0.0}"],
    "class imbalance": ["loss={alpha: 0.1, gamma: 0.0}"],
    "rate too high": ["optimiser.learning_rate=0.2", "training.clip_norm=null"],
    "rate far too high": ["optimiser.learning_rate=2"],
    "rate too low": ["optimiser.learning_rate=0.00001"],
    "labels": ["data.train={annotations: shifted.json, images: images}"],
    "anchors": ["model.anchor_sizes=[[60, 80, 100], [110, 120, 128]]"],
    "normaliser": ["data.train={annotations: empty.json, images: images}", "training.batch_size=1"],
}


@pytest.mark.parametrize("cause", PROVOKED)
def test_a_cause_is_named_where_it_is_provoked(train, capsys, cause):
    rows = train(*PROVOKED[cause])
    cause = cause.replace("far ", "")
    assert causes(rows) == [cause]
    (verdict,) = [row for row in rows if row["event"] == "verdict"]
    assert f"{cause}: {verdict['sentence']}" in " ".join(capsys.readouterr().err.split())
    assert verdict["step"] == {"prior": 1}.get(cause, verdict["step"])


FITTING = {
    "never learned": ["optimiser.learning_rate=0.000001", "training.epochs=4", "training.validate_every=1"],
    "still falling": [
        "schedule={name: constant, warmup_steps: 2}",
        "optimiser.learning_rate=0.0005",
        "training.epochs=3",
        "training.validate_every=1",
    ],
    "overfitting": [
        "data.train={annotations: paired.json, images: images}",
        "schedule={name: constant, warmup_steps: 2}",
        "loss={alpha: null, gamma: 0.0}",
        "optimiser={name: adamw, learning_rate: 0.004, weight_decay: 0.0}",
        "training={epochs: 40, batch_size: 4, clip_norm: 5.0, validate_every: 4, log_every: 2}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("verdict", FITTING)
def test_too_short_too_long_or_in_vain(train, verdict):
    assert fitting(train(*FITTING[verdict]), metric="AP50").verdict == verdict


def look(step, **values):
    healthy = {
        "foreground_score": 0.5,
        "background_score": 0.01,
        "positive_loss": 0.5,
        "positive_gradient": 0.8,
        "unmatched_objects": 0.0,
    }
    return {"event": "look", "step": step} | healthy | values


def validation(step, **values):
    healthy = {"objects": 100, "never_predicted": [], "localised": 0.9, "named_right": 0.9, "taken_for": {}}
    return {"event": "validate", "step": step} | healthy | values


def test_early_on_a_detector_may_be_slow():
    slow = {"foreground_score": 0.02, "background_score": 0.01}
    rows = [look(step, **slow) for step in (1, 10, 20, 30)]
    assert verdicts(rows, steps=100, classes=2) == []
    rows += [look(step, **slow) for step in (40, 50)]
    assert [one.cause for one in verdicts(rows, steps=100, classes=2)] == ["rate too low"]


def test_a_symptom_of_a_cause_that_was_named_is_not_said():
    alike = {"foreground_score": 0.3, "background_score": 0.3}
    rows = [look(1), *(look(step, **alike) for step in (40, 50, 60))]
    assert [one.cause for one in verdicts(rows, steps=100, classes=2)] == ["rate too high"]
    rows.append({"event": "verdict", "cause": "prior", "step": 1})
    assert verdicts(rows, steps=100, classes=2) == []


@pytest.mark.parametrize("score", [1e-6, 0.003])
def test_scores_that_fell_are_no_reason_to_raise_the_rate(score):
    rows = [look(1, foreground_score=0.01)]
    rows += [look(step, foreground_score=score, background_score=1e-6) for step in (40, 50, 60)]
    assert [one.cause for one in verdicts(rows, steps=100, classes=2)] == ["rate too high"]


@pytest.mark.parametrize(
    ("losses", "cause"),
    [
        ((2.0, 2.5, 30.0, 1.0), "rate too high"),
        ((2.0, 12.0, 1.5), "rate too low"),
        ((60.0, 2.0, 1.9, 1.8), "rate too high"),
        ((3000.0, 500.0, 3.0, 2.5, 2.0), "rate too high"),
        ((0.0, 1.5, 1.4), "rate too low"),
        ((0.1, 1.5, 1.4), "rate too low"),
        ((2.0, 1.9, 1.8), "rate too low"),
        ((), "rate too low"),
    ],
)
def test_a_loss_that_was_tenfold_is_no_reason_to_raise_the_rate(losses, cause):
    rows = [{"event": "train", "step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
    rows += [look(step, foreground_score=0.02, background_score=0.001) for step in (1, 40, 50, 60)]
    rows.append(validation(60, loss=1000.0))
    (verdict,) = verdicts(rows, steps=100, classes=2)
    assert verdict.cause == cause
    rose = bool(losses) and f"once was {max(losses):.3g}: steps may be too large" in verdict.sentence
    assert rose == (cause == "rate too high")


def test_a_first_step_without_objects_says_nothing_of_imbalance():
    empty = {"foreground_score": None, "positive_loss": None, "positive_gradient": 0.0}
    slow = {"foreground_score": 0.02, "background_score": 0.01}
    rows = [look(1, **empty), *(look(step, **slow) for step in (2, 40, 50, 60))]
    assert [one.cause for one in verdicts(rows, steps=100, classes=2)] == ["rate too low"]


def test_where_nothing_is_predicted_no_class_is_rare():
    rows = [look(step) for step in (1, 60)] + [validation(60, never_predicted=["a", "b"], localised=0.0)]
    assert verdicts(rows, steps=100, classes=2) == []


def test_a_prior_that_a_selection_balances_is_none():
    assert verdicts([look(1, background_score=0.5, positive_loss=0.25)], steps=100, classes=2) == []


def test_classes_that_are_never_predicted_are_named():
    rows = [look(step) for step in (1, 20, 40, 60)]
    rows.append(validation(60, never_predicted=[f"class {number}" for number in range(7)]))
    (verdict,) = verdicts(rows, steps=100, classes=9)
    assert verdict.cause == "classes"
    assert "'class 0', 'class 1', 'class 2', 'class 3', 'class 4' and 2 more" in verdict.sentence


@pytest.mark.parametrize(
    ("values", "classes", "found"),
    [
        ({"named_right": 0.2}, 2, ["labels"]),
        ({"named_right": 0.45}, 2, []),
        ({"named_right": 0.2, "objects": 5}, 2, []),
        ({"named_right": 0.0, "objects": 8}, 2, ["labels"]),
        ({"named_right": 0.02}, 80, ["labels"]),
        ({"named_right": 0.08}, 80, []),
        ({"named_right": 0.01, "objects": 10**5}, 80, ["labels"]),
        ({"named_right": 0.0, "localised": 0.2}, 2, []),
        ({"named_right": 0.0}, 1, []),
        ({"named_right": None, "localised": None}, 2, []),
    ],
)
def test_labels_are_doubted_where_names_are_worse_than_chance(values, classes, found):
    rows = [look(step) for step in (1, 20, 40, 60)] + [validation(60, **values)]
    assert [one.cause for one in verdicts(rows, steps=100, classes=classes)] == found


def test_nothing_is_said_of_an_empty_log():
    assert verdicts([], steps=100, classes=2) == []

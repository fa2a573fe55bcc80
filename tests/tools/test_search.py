"""tools/search.py from its file to the report: a planted learning rate, one look at test, being killed, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import yaml
from torchvision.models import WeightsEnum, get_model

pytest.importorskip("optuna")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import search

from detkit.builders import build_anchors, build_training_transform, search_results
from detkit.builders.search import SearchedExperiment
from detkit.builders.searched_trial import run_trial
from detkit.config import load_config, load_search
from detkit.errors import ConfigError, DataError, WeightsError
from detkit.evaluation.search_results import read_search, read_test_score
from detkit.report.search import write_search_report
from detkit.search.running import TrialError
from detkit.training.learner import Learner
from detkit.training.run_log import read_log

ROOT = Path(__file__).parents[2]
RANGES = {"optimiser.learning_rate": {"low": 1e-6, "high": 1.0, "log": True}}
SIZES = {"choices": {"narrow": {"model.pyramid_channels": 8}, "wide": {"model.pyramid_channels": 16}}}


def run(monkeypatch, *arguments):
    """Run the script in this process; the number of threads that it sets is not that of the tests that follow."""
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        return search.main()
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def no_pages(monkeypatch):
    """For what is not about the page, which takes longer to draw than a trial of two steps to train."""
    monkeypatch.setattr(search, "write_search_report", lambda folder: None)


def written(folder: Path) -> str:
    """All that a person may read of a search."""
    return "".join(
        file.read_text() for file in sorted(folder.glob("*.*")) if file.suffix in (".html", ".json", ".yaml")
    )


@pytest.fixture(scope="module")
def searched_set(tmp_path_factory, tiny_coco, write_tiny_config):
    """A search's file, over a set with a test split; everything is below its folder."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "data").mkdir()
    (folder / "data" / "images").symlink_to(tiny_coco / "images")
    for name, source in (("train", "train"), ("val", "val"), ("test", "val")):
        shutil.copy(tiny_coco / f"{source}.json", folder / "data" / f"{name}.json")
    write_tiny_config(folder)
    tree = {
        "title": "Squares",
        "output": str(folder / "found"),
        "experiment": "tiny.yaml",
        "overrides": {
            "data": {
                "root": str(folder / "data"),
                "workers": 0,
                "test": {"annotations": "test.json", "images": "images"},
            },
            "model.dropout": 0.0,
            "training": {
                "steps": 30,
                "ema_decay": None,
                "checkpoint_every": None,
                "log_every": 100,
                "validate_every": 100,
            },
            "schedule.warmup_steps": 0,
            "loss.box_beta": 0.1,
        },
        "ranges": RANGES,
        "trials": 6,
        "seed": 1,
        "pruning": None,
    }
    (folder / "squares.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module")
def ended_unscored(searched_set):
    """What the search leaves where the test split cannot be read: all trials, and no score."""
    test = searched_set / "data" / "test.json"
    whole = test.read_text()
    test.write_text("not JSON")

    def write_last_page(folder):
        if len(read_search(folder / "search.json").trials) == 6:
            write_search_report(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "write_search_report", write_last_page)
        with pytest.raises(DataError, match=r"test.json: .*not JSON"):
            run(patch, searched_set / "squares.yaml")
    test.write_text(whole)
    assert not (searched_set / "found" / "test.json").exists()
    return searched_set / "found", written(searched_set / "found")


@pytest.fixture(scope="module")
def found(searched_set, ended_unscored):
    """The folder of the search that ended: the same command, and no step is trained again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", None)
        assert run(patch, searched_set / "squares.yaml") == 0
    return ended_unscored[0]


def test_the_planted_learning_rate_is_found_within_the_limit(found):
    """Of the six decades, about one and a half teach the detector anything in thirty steps."""
    result = read_search(found / "search.json")
    assert len(result.trials) == 6
    rates = {one.number: one.values["optimiser.learning_rate"] for one in result.trials}
    assert 3e-4 < rates[result.winner] < 2e-2
    values = {one.number: one.value for one in result.trials}
    assert values[result.winner] > 0.03
    for number, rate in rates.items():
        if rate < 1e-4 or rate > 0.1:
            assert values[number] < 0.02


def test_all_trials_end_without_a_look_at_test(ended_unscored):
    """Their annotations could not be read, and nothing but the last step needed them."""
    folder, text = ended_unscored
    assert {one["state"] for one in json.loads((folder / "search.json").read_text())["trials"]} == {
        "complete"
    }
    assert "On test, looked at once" in text
    assert "not yet" in text
    assert "believe this one" not in text


def test_the_winner_is_scored_on_test(found):
    score = read_test_score(found / "test.json")
    result = read_search(found / "search.json")
    assert score.trial == result.winner
    # The test images are those of validation, so the best checkpoint must score what it scored there.
    assert score.metrics["AP50"] == pytest.approx(result.trials[result.winner].value, abs=1e-6)
    assert score.images == 8
    assert "believe this one" in (found / "report.html").read_text()


def test_the_score_is_measured_once(found, searched_set, monkeypatch, capsys):
    before = (found / "test.json").read_bytes()
    monkeypatch.setattr(search_results, "detect_coco", None)
    monkeypatch.setattr(Learner, "step", None)
    assert run(monkeypatch, searched_set / "squares.yaml") == 0
    assert run(monkeypatch, searched_set / "squares.yaml", "--report") == 0
    assert (found / "test.json").read_bytes() == before
    assert "on test, trial" in capsys.readouterr().out


def test_after_the_look_no_trial_can_be_added(found, searched_set, monkeypatch):
    with pytest.raises(DataError, match="a choice made after looking is no test; begin another output"):
        run(monkeypatch, searched_set / "squares.yaml", "--trials", "7")
    assert len(read_search(found / "search.json").trials) == 6


def test_the_winners_configuration_trains_it_again(found):
    result = read_search(found / "search.json")
    config = load_config(found / "best.yaml")
    assert config.optimiser.learning_rate == result.trials[result.winner].values["optimiser.learning_rate"]
    assert config.training.steps == 30
    assert config.output.endswith("winner")
    assert result.winner_config == (found / "best.yaml").read_text()


def test_checkpoints_that_nobody_can_want_are_gone(found):
    result = read_search(found / "search.json")
    assert [file.parent.name for file in found.glob("trials/*/*.pt")] == [f"{result.winner:04d}"]
    assert len(list(found.glob("trials/*/metrics.jsonl"))) == 6


def test_killed_in_the_middle_of_a_trial_it_goes_on_from_the_checkpoint(
    searched_set, tmp_path, monkeypatch, no_pages
):
    told = ["overrides.training.validate_every=1", "overrides.training.checkpoint_every=2", "trials=1"]
    told += ["overrides.training.steps=12", "overrides.training.log_every=5", "overrides.data.test=null"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = searched_set / "squares.yaml"
    assert run(monkeypatch, config, *told, "--output", whole) == 0
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "search.py"), str(config), *told, "--output", str(killed)],
        stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    checkpoint = killed / "trials" / "0000" / "last.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    steps = []
    take_step = Learner.step

    def counted(self, batches, step, *rest):
        steps.append(step)
        return take_step(self, batches, step, *rest)

    monkeypatch.setattr(Learner, "step", counted)
    assert run(monkeypatch, config, *told, "--output", killed) == 0
    assert 0 < steps[0] < 12, "it began anew"
    first, second = (read_search(folder / "search.json").trials for folder in (whole, killed))
    assert [one.values for one in first] == [one.values for one in second]
    assert [one.curve for one in first] == [one.curve for one in second]
    logs = [read_log(folder / "trials" / "0000" / "metrics.jsonl") for folder in (whole, killed)]
    assert [row.get("loss") for row in logs[0]] == [row.get("loss") for row in logs[1]]


def test_pruned_trials_spend_less_and_smaller_models_cost_less(searched_set, tmp_path, monkeypatch, no_pages):
    rates = {"optimiser.learning_rate": {"choices": [0.002, 1e-6]}, "size": SIZES}
    told = [f"ranges={json.dumps(rates)}", "pruning={startup_trials: 2, warmup_epochs: 1}", "sampler=random"]
    # Of this seed the first two trials have the rate that learns, and the third has not.
    told += ["seed=2", "trials=3", "overrides.training.validate_every=1", "overrides.data.test=null"]
    told += ["overrides.training.steps=20"]
    assert run(monkeypatch, searched_set / "squares.yaml", *told, "--output", tmp_path) == 0
    result = read_search(tmp_path / "search.json")
    assert [one.state for one in result.trials] == ["complete", "complete", "pruned"]
    whole, _, pruned = result.trials
    assert pruned.compute < whole.compute
    assert len(pruned.curve) < len(whole.curve) == 4
    flops = {one.values["size"]: one.cost.flops for one in result.trials}
    assert flops["narrow"] < flops["wide"]
    assert not (tmp_path / "test.json").exists()
    assert "data.test is not set" in write_search_report(tmp_path).read_text()


def test_a_trial_that_diverges_does_not_end_the_search(searched_set, tmp_path, monkeypatch, no_pages, capsys):
    rates = {"optimiser.learning_rate": {"choices": [1e30, 0.002]}, "optimiser.name": {"choices": ["sgd"]}}
    told = [
        f"ranges={json.dumps(rates)}",
        "overrides.training.steps=6",
        "overrides.optimiser.norm_weight_decay=0.5",
    ]
    told += ["trials=4", "sampler=random", "overrides.data.test=null", "--output", tmp_path]
    assert run(monkeypatch, searched_set / "squares.yaml", *told) == 0
    states = {
        one.values["optimiser.learning_rate"]: one.state
        for one in read_search(tmp_path / "search.json").trials
    }
    assert states == {"1e+30": "failed", "0.002": "complete"}
    assert "failed: step" in capsys.readouterr().err


def test_a_mistake_that_trials_share_ends_the_worker_and_not_the_trials(
    searched_set, tmp_path, monkeypatch, no_pages
):
    told = ["overrides.model.weights=DEFAULT", "overrides.training.tensorboard=true", "trials=1"]
    told += ["overrides.training.steps=2", "overrides.data.test=null", "--output", tmp_path]
    monkeypatch.setattr(WeightsEnum, "get_state_dict", MagicMock(side_effect=OSError("no route to host")))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(WeightsError, match=r"cannot be fetched \(no route to host\)"):
        run(monkeypatch, searched_set / "squares.yaml", *told)
    state = get_model("shufflenet_v2_x0_5", weights=None).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: state)
    with pytest.raises(ConfigError, match="TensorBoard is not installed"):
        run(monkeypatch, searched_set / "squares.yaml", *told)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=MagicMock()))
    assert run(monkeypatch, searched_set / "squares.yaml", *told) == 0
    assert [one.state for one in read_search(tmp_path / "search.json").trials] == ["complete"]


def test_values_that_only_together_are_impossible_fail_the_trial_alone(searched_set):
    file = searched_set / "squares.yaml"
    ranges = {"schedule.warmup_steps": {"low": 0, "high": 20}, "training.steps": {"low": 10, "high": 30}}
    experiment = SearchedExperiment(load_search(file, [f"ranges={json.dumps(ranges)}"]), file)
    values = {"schedule.warmup_steps": 15, "training.steps": 12}
    with pytest.raises(TrialError, match="15 steps of warm-up leave nothing of a run of 12"):
        run_trial(experiment, SimpleNamespace(number=0, values=values))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ranges={loss.gama: {low: 0.1, high: 1.0}}", r"loss.gama = 0.1.*loss.gama: there is no such key"),
        ("ranges={loss.alpha: {low: 0.5, high: 1.5}}", r"loss.alpha = 1.5.*less than or equal to 1, found 1.5"),
        ("ranges={model.backbone: {choices: [resnet18, resnett18]}}", r"backbone = resnett18.*did you mean resnet18"),
        ("ranges={model.levels: {choices: [[3, 4], [3, 4, 5]]}}", r"= \[3, 4, 5\].*anchor_sizes has 2 lists"),
        ("ranges={data.augment: {choices: [[{name: Flap}]]}}", r"data.augment.*Flap"),
        ("ranges={seed: {low: 3, high: 3}}", r"ranges.seed.interval: low \(3\) must be below high \(3\)"),
        ("ranges={loss.gamma: {low: 0, high: 1.0, log: true}}", "log needs a low above 0"),
        ("ranges={loss.gamma: {low: 0.5, high: 2.0, step: 0.4}}", "steps of 0.4 do not reach high"),
        ("ranges={loss.gamma: {choices: [1, '1']}}", "the choice 1 is there more than once, or two read alike"),
        ("ranges={a: {choices: {x: {loss.gamma: 1}}}, loss: {choices: [{gamma: 1}]}}", "a and loss both set"),
        ("ranges={data.val.images: {choices: [images]}}", "data.val must be the same for all trials"),
        ("ranges={model.pyramid_channels: {low: 8, high: 16, step: 0.5}}", r"channels = 8\.0.*valid integer"),
        ("ranges={schedule.warmup_steps: {low: 0, high: 40}}", r"warmup_steps = 40.*nothing of a run of 30"),
        ("ranges={model.weights: {choices: [null, none.pt]}}", r"= none.pt: model.weights: none.pt: is neither"),
        ("overrides.model.weights=none.pt", r"squares.yaml, with tiny.yaml: model.weights: none.pt: is neither"),
        ("metric=mAP", "metric"),
        ("trials=0", "trials"),
        ("overrides.data.test={annotations: none.json, images: images}", "none.json: there is no such file"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_runs(searched_set, tmp_path, monkeypatch, override, message):
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        run(monkeypatch, searched_set / "squares.yaml", override, "--output", output)
    assert not output.exists()


def test_a_metric_that_validation_cannot_measure_stops_the_search(searched_set, tmp_path, monkeypatch):
    told = ["metric=APl", "overrides.training.steps=2", "overrides.data.test=null", "--output", tmp_path]
    with pytest.raises(DataError, match="APl: validation has no objects to measure it on; choose another"):
        run(monkeypatch, searched_set / "squares.yaml", *told)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "search").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_search_of_the_repository_has_ranges_of_its_experiment(path, monkeypatch):
    monkeypatch.setattr(SearchedExperiment, "require_data", lambda self: None)
    monkeypatch.setattr(
        SearchedExperiment,
        "cost_of",
        lambda _, config: (build_training_transform(config), build_anchors(config)),
    )
    experiment = SearchedExperiment(load_search(path), path)
    assert len(experiment.space) == len(experiment.told.ranges)


def test_a_report_needs_a_trial(searched_set, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no trial has begun yet; begin without --report"):
        run(monkeypatch, searched_set / "squares.yaml", "--report", "--output", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()

"""tools/compare.py from its file to the report: equal compute, the same arm under two names, resuming, refusals."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import compare

import detkit
from detkit.builders.comparison import ComparedArms
from detkit.comparison.finished import load_finished, save_finished
from detkit.config import load_comparison, load_config
from detkit.errors import ConfigError, DataError

CROSS_ENTROPY = {"loss.alpha": None, "loss.gamma": 0.0}
MINED = {
    "selection": {"name": "mined", "threshold": 0.001},
    "bootstrap": {
        "rounds": [0.3, 0.6],
        "parts": 2,
        "crops": {"sources": ["train"], "threshold": 0.001, "share": 0.25},
    },
}
ARMS = [
    {"name": "focal"},
    {"name": "focal again", "seeds": [0, 1]},
    {"name": "bootstrapped", "overrides": {**CROSS_ENTROPY, **MINED}},
]


def run(monkeypatch, *arguments):
    """Run the script in this process; the number of threads that it sets is not that of the tests that follow."""
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        return compare.main()
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, write_tiny_config):
    """A comparison's file, and its output and work folders."""
    folder = tmp_path_factory.mktemp("comparison")
    write_tiny_config(folder)
    tree = {
        "title": "Squares",
        "output": str(folder / "results"),
        "experiment": "tiny.yaml",
        "overrides": {"training.steps": 20, "data.workers": 0, "postprocess.score_threshold": 0.001},
        "arms": ARMS,
        "seeds": [0, 1],
        "splits": ["val"],
        "resamples": 120,
        "pictures": 2,
        "gallery": 3,
    }
    (folder / "squares.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module")
def results(comparison):
    """The folder of a comparison that was left alone."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(monkeypatch, comparison / "squares.yaml", "--work", comparison / "work") == 0
    return comparison / "results"


@pytest.fixture(scope="module")
def tree(results):
    return json.loads((results / "results.json").read_text())


def test_every_file_that_people_read_is_there(results):
    report = (results / "report.html").read_text()
    assert "Squares" in report
    assert "bootstrapped" in report
    assert (results / "table.md").read_text().startswith("## Squares")
    stored = load_comparison(results / "comparison.yaml")
    assert stored.title == "Squares"
    assert load_config(results / stored.experiment).training.steps == 20
    assert len(list((results / "pictures").iterdir())) == 2
    assert len(list((results / "crops").glob("bootstrapped-*.jpg"))) == 2 * 3
    assert len(list((results / "finished").iterdir())) == 6


def test_an_arm_under_two_names_shows_no_difference(tree):
    """The same seed gives the same numbers, run for run and in every metric."""
    first, second = (
        next(arm for arm in tree["arms"] if arm["name"] == name) for name in ("focal", "focal again")
    )
    for one, other in zip(first["runs"], second["runs"], strict=True):
        assert one["metrics"] == other["metrics"]
        assert one["learning"] == other["learning"]
    differences = [
        one for one in tree["differences"] if {one["first"], one["second"]} == {"focal", "focal again"}
    ]
    assert differences
    for one in differences:
        assert not one["shown"]
        assert one["value"] in (0, None)


def test_seeds_differ(tree):
    first, second = tree["arms"][0]["runs"]
    assert first["metrics"] != second["metrics"]


def test_scans_are_paid_with_steps(tree, comparison):
    """20 steps of 4 images of 64 x 64 are the budget; both rounds scan 11 of the 22 training images."""
    step, scan = 3 * 4 * 64 * 64, 11 * 64 * 64
    arms = {arm["name"]: arm for arm in tree["arms"]}
    for run in arms["focal"]["runs"]:
        assert run["compute"] == {"training": 20 * step, "mining": 0}
    # 18 steps and a third are left for training. A quarter of each of the first five is saved, which pays for 19.
    for run in arms["bootstrapped"]["runs"]:
        # One of the four images of a step is a canvas, as soon as there are crops: after the first round, step 6.
        assert run["compute"] == {"training": (6 * 3 / 4 + 13) * step, "mining": 2 * scan}
        assert sum(run["compute"].values()) <= 20 * step
        assert [one["number"] for one in run["rounds"]] == [1, 2]
        assert run["learning"][-1]["compute"] == sum(run["compute"].values())


def test_nothing_tells_where_somebody_keeps_the_data(results, comparison, tiny_coco):
    for name in ("results.json", "report.html", "table.md"):
        assert str(tiny_coco) not in (results / name).read_text()
    for file in (results / "finished").iterdir():
        assert str(tiny_coco) not in json.dumps(load_finished(file)[1])


def test_what_is_finished_is_not_made_again(results, comparison, monkeypatch, capsys):
    before = {file.name: os.stat(file).st_mtime_ns for file in (results / "finished").iterdir()}
    report = (results / "results.json").read_bytes()
    assert run(monkeypatch, comparison / "squares.yaml", "--work", comparison / "nowhere") == 0
    assert {file.name: os.stat(file).st_mtime_ns for file in (results / "finished").iterdir()} == before
    assert (results / "results.json").read_bytes() == report
    assert "epoch" not in capsys.readouterr().out


def test_a_report_is_made_only_of_what_the_configuration_says(results, comparison, monkeypatch):
    command = (comparison / "squares.yaml", "--work", comparison / "nowhere", "--report")
    with pytest.raises(
        DataError, match=r"focal-0\.npz: was made with another configuration \(loss.gamma was 2.0"
    ):
        run(monkeypatch, *command, "overrides.loss.gamma=3.0")
    with pytest.raises(DataError, match="no run is finished yet"):
        run(monkeypatch, *command, f"output={comparison / 'empty'}")


def test_a_diverging_run_does_not_keep_the_others_from_being_made(comparison, tmp_path, monkeypatch, capsys):
    arms = [
        {"name": "fast", "overrides": {"optimiser": {"name": "sgd", "learning_rate": 1e30}}},
        {"name": "slow"},
    ]
    command = (comparison / "squares.yaml", f"output={tmp_path}", "--work", tmp_path / "work", "--seeds", "1")
    command += (
        f"arms={json.dumps(arms)}",
        "overrides.training.steps=6",
        "overrides.optimiser.norm_weight_decay=0.5",
    )
    assert run(monkeypatch, *command) == 1
    assert "fast, seed 1: step" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "finished").iterdir()] == ["slow-1.npz"]
    identity = load_finished(tmp_path / "finished" / "slow-1.npz")[1]
    assert (identity["precision"], identity["device"]) == ("float32", "cpu")
    assert run(monkeypatch, *command, "--report") == 0
    tree = json.loads((tmp_path / "results.json").read_text())
    assert "learning_rate: 0.002" in tree["arms"][0]["config"]
    # An arm whose runs fail must not vanish, and neither may seeds that were not asked for.
    assert tree["missing"] == [
        {"arm": arm, "seed": seed} for arm, seed in (("fast", 0), ("slow", 0), ("fast", 1))
    ]
    missing = "are not in these numbers: fast (seeds 0, 1) and slow (seed 0)."
    assert missing in tree["verdict"][0]
    assert missing in " ".join((tmp_path / "report.html").read_text().split())


def test_a_run_goes_on_only_as_what_it_was_begun_as(comparison, tmp_path, monkeypatch):
    """A checkpoint knows its configuration, but not the labels."""
    told = load_comparison(
        comparison / "squares.yaml", ["arms=[{name: a}]", "seeds=[0]", f"output={tmp_path}"]
    )
    arms = ComparedArms(told, comparison / "squares.yaml", tmp_path / "work")
    (planned,) = arms.plan()
    arms.make(planned)
    corrected = replace(planned, identity={**planned.identity, "annotations": ["0" * 16]})
    with pytest.raises(
        DataError, match=r"was begun with another annotations .* remove the folder to begin this run"
    ):
        arms.make(corrected)
    monkeypatch.setattr("detkit.builders.comparison.train", lambda config: None)
    assert arms.make(planned) is None


def test_images_of_a_group_are_resampled_together(comparison, tiny_coco, tmp_path, monkeypatch):
    command = (comparison / "squares.yaml", f"output={tmp_path}", "--work", tmp_path / "work", "groups=video")
    command += ("arms=[{name: a}]", "seeds=[0]", "overrides.training.steps=6")
    with pytest.raises(
        DataError, match=r"val.json: an image has no 'video'; mend the file, or leave groups out"
    ):
        run(monkeypatch, *command)
    data = shutil.copytree(tiny_coco, tmp_path / "data")
    tree = json.loads((data / "val.json").read_text())
    for place, image in enumerate(tree["images"]):
        image["video"] = f"film {place // 3}"
    (data / "val.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="'video' has 3 values in these splits; intervals from fewer than 10"):
        run(monkeypatch, *command, "--data-root", data)
    assert not (tmp_path / "work").exists(), "trained before it was refused"
    monkeypatch.setattr("detkit.builders.comparison.LEAST_GROUPS", 3)
    assert run(monkeypatch, *command, "--data-root", data) == 0
    assert json.loads((tmp_path / "results.json").read_text())["resampling"]["groups"] == 3
    assert "3 groups of images that are alike" in " ".join((tmp_path / "report.html").read_text().split())


def test_the_pools_photographs_can_be_left_out_afterwards(results, comparison, monkeypatch, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    file = tmp_path / "results" / "finished" / "bootstrapped-0.npz"
    finished, identity = load_finished(file)
    hardest = [replace(crop, of_pool=place == 0) for place, crop in enumerate(finished.hardest)]
    save_finished(file, replace(finished, hardest=hardest), identity)
    command = (comparison / "squares.yaml", f"output={tmp_path / 'results'}", "--report", "--work", tmp_path)

    def shown():
        tree = json.loads((tmp_path / "results" / "results.json").read_text())
        return len(tree["arms"][2]["runs"][0]["hardest"])

    assert run(monkeypatch, *command) == 0
    assert shown() == 3
    assert run(monkeypatch, *command, "show_pool=false") == 0
    assert shown() == 2


def test_what_runs_were_made_with_is_told(tree):
    assert re.fullmatch(
        rf"{re.escape(detkit.__version__)} \(sources [0-9a-f]{{8}}\)", tree["versions"]["detkit"]
    )
    assert {"torch", "torchvision", "numpy", "albumentations"} < set(tree["versions"])
    assert tree["splits"] == ["val"]


def test_an_override_of_a_section_leaves_its_other_keys(comparison, tmp_path):
    told = load_comparison(
        comparison / "squares.yaml",
        [
            "arms=[{name: a, overrides: {optimiser: {name: adam, learning_rate: 1.0}, selection: {name: all}}}]"
        ],
    )
    arms = ComparedArms(told, comparison / "squares.yaml", tmp_path)
    config = arms.config(told.arms[0], 3)
    assert (config.optimiser.name, config.optimiser.learning_rate) == ("adam", 1.0)
    assert config.optimiser.weight_decay == 0.01
    assert (config.seed, config.training.steps) == (3, 20)


def test_a_stopped_run_goes_on_and_gives_the_same(results, comparison, tmp_path, monkeypatch):
    from detkit.training.learner import Learner

    take_step = Learner.step
    command = (comparison / "squares.yaml", f"output={tmp_path}", "--work", tmp_path / "work", "seeds=[0]")

    def killed(self, batches, step, observe=None):
        if step == 11:
            raise SystemError("killed")
        return take_step(self, batches, step, observe)

    arms = [ARMS[2]]
    command += (f"arms={json.dumps(arms)}",)
    monkeypatch.setattr(Learner, "step", killed)
    with pytest.raises(SystemError):
        run(monkeypatch, *command)
    monkeypatch.setattr(Learner, "step", take_step)
    assert run(monkeypatch, *command) == 0
    runs = [load_finished(folder / "finished" / "bootstrapped-0.npz")[0] for folder in (tmp_path, results)]
    for name in ("image_ids", "boxes", "scores", "category_ids"):
        first, second = (getattr(one.detections, name) for one in runs)
        assert (first == second).all()
    assert runs[0].compute == runs[1].compute
    assert runs[0].rounds == runs[1].rounds


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=[0,0]", "seeds: 0 is there more than once"),
        ("arms=[{name: a},{name: a}]", "arms: the name 'a' is there more than once"),
        ("arms=[{name: A 1},{name: a-1}]", "another arm's files would be called a-1 too"),
        ("arms=[{name: a, overrides: {loss.gama: 2}}]", "arm 'a'.*gama: there is no such key"),
        ("splits=[train]", "splits"),
        ("arms=[{name: a, seeds: [0]},{name: b, seeds: [1]}]", "'a' and 'b' have no seed in common"),
        ('arms=[{name: "a\\u0007b"}]', "has a character that cannot be printed"),
        (
            "arms=[{name: a, overrides: {bootstrap: {crops: {sources: [train]}, lost_recall: 0.1}}}]",
            "arm 'a': bootstrap.lost_recall: rounds would be undone by what the verdict is read on",
        ),
        ("resamples=100", "resamples: 100 can show no difference among 3 pairs of arms; take 120 or more"),
        ("experiment=none.yaml", "none.yaml: cannot be read"),
    ],
)
def test_mistakes_are_told_before_anything_runs(comparison, tmp_path, monkeypatch, override, message):
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        run(monkeypatch, comparison / "squares.yaml", override, f"output={tmp_path}", "--work", tmp_path)


def test_scans_that_cost_more_than_the_budget_are_refused(comparison, tmp_path, monkeypatch):
    arms = [{"name": "a", "overrides": {**MINED, "training.batch_size": 4, "bootstrap.parts": 1}}]
    with pytest.raises(
        ConfigError, match="take fewer rounds, divide the pool into more parts, or train for longer"
    ):
        run(
            monkeypatch, comparison / "squares.yaml", f"arms={json.dumps(arms)}", "overrides.training.steps=4",
            f"output={tmp_path}", "--work", tmp_path, "overrides.schedule.warmup_steps=1",
        )  # fmt: skip


def test_seeds_that_no_arm_has(comparison, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--seeds: no arm has these; there are \[0, 1\]"):
        run(
            monkeypatch, comparison / "squares.yaml", f"output={tmp_path}", "--work", tmp_path, "--seeds", "7"
        )

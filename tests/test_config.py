"""The schema refuses what cannot be run, says all of it at once, and the repository's configs are complete."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import yaml

from detkit.bootstrap.settings import BootstrapSettings
from detkit.builders.rounds import bootstrap_settings
from detkit.config import Config, Metric, dump_config, load_config, parse_config
from detkit.errors import ConfigError
from detkit.evaluation import METRIC_NAMES
from detkit.mining.settings import MiningSettings

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))

SMALLEST = """
output: runs/x
data:
  root: data
  train: {annotations: train.json, images: images}
  val: {annotations: val.json, images: images}
  resize: {shorter: 64, longest: 64}
model:
  levels: [3, 4]
  anchor_sizes: [[32], [64]]
"""


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(SMALLEST)
    return path


def keys(tree, prefix=""):
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_valid_and_complete(path):
    config = load_config(path)
    written = yaml.safe_load(path.read_text())
    whole = config.model_dump(mode="json")
    missing = set(keys(whole)) - set(keys(written))
    # Inside null sections there is nothing to write.
    assert not missing, f"{path.name} leaves out {sorted(missing)}: what you read must be what runs"


def test_there_are_configs():
    names = {path.stem for path in CONFIGS}
    wanted = {"demo", "drone-visible", "bloodcells", "bloodcells-sparse", "dice", "coco-r50", "coco-r50-v2"}
    assert wanted <= names


def test_all_mistakes_are_reported_at_once_with_full_names(smallest):
    overrides = [
        "optimiser.learning_rate=fast",
        "optimizer.momentum=0.9",
        "training.epochs=0",
        "loss.gamma=-1",
        "data.train.image=x",
        "model.mean=[1, 2]",
        "seed=true",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(smallest, overrides)
    message = str(caught.value)
    for line in (
        "7 mistake(s)",
        "optimiser.learning_rate: input should be a valid number, found 'fast'",
        "optimizer: there is no such key",
        "training.epochs: input should be greater than or equal to 1, found 0",
        "loss.gamma: input should be greater than or equal to 0, found -1",
        "data.train.image: there is no such key",
        "model.mean: list should have at least 3 items",
        "seed: input should be a valid integer, found True",
    ):
        assert line in message


def test_missing_sections_are_named(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("output: x\n")
    with pytest.raises(ConfigError, match=r"(?s)data: is missing.*model: is missing"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.levels=[3, 5]", "levels must be consecutive"),
        ("model.anchor_sizes=[[1]]", "anchor_sizes has 1 lists for 2 levels"),
        ("model.anchor_sizes=[[1], [2, 3]]", "same number of sizes on every level"),
        ("data.resize.shorter=8", "data.resize.shorter: must be a whole number of at least 16"),
        ("data.resize.shorter=[64, 100]", r"data.resize: shorter \(100\) must not exceed longest \(64\)"),
        ("matcher.background_iou=0", "greater than 0"),
        ("matcher.background_iou=0.6", "must not exceed foreground_iou"),
        ("loss.alpha=.nan", "less than or equal to 1|finite"),
        ("optimiser.learning_rate=.inf", "finite"),
    ],
)
def test_impossible_values(smallest, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(smallest, [override])


BACKGROUND = "data.background={images: empty, state: verified-empty, share: 0.25}"
MINED = "selection={name: mined}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([MINED], r"selection mined needs rounds of bootstrapping; add bootstrap=\{\}"),
        (
            ["bootstrap={}"],
            "bootstrap has nothing to mine; take the selection mined, or give bootstrap.crops",
        ),
        (
            [MINED, "bootstrap={crops: {}}"],
            "bootstrap.crops.sources has pool, but there is no data.background",
        ),
        (["bootstrap.crops.sources=[train, pool]"], "sources has pool, but there is no data.background"),
        (["bootstrap.crops.sources=[]"], "bootstrap.crops.sources: list should have at least 1 item"),
        (
            ["bootstrap.crops={sources: [val]}"],
            r"bootstrap\.crops\.sources\.0: input should be 'pool' or 'train'",
        ),
        ([MINED, "bootstrap.rounds=[0.5, 1.0]"], r"bootstrap\.rounds\.1: input should be less than 1"),
        ([MINED, "bootstrap.start=cold"], r"bootstrap\.start: input should be 'warm' or 'scratch'"),
        (
            [MINED, "bootstrap.lost_recall=2"],
            r"bootstrap\.lost_recall: input should be less than or equal to 1",
        ),
        (["data.background={images: empty, share: 0.5}"], r"data\.background\.state: is missing"),
        ([BACKGROUND, "data.background.share=1.0"], r"data\.background\.share: input should be less than 1"),
    ],
)
def test_bootstrapping_that_cannot_be(smallest, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(smallest, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [MINED, "bootstrap={}"],
        ["bootstrap={crops: {sources: [train]}}"],
        [MINED, BACKGROUND, "bootstrap={crops: {sources: [pool, train], threshold: 0.3}}"],
    ],
    ids=["regions", "crops", "both"],
)
def test_each_kind_of_mining_can_be_had_alone(smallest, overrides):
    config = load_config(smallest, overrides)
    assert parse_config(config.model_dump(mode="json"), source="checkpoint") == config


def test_exponents_without_a_point_are_numbers(smallest):
    text = smallest.read_text() + "optimiser: {learning_rate: 1e-3, weight_decay: 5E-4}\n"
    smallest.write_text(text)
    config = load_config(smallest)
    assert (config.optimiser.learning_rate, config.optimiser.weight_decay) == (1e-3, 5e-4)
    assert load_config(smallest, ["optimiser.learning_rate=1e-4"]).optimiser.learning_rate == 1e-4


def test_a_key_given_twice_is_refused(smallest):
    smallest.write_text(smallest.read_text() + "seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="'seed' is given twice"):
        load_config(smallest)


def test_overrides_set_any_key_and_the_last_wins(smallest):
    config = load_config(
        smallest,
        [
            "training.early_stopping.patience=3",
            "seed=1",
            "seed=2",
            "data.augment=[{name: HorizontalFlip, p: 0.5}]",
        ],
    )
    assert config.training.early_stopping.patience == 3
    assert config.seed == 2
    assert config.data.augment == [{"name": "HorizontalFlip", "p": 0.5}]


def test_an_output_is_taken_as_it_is(smallest):
    assert load_config(smallest, output="runs/a #1").output == "runs/a #1"
    assert load_config(smallest, output="123").output == "123"


def test_the_metric_names_are_those_of_evaluation():
    assert get_args(Metric) == METRIC_NAMES


@pytest.mark.parametrize("override", ["seed", "=1", "seed.x=1", "model={[1]: 2}"])
def test_an_override_that_cannot_be_understood(smallest, override):
    with pytest.raises(ConfigError, match=r"section\.key=value|no keys of its own|not YAML"):
        load_config(smallest, ["seed=1", override])


def test_data_root_comes_from_flag_then_file_then_environment(smallest, monkeypatch):
    monkeypatch.setenv("DETKIT_DATA_ROOT", "from-environment")
    assert load_config(smallest).data.root == "data"
    assert load_config(smallest, data_root="from-flag").data.root == "from-flag"
    assert load_config(smallest, ["data.root=null"]).data.root == "from-environment"


def test_a_dumped_config_reads_back_the_same(smallest, tmp_path):
    config = load_config(smallest)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config
    assert parse_config(config.model_dump(mode="json"), source="checkpoint") == config


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")
    path = tmp_path / "x.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="holds list"):
        load_config(path)
    path.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(path)


def test_the_defaults_are_frozen(smallest):
    config = load_config(smallest)
    assert isinstance(config, Config)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_bootstrapping_that_is_told_nothing_does_what_its_own_defaults_say(tiny_config):
    config = load_config(tiny_config, ["selection={name: mined}", "bootstrap={crops: {sources: [train]}}"])
    assert bootstrap_settings(config) == BootstrapSettings()
    own = {field.name: field.default for field in fields(MiningSettings)}
    crops = config.bootstrap.crops.model_dump()
    same = own.keys() & crops.keys()
    assert {"per_image", "per_round", "context", "least_side", "quarantine_score"} <= same
    assert {name: crops[name] for name in same} == {name: own[name] for name in same}

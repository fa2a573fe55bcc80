"""What the arms of a comparison share: detector, data, order and augmentation, whatever each selects and weighs."""

from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml

from detkit.builders import build_run
from detkit.builders.comparison import ComparedArms
from detkit.config import load_comparison
from detkit.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "compare"
CROSS_ENTROPY = {"loss.alpha": None, "loss.gamma": 0.0}
CROPS = {"crops": {"sources": ["pool"], "share": 0.25}, "rounds": [0.5]}
ARMS = {
    "cross entropy": CROSS_ENTROPY,
    "focal": {},
    "random": {**CROSS_ENTROPY, "selection": {"name": "random", "ratio": 3.0, "minimum": 16}},
    "ohem": {**CROSS_ENTROPY, "selection": {"name": "ohem", "budget": 16, "nms_iou": 0.7, "shortlist": 50}},
    "regions": {**CROSS_ENTROPY, "selection": {"name": "mined"}, "bootstrap": {"rounds": [0.5]}},
    "both kinds": {**CROSS_ENTROPY, "selection": {"name": "mined"}, "bootstrap": CROPS},
}


@pytest.fixture
def arms(tmp_path, write_tiny_config, coco_with_background):
    """Makes the arms of a comparison of the tiny data set with its background, from their overrides by name."""

    def make(overrides) -> ComparedArms:
        write_tiny_config(tmp_path)
        tree = {
            "title": "Squares",
            "output": str(tmp_path / "results"),
            "experiment": "tiny.yaml",
            "overrides": {
                "data.root": str(coco_with_background),
                "data.background": {"images": "background", "state": "verified-empty", "share": 0.5},
                "data.augment": [{"name": "RandomBrightnessContrast", "p": 1.0}],
                "training.steps": 20,
                "data.workers": 0,
            },
            "arms": [{"name": name, "overrides": told} for name, told in overrides.items()],
            "seeds": [3],
            "splits": ["val"],
        }
        (tmp_path / "squares.yaml").write_text(yaml.safe_dump(tree))
        comparison = load_comparison(tmp_path / "squares.yaml")
        return ComparedArms(comparison, tmp_path / "squares.yaml", tmp_path / "work")

    return make


def test_all_arms_begin_with_the_same_weights_and_see_the_same_images_and_pool(arms):
    made = arms(ARMS)
    runs = [build_run(made.config(arm, seed=3)) for arm in made.comparison.arms]
    states = [run.learner.model.state_dict() for run in runs]
    for state in states[1:]:
        assert all(torch.equal(value, state[name]) for name, value in states[0].items())
    batches = [list(islice(run.batches_from(0), 6)) for run in runs]
    for steps in zip(*batches, strict=True):
        (images, _), *others = steps
        assert sum("background" in name for name in images.file_names) == 2
        for other, _ in others:
            assert other.file_names == images.file_names
            assert torch.equal(other.pixels, images.pixels)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"data.background": {"images": "background", "state": "verified-empty", "share": 0.25}}, "background.share"),
        ({"data.background": None}, "data.background"),
        ({"data.augment": []}, "data.augment"),
        ({"model.backbone": "resnet34"}, "model.backbone"),
        ({"postprocess.score_threshold": 0.3}, "postprocess.score_threshold"),
        ({"matcher.foreground_iou": 0.6}, "matcher.foreground_iou"),
        ({"training.batch_size": 2}, "training.batch_size"),
    ],
)  # fmt: skip
def test_an_arm_with_another_detector_or_other_data_is_refused(arms, overrides, key):
    with pytest.raises(ConfigError, match=rf"arm 'other': .*{key}.*: arms are compared on the same detector"):
        arms({"focal": {}, "other": overrides})


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_comparison_that_comes_with_detkit_can_be_made(file):
    arms = ComparedArms(load_comparison(file), file, Path("work"))
    assert {"cross entropy", "focal", "bootstrapped"} <= {arm.name for arm in arms.comparison.arms}

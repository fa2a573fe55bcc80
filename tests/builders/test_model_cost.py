"""What a model costs, counted without computing, is what computing it costs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detkit.builders import build_model
from detkit.builders.model_cost import ModelCosts
from detkit.config import load_config
from detkit.errors import ConfigError
from detkit.structures import ImageBatch


@pytest.fixture
def costs(tiny_coco):
    return ModelCosts(tiny_coco / "val.json")


def test_it_is_that_of_a_real_pass(costs, tiny_config):
    config = load_config(tiny_config, ["data.resize={shorter: 80, longest: 80}"])
    cost = costs.of(config)
    model = build_model(config, ["bright", "dark"]).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.dense(ImageBatch(torch.zeros(1, 3, 80, 80), ((80, 80),), ((80, 80),)))
    assert cost.flops == counter.get_total_flops() > 0
    assert cost.parameters == sum(one.numel() for one in model.parameters())
    assert (cost.height, cost.width) == (80, 80)


def test_a_canvas_divides_by_the_stride(costs, tiny_config):
    config = load_config(tiny_config, ["data.resize={shorter: 70, longest: 70}"])
    cost = costs.of(config)
    assert cost.height == cost.width == 80


def test_a_larger_image_and_a_wider_pyramid_cost_more(costs, tiny_config):
    plain = costs.of(load_config(tiny_config))
    wider = costs.of(load_config(tiny_config, ["model.pyramid_channels=32"]))
    larger = costs.of(load_config(tiny_config, ["data.resize={shorter: 128, longest: 128}"]))
    assert wider.flops > plain.flops
    assert wider.parameters > plain.parameters
    assert larger.flops == 4 * plain.flops
    assert larger.parameters == plain.parameters


def test_what_cannot_be_built_is_refused(costs, tiny_config):
    with pytest.raises(ConfigError, match="no classification network"):
        costs.of(load_config(tiny_config, ["model.backbone=nothing"]))

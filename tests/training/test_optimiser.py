"""Which parameter gets which rate and decay, and that each optimiser is the one asked for."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from detkit.models.convolution import use_fast_convolutions
from detkit.training.averaging import moving_average
from detkit.training.optimiser import build_optimiser


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 1, 1))


def settings_by_name(model, optimiser):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }


def test_groups_by_rate_and_decay():
    model = Net()
    optimiser = build_optimiser(
        model, "sgd", learning_rate=0.1, backbone_rate=0.5, weight_decay=0.01, norm_weight_decay=0.0
    )
    assert settings_by_name(model, optimiser) == {
        "backbone.body.0.weight": (0.05, 0.01),
        "backbone.body.0.bias": (0.05, 0.0),
        "backbone.body.1.weight": (0.05, 0.0),
        "backbone.body.1.bias": (0.05, 0.0),
        "head.0.weight": (0.1, 0.01),
        "head.0.bias": (0.1, 0.0),
        "head.1.weight": (0.1, 0.0),
        "head.1.bias": (0.1, 0.0),
        "head.2.weight": (0.1, 0.01),
        "head.2.bias": (0.1, 0.0),
    }


def test_one_decay_for_all_by_default():
    model = Net()
    optimiser = build_optimiser(model, "sgd", learning_rate=0.1, weight_decay=0.02)
    assert {decay for _, decay in settings_by_name(model, optimiser).values()} == {0.02}


def test_a_backbone_of_rate_zero_is_frozen():
    model = Net()
    optimiser = build_optimiser(model, "adamw", learning_rate=0.1, backbone_rate=0)
    assert all(name.startswith("head.") for name in settings_by_name(model, optimiser))
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize(
    ("name", "kind", "key", "value"),
    [
        ("sgd", torch.optim.SGD, "momentum", 0.8),
        ("rmsprop", torch.optim.RMSprop, "momentum", 0.8),
        ("adam", torch.optim.Adam, "betas", (0.8, 0.999)),
        ("adamw", torch.optim.AdamW, "betas", (0.8, 0.999)),
    ],
)
def test_kinds(name, kind, key, value):
    optimiser = build_optimiser(Net(), name, learning_rate=0.1, momentum=0.8)
    assert type(optimiser) is kind
    assert all(group[key] == value for group in optimiser.param_groups)


@pytest.mark.parametrize(
    ("name", "plain_optimiser"),
    [
        ("sgd", partial(torch.optim.SGD, momentum=0.9)),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_a_fused_step_is_that_of_the_plain_loop(name, plain_optimiser, monkeypatch):
    """Fused optimisers take for granted that weight and gradient lie alike; in channels_last memory too they do."""
    # Without AVX-512 the first convolution is Winograd's.
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 8, 3)).to(
        memory_format=torch.channels_last
    )
    use_fast_convolutions(model)
    plain = copy.deepcopy(model)
    optimiser = build_optimiser(model, name, learning_rate=1e-3, weight_decay=0.01)
    expected = plain_optimiser(plain.parameters(), lr=1e-3, weight_decay=0.01, foreach=False)
    images = torch.rand(4, 64, 20, 20).to(memory_format=torch.channels_last)
    for _ in range(3):
        for each, stepper in ((model, optimiser), (plain, expected)):
            stepper.zero_grad()
            each(images).square().mean().backward()
            stepper.step()
    assert optimiser.defaults["fused"]
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_moving_average_starts_at_the_first_weights_and_approaches_the_last():
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, decay=0.9)
    expected = None
    for step, value in enumerate([1.0, 2.0, 3.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected)

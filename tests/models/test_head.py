"""The heads: where their outputs lie in memory, and what they say before training."""

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from detkit.models import RetinaNetHead


def conv_output(head: RetinaNetHead, features: torch.Tensor) -> torch.Tensor:
    return head.classification_head(features)


def test_outputs_are_views_in_channels_last_memory() -> None:
    head = RetinaNetHead(16, 6, 5, depth=1).to(memory_format=torch.channels_last)
    written = {}
    for name, layer in (
        ("logits", head.classification_head.cls_logits),
        ("deltas", head.regression_head.bbox_reg),
    ):
        layer.register_forward_hook(lambda module, inputs, output, name=name: written.update({name: output}))
    logits, deltas = head([torch.rand(2, 16, 8, 12).to(memory_format=torch.channels_last)])
    assert logits[0].shape == (2, 8 * 12 * 6, 5)
    assert deltas[0].shape == (2, 8 * 12 * 6, 4)
    assert logits[0].data_ptr() == written["logits"].data_ptr()
    assert deltas[0].data_ptr() == written["deltas"].data_ptr()


def test_anchor_and_class_order() -> None:
    """Row (y, x, a) and column k come from channel a * K + k at (y, x)."""
    head = RetinaNetHead(4, 3, 5, depth=0)
    features = torch.rand(2, 4, 3, 7)
    raw = conv_output(head, features)
    logits = head([features])[0][0]
    for image, y, x, a, k in [(0, 0, 0, 0, 0), (1, 2, 6, 2, 4), (0, 1, 3, 1, 2), (1, 2, 0, 0, 3)]:
        assert logits[image, (y * 7 + x) * 3 + a, k] == raw[image, a * 5 + k, y, x]


@pytest.mark.parametrize("prior", [0.01, 0.1])
def test_prior_is_the_mean_probability_before_training(prior: float) -> None:
    torch.manual_seed(0)
    head = RetinaNetHead(64, 9, 20, prior=prior)
    logits, _ = head([torch.randn(1, 64, 16, 16)])
    assert logits[0].sigmoid().mean().item() == pytest.approx(prior, rel=0.05)


def test_prior_keeps_the_loss_of_an_empty_image_small() -> None:
    """Without the prior the background alone drowns everything else (focal loss paper, section 3.3)."""
    torch.manual_seed(0)
    features = [torch.randn(1, 64, 32, 32)]
    losses = {}
    for prior in (0.01, 0.5):
        logits, _ = RetinaNetHead(64, 9, 10, prior=prior)(features)
        losses[prior] = sigmoid_focal_loss(logits[0], torch.zeros_like(logits[0]), reduction="sum").item()
    assert losses[0.01] < 1
    assert losses[0.5] > 10_000 * losses[0.01]


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "leaky_relu", "hardswish"])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_norms_and_activations_train(norm: str, activation: str) -> None:
    head = RetinaNetHead(48, 2, 3, depth=2, norm=norm, activation=activation)
    logits, deltas = head([torch.randn(1, 48, 4, 4)])
    (logits[0].sum() + deltas[0].sum()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    names = {"conv.0.0.weight", "conv.1.0.weight", "cls_logits.weight", "cls_logits.bias"}
    names |= {"conv.0.1.weight"} if norm == "group" else {"conv.0.0.bias"}
    assert names <= set(head.classification_head.state_dict())


def test_dropout_acts_in_training_alone() -> None:
    head = RetinaNetHead(16, 2, 3, depth=1, dropout=0.5)
    features = [torch.randn(1, 16, 8, 8)]
    assert not torch.equal(head(features)[0][0], head(features)[0][0])
    head.eval()
    assert torch.equal(head(features)[0][0], head(features)[0][0])
    assert set(head.state_dict()) == set(RetinaNetHead(16, 2, 3, depth=1).state_dict())

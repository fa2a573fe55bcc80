"""Winograd's convolutions against torch's in float64: values, gradients, and when they stand back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detkit.models import convolution, retinanet
from detkit.models.convolution import WinogradConv2d, convolve, use_winograd, weight_gradient


@pytest.fixture(autouse=True)
def no_avx512(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def channels_last(*shape: int, seed: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last)


def layer(inputs: int, outputs: int, *, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The same convolution as torch's own and as Winograd's."""
    torch.manual_seed(0)
    plain = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_winograd(fast)
    assert type(fast) is WinogradConv2d
    return plain, fast


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((8, 64, 12, 12), 64),
        ((3, 64, 17, 23), 96),
        ((1, 80, 33, 32), 64),
        ((40, 64, 5, 6), 64),
        ((300, 64, 1, 2), 64),
    ],
)
def test_values_and_gradients_equal_torchs_in_float64(shape, outputs, bias):
    plain, fast = layer(shape[1], outputs, bias=bias)
    images = channels_last(*shape, seed=1).requires_grad_()
    gradient = channels_last(shape[0], outputs, *shape[2:], seed=2)
    found = fast(images)
    assert type(found.grad_fn).__name__ == "_ConvolutionBackward"
    assert found.is_contiguous(memory_format=torch.channels_last)
    leaves = [images, *fast.parameters()]
    exact_images = images.detach().double().requires_grad_()
    plain.double()
    expected = plain(exact_images)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    expected_gradients = torch.autograd.grad(expected, [exact_images, *plain.parameters()], gradient.double())
    for mine, exact in zip(torch.autograd.grad(found, leaves, gradient), expected_gradients, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


def test_parts_of_a_batch_add_up(monkeypatch):
    images, gradient = channels_last(7, 8, 6, 6, seed=1), channels_last(7, 9, 6, 6, seed=2)
    weight = channels_last(9, 8, 3, 3, seed=3)
    whole = convolve(images, weight), weight_gradient(images, gradient)
    monkeypatch.setattr(convolution, "VALUES_PER_THREAD", 1)
    one_by_one = convolve(images, weight), weight_gradient(images, gradient)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(whole[0], F.conv2d(images, weight, padding=1), rtol=1e-4, atol=1e-4)


def test_it_repeats_to_the_bit():
    images, gradient = channels_last(3, 64, 21, 22, seed=1), channels_last(3, 96, 21, 22, seed=2)
    weight = channels_last(96, 64, 3, 3, seed=3)
    first = convolve(images, weight), weight_gradient(images, gradient)
    shift = torch.empty(images.numel() + 5)[5:].view(3, 21, 22, 64).permute(0, 3, 1, 2).copy_(images)
    again = convolve(shift, weight), weight_gradient(shift, gradient)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_only_gradients_that_are_asked_for_are_computed(monkeypatch):
    _, fast = layer(64, 64)
    images = channels_last(8, 64, 12, 12, seed=1)
    fast.weight.requires_grad_(False)
    monkeypatch.setattr(convolution, "weight_gradient", lambda *_: pytest.fail("the weight is frozen"))
    fast(images.requires_grad_()).sum().backward()
    assert images.grad is not None
    assert fast.weight.grad is None


def test_an_activation_in_place_may_follow():
    plain, fast = layer(64, 64)
    images = channels_last(2, 64, 23, 23, seed=1)
    plain(images).relu_().sum().backward()
    fast(images).relu_().sum().backward()
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "images",
    [
        channels_last(1, 64, 20, 20, seed=1),
        channels_last(8, 64, 12, 12, seed=1).contiguous(),
        channels_last(8, 64, 12, 12, seed=1).double(),
    ],
    ids=["small", "contiguous", "float64"],
)
def test_elsewhere_it_is_torchs_convolution_to_the_bit(images):
    plain, fast = layer(64, 64)
    plain.to(images.dtype), fast.to(images.dtype)
    found = fast(images)
    assert torch.equal(found, plain(images))
    assert type(found.grad_fn).__name__ == "ConvolutionBackward0"


def test_with_avx512_it_is_torchs_convolution_to_the_bit(monkeypatch):
    plain, fast = layer(64, 64)
    images = channels_last(8, 64, 12, 12, seed=1)
    assert not torch.equal(fast(images), plain(images))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert torch.equal(fast(images), plain(images))


def test_under_autocast_it_computes_in_half_precision():
    _, fast = layer(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(channels_last(8, 64, 12, 12, seed=1)).dtype == torch.bfloat16


def test_without_gradients_values_are_the_same():
    _, fast = layer(64, 64)
    images = channels_last(8, 64, 12, 12, seed=1)
    with torch.inference_mode():
        found = fast(images)
    assert torch.equal(found, fast(images))


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 36, 3, padding=1),
        nn.ConvTranspose2d(64, 64, 3, padding=1),
    ],
    ids=str,
)
def test_other_convolutions_stay_what_they_are(other):
    kind = type(other)
    use_winograd(other)
    assert type(other) is kind


def test_a_detector_keeps_its_weights_and_names(small_detector, monkeypatch):
    torch.manual_seed(3)
    model = small_detector(channels=64)
    monkeypatch.setattr(retinanet, "use_winograd", lambda module: None)
    torch.manual_seed(3)
    plain = small_detector(channels=64).state_dict()
    assert list(model.state_dict()) == list(plain)
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())
    # ResNet-18's but for its first one and the strided, the pyramid's three, and one for each head's tower.
    for each in (model, copy.deepcopy(model)):
        assert sum(type(module) is WinogradConv2d for module in each.modules()) == 13 + 3 + 2

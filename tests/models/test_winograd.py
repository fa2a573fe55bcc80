"""Winograd's convolutions against torch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from detkit.models import winograd
from detkit.models.winograd import convolve, image_gradient, is_faster, weight_gradient


def channels_last(*shape: int, seed: int) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("with_bias", [True, False])
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
def test_values_and_gradients_equal_torchs_in_float64(shape, outputs, with_bias):
    images, gradient = channels_last(*shape, seed=1), channels_last(shape[0], outputs, *shape[2:], seed=2)
    weight = channels_last(outputs, shape[1], 3, 3, seed=3) / (9 * shape[1]) ** 0.5
    bias = torch.randn(outputs) if with_bias else None
    exact = images.double(), weight.double(), gradient.double()
    found = convolve(images, weight, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(*exact[:2], bias.double() if with_bias else None, padding=1)
    of_images = conv2d_input(images.shape, exact[1], exact[2], padding=1)
    of_weight = conv2d_weight(exact[0], weight.shape, exact[2], padding=1)
    for mine, theirs in (
        (found, expected),
        (image_gradient(weight, gradient), of_images),
        (weight_gradient(images, gradient), of_weight),
    ):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_parts_of_a_batch_add_up(monkeypatch):
    images, gradient = channels_last(7, 8, 6, 6, seed=1), channels_last(7, 9, 6, 6, seed=2)
    weight = channels_last(9, 8, 3, 3, seed=3)
    whole = convolve(images, weight), weight_gradient(images, gradient)
    monkeypatch.setattr(winograd, "VALUES_PER_THREAD", 1)
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


@pytest.mark.parametrize(
    ("case", "instructions", "expected"),
    [
        (((8, 64, 12, 12), 64, torch.float32), "AVX2", True),
        (((8, 64, 11, 11), 64, torch.float32), "DEFAULT", True),
        (((8, 64, 12, 12), 64, torch.float32), "AVX512", False),
        (((1, 64, 20, 20), 64, torch.float32), "AVX2", False),
        (((8, 64, 12, 12), 36, torch.float32), "AVX2", False),
        (((8, 32, 12, 12), 64, torch.float32), "AVX2", False),
        (((8, 64, 12, 12), 64, torch.bfloat16), "AVX2", False),
        (((8, 64, 12, 12), 64, torch.float64), "AVX2", False),
    ],
)
def test_where_it_is_faster(case, instructions, expected, monkeypatch):
    shape, outputs, dtype = case
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    weight = torch.empty(outputs, shape[1], 3, 3, dtype=dtype)
    assert is_faster(torch.empty(shape, dtype=dtype), weight) is expected

"""Gradients at few cells against torch's of whole convolutions, in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from detkit.models import sparse_gradients
from detkit.models.sparse_gradients import cells_with_gradient, image_gradient, weight_gradient

CORNERS = [(0, 0, 0), (0, 0, -1), (0, -1, 0), (-1, -1, -1)]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def case(shape: tuple[int, ...], outputs: int, share: float, dtype=torch.float64) -> tuple[Tensor, ...]:
    """Images, weight, gradient and its cells, where random cells and the corners of the first and last have one."""
    generator = torch.Generator().manual_seed(0)
    count, channels, height, width = shape
    cells = torch.rand((count, height, width), generator=generator) < share
    for corner in CORNERS:
        cells[corner] = share > 0
    values = (
        torch.randn(shape, generator=generator),
        torch.randn((outputs, channels, 3, 3), generator=generator) / (9 * channels) ** 0.5,
        torch.randn((count, outputs, height, width), generator=generator) * cells[:, None],
    )
    return *(each.to(dtype=dtype, memory_format=torch.channels_last) for each in values), cells


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("shape", "outputs", "share"),
    [
        ((2, 16, 9, 14), 24, 0.1),
        ((3, 17, 8, 5), 7, 0.5),
        ((2, 8, 6, 6), 8, 1.0),
        ((1, 8, 1, 1), 8, 1.0),
        ((4, 8, 1, 7), 8, 0.2),
        ((4, 8, 7, 2), 8, 0.2),
        ((2, 8, 6, 6), 8, 0.0),
    ],
)
def test_they_equal_torchs(shape, outputs, share, dtype):
    images, weight, gradient, cells = case(shape, outputs, share, dtype)
    exact = conv2d_input(shape, weight.double(), gradient.double(), padding=1)
    exact_weight = conv2d_weight(images.double(), weight.shape, gradient.double(), padding=1)
    found = image_gradient(weight, gradient, cells), weight_gradient(images, gradient, cells)
    for mine, theirs in zip(found, (exact, exact_weight), strict=True):
        assert mine.dtype == dtype
        assert mine.is_contiguous(memory_format=torch.channels_last)
        within = TOLERANCES[dtype] * max(1e-30, theirs.abs().max().item())
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=within)


def test_parts_add_up_in_single_precision(monkeypatch):
    images, weight, gradient, cells = case((4, 8, 16, 16), 12, 0.5, torch.bfloat16)
    whole = image_gradient(weight, gradient, cells), weight_gradient(images, gradient, cells)
    monkeypatch.setattr(sparse_gradients, "PATCH_BYTES", 1)
    assert len(sparse_gradients._parts(cells, images)) == cells.sum() > 100
    one_by_one = image_gradient(weight, gradient, cells), weight_gradient(images, gradient, cells)
    for found, expected in zip(one_by_one, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-7 * expected.abs().max().item())


def test_they_repeat_to_the_bit():
    images, weight, gradient, cells = case((4, 64, 24, 24), 64, 0.1, torch.float32)
    first = image_gradient(weight, gradient, cells), weight_gradient(images, gradient, cells)
    again = image_gradient(weight, gradient, cells), weight_gradient(images, gradient, cells)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("value", [1.0, -1.0, 1e-45, float("nan"), float("inf")])
def test_every_value_but_zero_is_a_gradient(value):
    gradient = torch.zeros(2, 8, 40, 40).to(memory_format=torch.channels_last)
    gradient[1, 5, 3, 39] = value
    gradient[0, 0, 0, 0] = -0.0
    assert cells_with_gradient(gradient).nonzero().tolist() == [[1, 3, 39]]


def test_a_gradient_of_any_layout_is_taken():
    images, weight, gradient, cells = case((4, 8, 24, 24), 12, 0.02)
    for other in (gradient.contiguous(), torch.cat([gradient, gradient], dim=3)[..., :24]):
        assert torch.equal(cells_with_gradient(other), cells)
        assert torch.equal(image_gradient(weight, other, cells), image_gradient(weight, gradient, cells))
        assert torch.equal(weight_gradient(images, other, cells), weight_gradient(images, gradient, cells))


def of_cells(cells: Tensor) -> Tensor:
    return cells[:, None].float().repeat(1, 8, 1, 1).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("side", "rows", "few"), [(40, 15, True), (40, 18, False), (40, 40, False), (20, 2, False)]
)
def test_where_they_are_faster(side, rows, few):
    cells = torch.zeros(2, side, side, dtype=torch.bool)
    cells[:, :rows] = True
    found = cells_with_gradient(of_cells(cells))
    assert (found is not None) == few
    assert found is None or torch.equal(found, cells)


@pytest.mark.parametrize(("every", "few"), [(5, True), (3, False)])
def test_scattered_cells_reach_many_more(every, few):
    cells = torch.zeros(2, 60, 60, dtype=torch.bool)
    cells[:, 1::every, 1::every] = True
    assert (cells_with_gradient(of_cells(cells)) is not None) == few


def test_a_gradient_in_all_cells_that_are_sampled_is_left_to_torch():
    cells = torch.zeros(2, 40, 40, dtype=torch.bool)
    cells[:, ::4, ::4] = True
    assert cells_with_gradient(of_cells(cells)) is None

"""The CUDA kernels against the reference in float64, on inputs that every run draws anew; see kernel_inputs.py."""

import pytest
import torch
from kernel_inputs import (
    DEVICE,
    DTYPES,
    FORMULAS,
    ON_GPU,
    assert_equals_reference,
    assert_matches_are_the_references,
    odd_layouts,
    pyramid,
    random_boxes,
    random_labels,
    random_logits,
    random_weights,
    run,
)

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import match_anchors, reference, sigmoid_focal_loss

pytestmark = pytest.mark.usefixtures("kernels", "poisoned_memory")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 3, 20, 80, 90, 91, 161, 365, 1203])
@pytest.mark.parametrize(("alpha", "gamma"), FORMULAS)
def test_loss_and_gradient_equal_the_reference(dtype, classes, alpha, gamma, generator):
    """Of 161 classes, most of the threads that share an anchor have none left in their last turn."""
    images, anchors = 3, 2 + int(torch.randint(120, (), generator=generator))
    logits = random_logits((images, anchors, classes), dtype, generator)
    labels = random_labels(images, anchors, classes, generator)
    weights = random_weights(images, anchors, dtype, generator)
    assert_equals_reference([logits], labels, weights, alpha, gamma)
    assert_equals_reference(logits.split([anchors - 1, 1], dim=1), labels, None, alpha, gamma)


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 5, 16, 80])
def test_levels_of_any_layout(dtype, classes, generator):
    """Also more levels than a launch takes, and all of them together."""
    levels = list(odd_layouts(37, classes, dtype, generator))
    for level in levels:
        assert_equals_reference([level], random_labels(2, 37, classes, generator), None)
    many = [level[:, : 37 - 3 * index] for index, level in enumerate([*levels, *levels])]
    anchors = sum(level.shape[1] for level in many)
    labels = random_labels(anchors, 2, classes, generator).t()
    weights = random_weights(anchors, 2, dtype, generator).t()
    assert_equals_reference(many, labels, weights)
    plain = [level.contiguous() for level in many]
    assert_equals_reference(plain, labels, weights)


@pytest.mark.parametrize("center", [-6.0, -2.0, 3.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_easy_hard_and_mixed_logits(dtype, center, generator):
    logits = random_logits((2, 500, 80), dtype, generator, center)
    assert_equals_reference([logits], random_labels(2, 500, 80, generator), None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_huge_logits_give_finite_losses_and_gradients(dtype, gamma):
    logits = torch.tensor([[[100.0, -100.0]], [[-100.0, 100.0]]], dtype=dtype, device=DEVICE)
    labels = torch.zeros(2, 1, dtype=torch.int32, device=DEVICE)
    grad = torch.ones(2, 1, device=DEVICE, dtype=reference.loss_dtype(logits))
    loss, (found,) = run([logits], labels, None, grad, alpha=None, gamma=gamma)
    torch.testing.assert_close(loss.flatten().tolist(), [0.0, 200.0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.flatten().tolist(), [0.0, 0.0, -1.0, 1.0], rtol=1e-6, atol=1e-6)


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 80, 91])
def test_anchors_that_do_not_count_are_not_read(dtype, classes, generator):
    logits = random_logits((2, 700, classes), dtype, generator)
    labels = random_labels(2, 700, classes, generator)
    weights = random_weights(2, 700, dtype, generator)
    left_out = (labels == IGNORE) | (weights == 0)
    logits[left_out] = torch.nan
    grad = torch.where(left_out, torch.inf, 1.0).to(weights.dtype)
    loss, (found,) = run([logits], labels, weights, grad)
    assert loss[left_out].eq(0).all()
    assert found[left_out].eq(0).all()
    assert loss[~left_out].isfinite().all()
    assert found[~left_out].isfinite().all()


@pytest.mark.sanitize
@pytest.mark.parametrize("label", [80, 87, -3, 2**31 - 1, -(2**31)])
def test_an_unknown_label_spoils_its_loss_and_counts_as_background(label, generator):
    logits = random_logits((2, 300, 80), torch.bfloat16, generator)
    labels = random_labels(2, 300, 80, generator)
    labels[1, 7] = BACKGROUND
    grad = torch.ones(2, 300, device=DEVICE)
    expected, (expected_gradient,) = run([logits], labels, None, grad)
    labels[1, 7] = label
    loss, (found,) = run([logits], labels, None, grad)
    assert loss[1, 7].isnan()
    expected[1, 7] = loss[1, 7]
    assert torch.equal(loss.nan_to_num(), expected.nan_to_num())
    assert torch.equal(found, expected_gradient)


MANY_IMAGES = pytest.param(
    (70_000, 1, 2), marks=pytest.mark.skipif(not ON_GPU, reason="test_cuda_on_host.py has a part of them")
)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (1, 1, 1), MANY_IMAGES])
def test_empty_input_one_row_and_many_images(shape):
    logits = torch.zeros(shape, device=DEVICE)
    labels = torch.full(shape[:2], BACKGROUND, dtype=torch.int32, device=DEVICE)
    loss, (found,) = run([logits], labels, None, torch.ones(shape[:2], device=DEVICE), alpha=None, gamma=0.0)
    torch.testing.assert_close(loss, shape[2] * torch.full_like(loss, 2.0).log())
    assert found.eq(0.5).all()


@pytest.mark.parametrize(("alpha", "gamma"), FORMULAS)
def test_gradient_is_that_of_the_loss(alpha, gamma, generator):
    levels = [random_logits((2, anchors, 5), torch.float64, generator) for anchors in (4, 3)]
    labels = random_labels(2, 7, 5, generator)
    weights = random_weights(2, 7, torch.float64, generator)

    def loss(*levels):
        return sigmoid_focal_loss(levels, labels, weights, alpha=alpha, gamma=gamma)

    assert torch.autograd.gradcheck(loss, [level.requires_grad_() for level in levels])


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeats_exactly(dtype, generator):
    """In whatever order the blocks run; on the host it is another one each time."""
    anchors = 5000 if ON_GPU else 500
    logits = random_logits((4, anchors, 80), dtype, generator)
    labels = random_labels(4, anchors, 80, generator)
    grad = torch.rand(4, anchors, device=DEVICE).to(reference.loss_dtype(logits))
    loss, (gradient,) = run([logits], labels, None, grad)
    for _ in range(3):
        again, (gradient_again,) = run([logits], labels, None, grad)
        assert torch.equal(loss, again)
        assert torch.equal(gradient, gradient_again)


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("snap", [None, 2.0, 12.0])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.5, 0.5), (0.7, 0.3), (1.0, 1e-3)])
def test_matches_are_the_references(low_quality, snap, thresholds, generator):
    """Snapped to a grid, boxes coincide, tie and lose their area."""
    foreground, background = thresholds
    parameters = {"foreground_iou": foreground, "background_iou": background, "low_quality": low_quality}
    for count in (1, 63, 64, 65, 511, 513, 3001):
        anchors = random_boxes(count, generator, snap=snap)
        boxes = [random_boxes(boxes, generator, snap=snap) for boxes in (0, 1, 31, 33, 100)]
        boxes.append(torch.cat([boxes[4], boxes[4], anchors[:20]]))
        assert_matches_are_the_references(anchors, boxes, **parameters)


@pytest.mark.sanitize
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6, 1e14])
def test_matches_boxes_of_any_size(scale, generator):
    huge = torch.tensor([[-1e4, -1e4, 2e4, 2e4], [0, 0, 100, 100]], device=DEVICE)
    strange = torch.tensor([0.0, 50, torch.nan, torch.inf, -torch.inf], device=DEVICE)[:, None].expand(5, 4)
    backwards = random_boxes(5, generator).flip(1)
    boxes = torch.cat([random_boxes(40, generator), huge, strange, backwards])
    anchors = torch.cat([pyramid(160), random_boxes(40, generator), strange, backwards])
    assert_matches_are_the_references(scale * anchors, [scale * boxes, scale * boxes[30:], boxes[40:]])


def test_matches_boxes_whose_iou_is_below_the_normal_numbers():
    sides = torch.logspace(-18, -14, 1000, device=DEVICE)[:, None]
    small = torch.cat([torch.zeros(1000, 2, device=DEVICE), sides, sides], dim=1)
    anchors = torch.tensor([[0.0, 0, 3e4, 3e4], [5e4, 0, 8e4, 3e4]], device=DEVICE)
    assert_matches_are_the_references(anchors, list(small[:, None]))


def test_matches_thousands_of_boxes(generator):
    anchors = pyramid(256)
    assert_matches_are_the_references(
        anchors, [random_boxes(3000, generator, 256), random_boxes(2, generator, 256)]
    )


@pytest.mark.parametrize("count", [16_384, 16_385, 40_000])
def test_matches_more_anchors_than_blocks_have_places(count, generator):
    """Up to 16,384 anchors, the blocks run in their order."""
    boxes = [random_boxes(count, generator, 1000.0) for count in (40, 1, 0)]
    assert_matches_are_the_references(random_boxes(count, generator, 1000.0), boxes)


@pytest.mark.sanitize
def test_matches_more_images_than_a_launch_takes(generator):
    anchors = random_boxes(150, generator)
    counts = torch.randint(9, (131,), generator=generator).tolist()
    assert_matches_are_the_references(anchors, [random_boxes(count, generator) for count in counts])


@pytest.mark.sanitize
def test_matches_boxes_that_begin_anywhere_in_memory(generator):
    anchors, boxes = random_boxes(500, generator), random_boxes(30, generator)
    shifted = [torch.cat([boxes.new_zeros(1), part.flatten()])[1:].view(-1, 4) for part in (anchors, boxes)]
    assert shifted[0].data_ptr() % 16 != 0
    assert torch.equal(match_anchors(shifted[0], [shifted[1]]), match_anchors(anchors, [boxes]))


def test_matches_nothing():
    none = torch.empty(0, 4, device=DEVICE)
    some = torch.tensor([[0.0, 0, 4, 4], [9, 9, 12, 12]], device=DEVICE)
    assert match_anchors(some, []).shape == (0, 2)
    assert match_anchors(none, [some, none]).shape == (2, 0)
    assert match_anchors(some, [none, none]).eq(BACKGROUND).all()
    assert match_anchors(some, [none, some, 100 + some]).tolist() == [[-1, -1], [0, 1], [-1, -1]]

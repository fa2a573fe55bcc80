"""Inputs that the tests of the CUDA kernels draw, and what their results are held against.

Where there is no GPU, the kernels run on the host (host_kernels.py): the same tests then take CPU tensors.
"""

import torch

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import _library, match_anchors, reference, sigmoid_focal_loss

ON_GPU = torch.cuda.is_available() and _library.CUDA.loaded
DEVICE = "cuda" if ON_GPU else "cpu"
DTYPES = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 6e-3, torch.float16: 2e-3}
"""With the tolerance of gradients."""
FORMULAS = [(0.25, 2.0), (None, 0.0), (0.9, 1.5)]


def random_labels(images, anchors, classes, generator):
    labels = torch.randint(classes, (images, anchors), generator=generator, dtype=torch.int32)
    chance = torch.rand(images, anchors, generator=generator)
    return torch.where(chance < 0.1, labels, torch.where(chance > 0.9, IGNORE, BACKGROUND)).int().to(DEVICE)


def random_weights(images, anchors, dtype, generator):
    weights = torch.rand(images, anchors, generator=generator)
    return torch.where(weights < 0.2, 0, weights).to(
        DEVICE, reference.loss_dtype(torch.empty(0, dtype=dtype))
    )


def random_logits(shape, dtype, generator, center=-3.0):
    return (center + 2.5 * torch.randn(shape, generator=generator)).to(DEVICE, dtype)


def odd_layouts(anchors, classes, dtype, generator):
    """One level of each layout, [2, anchors, classes]."""
    plain = random_logits((2, anchors, classes), dtype, generator)
    yield plain
    yield random_logits((2 * anchors * classes + 1,), dtype, generator)[1:].view(2, anchors, classes)
    yield random_logits((2, classes, anchors), dtype, generator).transpose(1, 2)
    yield random_logits((2, 2 * anchors, 2 * classes + 1), dtype, generator)[:, ::2, 1::2]
    yield random_logits((2, anchors, classes + 8), dtype, generator)[:, :, 8:]
    yield random_logits((2, 8 * anchors, classes + 1), dtype, generator)[:, :anchors, :classes]
    yield random_logits((2, anchors * classes + 1), dtype, generator)[:, 1:].unflatten(1, (anchors, classes))
    yield random_logits((2, anchors * classes + 1), dtype, generator)[:, :-1].unflatten(1, (anchors, classes))
    yield random_logits((anchors, classes, 2), dtype, generator).permute(2, 0, 1)
    yield plain[:1, :1].expand(2, anchors, classes)


def run(levels, labels, weights, grad, *, alpha=0.25, gamma=2.0):
    """Loss and gradients, through autograd."""
    levels = [level.detach().requires_grad_() for level in levels]
    loss = sigmoid_focal_loss(levels, labels, weights, alpha=alpha, gamma=gamma)
    return loss.detach(), torch.autograd.grad(loss, levels, grad)


def assert_equals_reference(levels, labels, weights, alpha=0.25, gamma=2.0):
    """Hold loss and gradients against the reference, on the CPU and in float64."""
    dtype = levels[0].dtype
    grad = torch.linspace(-1, 2, labels.numel(), device=DEVICE).view(labels.shape)
    grad = grad.to(reference.loss_dtype(levels[0]))
    loss, gradients = run(levels, labels, weights, grad, alpha=alpha, gamma=gamma)
    exact = [level.cpu().double() for level in levels]
    labels, grad = labels.cpu(), grad.cpu().double()
    weights = None if weights is None else weights.cpu().double()
    parameters = {"alpha": alpha, "gamma": gamma}
    expected = reference.sigmoid_focal_loss(exact, labels, weights, **parameters)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(loss.cpu().double(), expected, rtol=tolerance, atol=1e-7)
    expected_gradients = reference.sigmoid_focal_loss_backward(grad, exact, labels, weights, **parameters)
    for found, expected, level in zip(gradients, expected_gradients, levels, strict=True):
        assert (found.dtype, found.stride()) == (dtype, torch.empty_like(level).stride())
        torch.testing.assert_close(found.cpu().double(), expected, rtol=DTYPES[dtype], atol=3e-6)


def random_boxes(count, generator, size=100.0, snap=None):
    corner = size * torch.rand(count, 2, generator=generator)
    extent = 0.5 * size * torch.rand(count, 2, generator=generator) ** 2
    boxes = torch.cat([corner, corner + extent], dim=1)
    return (boxes if snap is None else (boxes / snap).round() * snap).to(DEVICE)


def pyramid(size, strides=(8, 16, 32)):
    """Anchors of three shapes on every cell of each level."""
    levels = []
    for stride in strides:
        y, x = torch.meshgrid(torch.arange(0, size, stride), torch.arange(0, size, stride), indexing="ij")
        cell = stride * torch.tensor([[-2.0, -2, 2, 2], [-3, -1.5, 3, 1.5], [-1.5, -3, 1.5, 3]])
        levels.append((torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4) + cell).reshape(-1, 4))
    return torch.cat(levels).to(DEVICE)


def assert_matches_are_the_references(anchors, boxes, **parameters):
    parameters = {"foreground_iou": 0.5, "background_iou": 0.4, "low_quality": True, **parameters}
    found = match_anchors(anchors, boxes, **parameters)
    expected = reference.match_anchors(anchors.cpu(), [image.cpu() for image in boxes], **parameters)
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(found, match_anchors(anchors, boxes, **parameters))

"""The CUDA kernels against the reference in float64, on inputs that every run draws anew; skipped without a GPU."""

import os

import pytest
import torch

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import _library, match_anchors, reference, sigmoid_focal_loss

GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not (GPU and _library.CUDA.loaded),
    reason=f"the CUDA library is not loaded: {_library.CUDA.reason}" if GPU else "there is no GPU",
)
DEVICE = "cuda"
DTYPES = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 6e-3, torch.float16: 2e-3}
"""With the tolerance of gradients."""
FORMULAS = [(0.25, 2.0), (None, 0.0), (0.9, 1.5)]


@pytest.fixture
def generator():
    """Draws the input; a failure shows the seed that repeats it."""
    seed = int(os.environ.get("DETKIT_TEST_SEED", torch.seed() % 10**9))
    print(f"DETKIT_TEST_SEED={seed} draws the same input")
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fills what is allocated with NaN, so that a result that is not written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 3, 20, 80, 90, 91, 365, 1203])
@pytest.mark.parametrize(("alpha", "gamma"), FORMULAS)
def test_loss_and_gradient_equal_the_reference(dtype, classes, alpha, gamma, generator):
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


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (1, 1, 1), (70_000, 1, 2)])
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
    logits = random_logits((4, 5000, 80), dtype, generator)
    labels = random_labels(4, 5000, 80, generator)
    grad = torch.rand(4, 5000, device=DEVICE).to(reference.loss_dtype(logits))
    loss, (gradient,) = run([logits], labels, None, grad)
    for _ in range(3):
        again, (gradient_again,) = run([logits], labels, None, grad)
        assert torch.equal(loss, again)
        assert torch.equal(gradient, gradient_again)


def test_works_under_autocast_and_compiled(generator):
    logits = random_logits((2, 50, 20), torch.bfloat16, generator).requires_grad_()
    labels = random_labels(2, 50, 20, generator)

    def loss(logits):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            return sigmoid_focal_loss([logits[:, :30], logits[:, 30:]], labels)

    expected = loss(logits)
    assert expected.dtype == torch.float32
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(logits)
    assert torch.equal(compiled, expected)
    (found,) = torch.autograd.grad(compiled.sum(), logits)
    assert torch.equal(found, torch.autograd.grad(expected.sum(), logits)[0])


def test_the_ops_keep_the_rules_of_torch_library(generator):
    levels = [random_logits((2, anchors, 5), torch.float32, generator).requires_grad_() for anchors in (4, 3)]
    labels, weights = random_labels(2, 7, 5, generator), random_weights(2, 7, torch.float32, generator)
    parameters = {"alpha": 0.25, "gamma": 2.0}
    torch.library.opcheck(torch.ops.detkit.sigmoid_focal_loss.default, (levels, labels, weights), parameters)
    boxes = [random_boxes(count, generator) for count in (3, 0)]
    thresholds = {"foreground_iou": 0.5, "background_iou": 0.4, "low_quality": True}
    torch.library.opcheck(
        torch.ops.detkit.match_anchors.default, (random_boxes(9, generator), boxes), thresholds
    )


def capture(function):
    """The graph of a call, and the results that its replays overwrite."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    return graph, results


def test_loss_and_gradient_in_a_captured_graph(generator):
    levels = [
        random_logits((2, anchors, 80), torch.bfloat16, generator).requires_grad_() for anchors in (300, 7)
    ]
    labels, grad = random_labels(2, 307, 80, generator), torch.ones(2, 307, device=DEVICE)

    def call():
        loss = sigmoid_focal_loss(levels, labels)
        return [loss, *torch.autograd.grad(loss, levels, grad)]

    graph, results = capture(call)
    for _ in range(2):
        with torch.no_grad():
            for level in levels:
                level.copy_(random_logits(level.shape, level.dtype, generator))
            labels.copy_(random_labels(2, 307, 80, generator))
        graph.replay()
        assert all(torch.equal(*pair) for pair in zip(results, call(), strict=True))


def test_matching_in_a_captured_graph(generator):
    anchors, boxes = random_boxes(3001, generator), [random_boxes(count, generator) for count in (5, 0, 90)]
    graph, matches = capture(lambda: match_anchors(anchors, boxes))
    for _ in range(2):
        for image in boxes:
            image.copy_(random_boxes(len(image), generator))
        graph.replay()
        assert torch.equal(matches, match_anchors(anchors, boxes))


def test_runs_on_the_current_stream(generator):
    """The input is there only after a wait on the same stream; on another one, the ops would read what was before."""
    logits = random_logits((2, 400, 80), torch.float32, generator)
    labels = random_labels(2, 400, 80, generator)
    anchors, boxes = random_boxes(2000, generator), random_boxes(50, generator)
    grad = torch.ones(2, 400, device=DEVICE)
    expected = [*run([logits], labels, None, grad), match_anchors(anchors, [boxes])]
    late_logits, late_boxes = torch.zeros_like(logits), torch.zeros_like(boxes)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late_logits.copy_(logits)
        late_boxes.copy_(boxes)
        found = [*run([late_logits], labels, None, grad), match_anchors(anchors, [late_boxes])]
    stream.synchronize()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1][0], expected[1][0])
    assert torch.equal(found[2], expected[2])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU")
def test_runs_on_the_device_of_its_input(generator):
    logits = random_logits((2, 40, 80), torch.float32, generator)
    labels = random_labels(2, 40, 80, generator)
    anchors, boxes = random_boxes(2000, generator), random_boxes(50, generator)
    second = torch.device(DEVICE, 1)
    loss = sigmoid_focal_loss(logits.to(second), labels.to(second))
    matches = match_anchors(anchors.to(second), [boxes.to(second)])
    assert (loss.device, matches.device) == (second, second)
    assert torch.equal(loss.cpu(), sigmoid_focal_loss(logits, labels).cpu())
    assert torch.equal(matches.cpu(), match_anchors(anchors, [boxes]).cpu())


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

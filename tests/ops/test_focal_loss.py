"""The focal loss against its definition, its laws and torchvision."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_reference import focal_loss_loop
from torch.nn import functional as F

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import reference, sigmoid_focal_loss

PARAMETERS = [(0.25, 2.0), (None, 0.0), (0.5, 0.5), (None, 1.0), (0.9, 5.0), (0.0, 0.0), (1.0, 2.0)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def example(images=2, anchors=7, classes=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(images, anchors, classes, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(IGNORE, classes, (images, anchors), generator=generator, dtype=torch.int32)
    weights = torch.rand(images, anchors, generator=generator, dtype=torch.float64)
    return logits, labels, weights


def gradient(logits, labels, weights=None, **parameters):
    levels = [level.detach().requires_grad_() for level in logits]
    loss = sigmoid_focal_loss(levels, labels, weights, **parameters)
    factors = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).reshape(loss.shape) / max(1, loss.numel())
    return torch.autograd.grad((loss * factors).sum(), levels)


def head_output(classes, dtype=torch.float32):
    """The output [2, 3 * K, 5, 6] of a channels_last head with 3 anchors a cell, and its view [2, 90, K]."""
    output = torch.randn(2, 3 * classes, 5, 6).to(dtype)
    output = output.contiguous(memory_format=torch.channels_last)
    view = output.permute(0, 2, 3, 1).view(2, 90, classes)
    return output, view


@pytest.mark.parametrize(("alpha", "gamma"), PARAMETERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_definition(alpha, gamma, weighted):
    logits, labels, weights = example()
    weights = weights if weighted else None
    loss = sigmoid_focal_loss(logits, labels, weights, alpha=alpha, gamma=gamma)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(
        loss, focal_loss_loop(logits, labels, weights, alpha, gamma), rtol=1e-11, atol=0
    )


@pytest.mark.parametrize(("alpha", "gamma"), PARAMETERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_the_loss(alpha, gamma, weighted):
    logits, labels, weights = example()
    levels = [level.requires_grad_() for level in logits.split([4, 1, 2], dim=1)]
    weights = weights if weighted else None

    def loss(*levels):
        return sigmoid_focal_loss(levels, labels, weights, alpha=alpha, gamma=gamma)

    assert torch.autograd.gradcheck(loss, levels)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("alpha", "gamma"), PARAMETERS)
def test_other_types_are_as_near_as_their_digits_allow(dtype, alpha, gamma):
    logits, labels, weights = example(images=3, anchors=17, classes=11, dtype=dtype)
    loss = sigmoid_focal_loss(logits, labels, weights, alpha=alpha, gamma=gamma)
    exact = sigmoid_focal_loss(logits.double(), labels, weights, alpha=alpha, gamma=gamma)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-7)
    (grad,) = gradient([logits], labels, weights, alpha=alpha, gamma=gamma)
    (exact_grad,) = gradient([logits.double()], labels, weights, alpha=alpha, gamma=gamma)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad.double(), exact_grad, rtol=TOLERANCE[dtype], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_huge_logits_give_finite_losses_and_gradients(dtype, gamma):
    logits = torch.tensor([[[100.0, -100.0]], [[-100.0, 100.0]]], dtype=dtype)
    labels = torch.zeros(2, 1, dtype=torch.int32)
    loss = sigmoid_focal_loss(logits, labels, alpha=None, gamma=gamma)
    torch.testing.assert_close(loss, torch.tensor([[0.0], [200.0]], dtype=loss.dtype), rtol=1e-6, atol=1e-6)
    (grad,) = gradient([logits], labels, alpha=None, gamma=gamma)
    expected = torch.tensor([[[0.0, 0.0]], [[-1.0, 1.0]]], dtype=dtype)
    expected[0] *= 0.5
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("classes", [20, 33, 80, 91])
def test_one_hard_logit_among_easy_ones_counts_wherever_it_lies(dtype, classes):
    """What the kernels take for easy, they put through short polynomials, which would not hold for it."""
    hard = torch.tensor([-2.0, -1.99, -0.0, 0.0, 0.5, 30.0, 88.0, torch.nan, -torch.nan, -torch.inf])
    logits = torch.full((len(hard), classes, classes), -5.0)
    logits.diagonal(dim1=1, dim2=2).copy_(hard[:, None].expand(-1, classes))
    logits = logits.to(dtype)
    labels = torch.full(logits.shape[:2], BACKGROUND, dtype=torch.int32)
    loss = sigmoid_focal_loss(logits, labels)
    (grad,) = gradient([logits], labels)
    exact = reference.sigmoid_focal_loss([logits.double()], labels, None, alpha=0.25, gamma=2.0)
    (exact_grad,) = gradient([logits.double()], labels)
    assert loss[hard.isnan()].isnan().all()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=TOLERANCE[dtype], atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (1, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_empty_input_and_one_row(shape, dtype):
    logits = torch.zeros(shape, dtype=dtype)
    labels = torch.full(shape[:2], BACKGROUND, dtype=torch.int32)
    loss = sigmoid_focal_loss(logits, labels, alpha=None, gamma=0.0)
    torch.testing.assert_close(loss, shape[2] * torch.full_like(loss, 2.0).log())
    (grad,) = gradient([logits], labels, alpha=None, gamma=0.0)
    assert grad.shape == shape
    assert grad.eq(0.5).all()


def test_ignored_and_unselected_anchors_count_exactly_nothing():
    logits, labels, weights = example()
    labels[0, :2] = torch.tensor([IGNORE, 1])
    weights[0, 1] = 0
    logits[0, 0], logits[0, 1] = torch.nan, torch.inf
    logits.requires_grad_()
    loss = sigmoid_focal_loss(logits, labels, weights)
    assert loss[0, :2].tolist() == [0, 0]
    loss.backward(torch.full_like(loss, torch.inf))
    assert logits.grad[0, :2].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_levels_are_read_and_their_gradients_written_where_they_lie(dtype, gamma):
    torch.manual_seed(0)
    nhwc = head_output(5, dtype)[1]
    nchw = torch.randn(2, 5, 4, 3).to(dtype).flatten(2).transpose(1, 2)
    sliced = torch.randn(2, 9, 11).to(dtype)[:, 1::2, 1:10:2]
    expanded = torch.randn(1, 1, 5).to(dtype).expand(2, 3, 5)
    levels = [nhwc, nchw, sliced, expanded]
    labels = torch.randint(IGNORE, 5, (2, sum(level.shape[1] for level in levels)), dtype=torch.int32)
    weights = torch.rand(labels.shape[1], 2).t()
    copies = [level.contiguous() for level in levels]
    loss = sigmoid_focal_loss(levels, labels.t().contiguous().t(), weights, gamma=gamma)
    expected = sigmoid_focal_loss(torch.cat(copies, dim=1), labels, weights.contiguous(), gamma=gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    for grad, plain in zip(
        gradient(levels, labels, weights, gamma=gamma),
        gradient(copies, labels, weights, gamma=gamma),
        strict=True,
    ):
        torch.testing.assert_close(grad, plain, rtol=1e-6, atol=1e-7)
    grads = gradient(levels, labels, weights, gamma=gamma)
    assert [grad.stride() for grad in grads[:2]] == [nhwc.stride(), nchw.stride()]


@pytest.mark.parametrize("strides", [(2**31 + 1, 9, 1), (17, 2**30 + 3, 1), (40, 9, 2**29 + 5)])
def test_logits_may_lie_further_apart_than_32_bits_count(strides, tmp_path):
    """In a file of 4 GB that is all hole but the logits."""
    shape = (2, 3, 3)
    count = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    memory = torch.from_file(str(tmp_path / "logits"), shared=True, size=count, dtype=torch.bfloat16)
    logits = memory.as_strided(shape, strides)
    logits.copy_(torch.arange(18).view(shape) / 4 - 4)
    labels = torch.tensor([[1, BACKGROUND, 2], [0, 2, BACKGROUND]], dtype=torch.int32)
    loss = sigmoid_focal_loss(logits, labels)
    assert torch.equal(loss, sigmoid_focal_loss(logits.contiguous(), labels))
    (grad,) = gradient([logits], labels)
    assert torch.equal(grad, gradient([logits.contiguous()], labels)[0])


def test_gradient_reaches_a_channels_last_head():
    output, _ = head_output(4)
    output.requires_grad_()
    level = output.permute(0, 2, 3, 1).view(2, 90, 4)
    sigmoid_focal_loss(level, torch.zeros(2, 90, dtype=torch.int32)).sum().backward()
    assert output.grad.is_contiguous(memory_format=torch.channels_last)
    assert output.grad.ne(0).all()


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 19)),
    seed=st.integers(0, 10**6),
    gamma=st.floats(0, 6),
    alpha=st.none() | st.floats(0, 1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_permuting_anchors_permutes_the_loss(shape, seed, gamma, alpha):
    logits, labels, weights = example(*shape, dtype=torch.float32, seed=seed)
    order = torch.randperm(shape[1], generator=torch.Generator().manual_seed(seed))
    loss = sigmoid_focal_loss(logits, labels, weights, alpha=alpha, gamma=gamma)
    permuted = sigmoid_focal_loss(
        logits[:, order], labels[:, order], weights[:, order], alpha=alpha, gamma=gamma
    )
    torch.testing.assert_close(permuted, loss[:, order], rtol=1e-6, atol=0)


def test_gamma_zero_is_the_binary_cross_entropy():
    logits, labels, _ = example(4, 50, 20)
    targets = F.one_hot(labels.clamp(min=0).long(), 20).double() * (labels >= 0)[..., None]
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1) * (
        labels != IGNORE
    )
    loss = sigmoid_focal_loss(logits, labels, alpha=None, gamma=0.0)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 2.0, 3.0])
def test_equals_torchvision_with_one_hot_targets(gamma):
    torchvision = pytest.importorskip("torchvision")
    logits, labels, _ = example(3, 40, 20, torch.float32)
    logits.requires_grad_()
    targets = F.one_hot(labels.clamp(min=0).long(), 20).float() * (labels >= 0)[..., None]
    rows = torchvision.ops.sigmoid_focal_loss(logits, targets, gamma=gamma).sum(-1) * (labels != IGNORE)
    loss = sigmoid_focal_loss(logits, labels, gamma=gamma)
    torch.testing.assert_close(loss, rows, rtol=1e-5, atol=1e-6)
    (expected,) = torch.autograd.grad(rows.sum(), logits)
    (found,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_repeats_exactly_forward_and_backward():
    logits, labels, weights = example(4, 5000, 7, torch.float32)
    logits.requires_grad_()
    loss = sigmoid_focal_loss(logits, labels, weights)
    assert torch.equal(loss, sigmoid_focal_loss(logits, labels, weights))
    first, second = (torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_several_threads_at_once_do_not_change_the_results():
    examples = [example(2, 3000, classes, torch.float32, seed=classes) for classes in (1, 7, 80, 300)]

    def loss_and_gradient(arguments):
        return sigmoid_focal_loss(*arguments), *gradient([arguments[0]], *arguments[1:])

    expected = [loss_and_gradient(arguments) for arguments in examples]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(loss_and_gradient, 5 * examples))
    for one, other in zip(found, 5 * expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("classes", [1, 7, 80])
@pytest.mark.parametrize("classes_first", [False, True])
def test_the_number_of_threads_does_not_change_the_results(classes, classes_first):
    logits, labels, weights = example(2, 30_001, classes, torch.float32)
    if classes_first:
        logits = logits.transpose(1, 2).contiguous().transpose(1, 2)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss = sigmoid_focal_loss(logits, labels, weights)
            results.append((loss, *gradient([logits], labels, weights)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(result, results[0], strict=True))


def test_keeps_no_tensor_of_the_size_of_the_logits():
    logits, labels, weights = example(2, 30, 8, torch.float32)
    logits.requires_grad_()
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sigmoid_focal_loss(logits, labels, weights)
    large = [tensor for tensor in saved if tensor.numel() >= logits.numel()]
    assert [tensor.data_ptr() for tensor in large] == [logits.data_ptr()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("alpha", "gamma"), PARAMETERS)
def test_the_reference_gives_the_same(dtype, alpha, gamma):
    logits, labels, weights = example(2, 33, 9, dtype)
    weights = weights.to(reference.loss_dtype(logits))
    levels = logits.split([20, 13], dim=1)
    loss = sigmoid_focal_loss(levels, labels, weights, alpha=alpha, gamma=gamma)
    expected = reference.sigmoid_focal_loss(levels, labels, weights, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    grad = torch.rand_like(loss)
    arguments = (grad, list(levels), labels, weights)
    found = torch.ops.detkit.sigmoid_focal_loss_backward(*arguments, alpha=alpha, gamma=gamma)
    expected = reference.sigmoid_focal_loss_backward(*arguments, alpha=alpha, gamma=gamma)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=max(1e-5, TOLERANCE.get(dtype, 0)), atol=1e-6)


def test_the_ops_keep_the_rules_of_torch_library():
    logits, labels, weights = example()
    levels = [level.contiguous().requires_grad_() for level in logits.split([4, 3], dim=1)]
    parameters = {"alpha": 0.25, "gamma": 2.0}
    torch.library.opcheck(torch.ops.detkit.sigmoid_focal_loss.default, (levels, labels, weights), parameters)
    torch.library.opcheck(torch.ops.detkit.sigmoid_focal_loss.default, (levels, labels, None), parameters)
    still = [level.detach() for level in levels]
    torch.library.opcheck(
        torch.ops.detkit.sigmoid_focal_loss_backward.default, (weights, still, labels, weights), parameters
    )


def test_compiles_without_a_graph_break():
    logits, labels, weights = example(dtype=torch.float32)
    levels = [level.contiguous().requires_grad_() for level in logits.split([4, 3], dim=1)]

    def loss(levels):
        return sigmoid_focal_loss(levels, labels, weights).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(levels), levels)
    for grad, expected in zip(found, torch.autograd.grad(loss(levels), levels), strict=True):
        torch.testing.assert_close(grad, expected)


def test_works_under_autocast():
    logits, labels, weights = example(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sigmoid_focal_loss(logits, labels, weights)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(("label", "found"), [(5, "is 5"), (-3, "is -3"), (2**31 - 1, "is 2147483647")])
@pytest.mark.parametrize("op", [sigmoid_focal_loss, reference.sigmoid_focal_loss])
def test_a_label_out_of_range_is_an_error(op, label, found):
    logits, labels, _ = example(classes=5)
    labels[1, 3] = label
    with pytest.raises(RuntimeError, match=rf"labels\[1, 3\] {found}; expected a class index from 0 to 4"):
        op([logits], labels, None, alpha=0.25, gamma=2.0)


def test_the_meta_device_gives_shapes():
    loss = sigmoid_focal_loss(
        torch.empty(2, 3, 4, device="meta"), torch.empty(2, 3, dtype=torch.int32, device="meta")
    )
    assert (loss.shape, loss.dtype, loss.device.type) == ((2, 3), torch.float32, "meta")


def test_differentiating_twice_is_refused():
    logits, labels, _ = example()
    logits.requires_grad_()
    (grad,) = torch.autograd.grad(sigmoid_focal_loss(logits, labels).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once, not twice"):
        grad.sum().backward()


def wrong_calls():
    logits, labels, weights = example()
    yield ValueError, "empty list", ([], labels, None), {}
    yield ValueError, r"shape \[7, 5\]; expected \[N, A, K\]", (logits[0], labels, None), {}
    yield ValueError, "same number of images and of classes", ([logits, logits[:, :, :2]], labels, None), {}
    yield ValueError, r"labels have shape \[2, 6\]; expected \[2, 7\]", (logits, labels[:, :6], None), {}
    yield ValueError, r"weights have shape \[2\]", (logits, labels, weights[:, 0]), {}
    yield ValueError, "detach them", (logits, labels, weights.requires_grad_()), {}
    yield ValueError, "labels are on meta", (logits, labels.to("meta"), None), {}
    yield ValueError, "alpha is 1.5", (logits, labels, None), {"alpha": 1.5}
    yield ValueError, "gamma is -1", (logits, labels, None), {"gamma": -1}
    yield ValueError, "gamma is nan", (logits, labels, None), {"gamma": float("nan")}
    yield TypeError, "labels are torch.int64; expected int32", (logits, labels.long(), None), {}
    yield TypeError, "weights are torch.int32", (logits, labels, labels), {}
    yield TypeError, "level 0 are torch.int32", (logits.int(), labels, None), {}
    yield TypeError, "level 1 are torch.float32", ([logits, logits.float()], labels, None), {}


@pytest.mark.parametrize(("error", "message", "arguments", "parameters"), list(wrong_calls()))
def test_says_what_is_wrong(error, message, arguments, parameters):
    with pytest.raises(error, match=message):
        sigmoid_focal_loss(*arguments, **parameters)

"""What only the host can show of the CUDA kernels, and that it finds what a GPU would take without a word.

All that the kernels compute is tested in test_cuda.py, which runs on the host where there is no GPU.
"""

import pytest
import torch
from host_kernels import kernels_in_use
from kernel_inputs import ON_GPU, random_boxes, random_labels, random_logits, run

from detkit.labels import BACKGROUND
from detkit.ops import match_anchors, reference, sigmoid_focal_loss

pytestmark = pytest.mark.skipif(ON_GPU, reason="the kernels run on the GPU; CUDA_VISIBLE_DEVICES= hides it")
WRONG = [
    "a read of 4 bytes .* outside the tensors .* \\(thread 255 of block 1, 0\\)",
    "a write of 4 bytes .* outside the tensors .* \\(thread 0 of block 0, 0\\)",
    "an address that is not aligned",
    "an overflow at .*undefined.cu:",
    "the lanes of a warp part: lane 0 waits at .*, lane 31 has returned",
    "the lanes of a warp part: lane 0 waits at .*, lane 1 waits at",
    "a collective of a part of a warp",
    "an impossible grid",
    "a read of . bytes .* outside the tensors",
]
"""Why each kind of misbehaviour in undefined.cu is refused."""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("how", "why"), list(enumerate(WRONG, start=1)))
def test_what_a_gpu_takes_without_a_word_is_refused(how, why):
    storage = torch.zeros(600)
    with pytest.raises(RuntimeError, match=why):
        torch.ops.detkit_on_host.misbehave(storage[4:516], how)
    assert storage[:4].eq(0).all()
    assert storage[516:].eq(0).all()
    numbers = torch.zeros(512)
    torch.ops.detkit_on_host.misbehave(numbers, 0)
    assert numbers.eq(1).all()


def test_the_cpu_has_its_own_kernels_before_and_after(host_library):
    """The CPU refuses an unknown label, of which a GPU makes NaN."""
    logits, labels = torch.zeros(1, 1, 2), torch.full((1, 1), 7, dtype=torch.int32)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="expected a class"):
            sigmoid_focal_loss(logits, labels)
        with kernels_in_use(host_library):
            assert sigmoid_focal_loss(logits, labels).isnan().all()
    with pytest.raises(RuntimeError, match="expected a class"):
        sigmoid_focal_loss(logits, labels)


def test_matches_are_the_same_in_any_order(kernels, generator):
    """Although blocks race for the best IoU of a box, and look at fewer boxes the more they know of it."""
    anchors = random_boxes(1500, generator, snap=4.0)
    boxes = [random_boxes(60, generator, snap=4.0), random_boxes(3, generator)]
    parameters = {"foreground_iou": 0.6, "background_iou": 0.5, "low_quality": True}
    expected = reference.match_anchors(anchors, boxes, **parameters)
    for seed in range(30):
        kernels.seed_order(seed)
        assert torch.equal(match_anchors(anchors, boxes, **parameters), expected)


@pytest.fixture
def some_warps(kernels):
    """A part of the warps runs."""
    kernels.run_one_in(30)
    yield
    kernels.run_one_in(1)


@pytest.mark.usefixtures("poisoned_memory", "some_warps")
def test_more_images_than_a_launch_takes(generator):
    """What the warps that run have written is right, and they have written for images of both launches."""
    logits = random_logits((70_000, 1, 2), torch.float32, generator)
    labels, grad = random_labels(70_000, 1, 2, generator), torch.rand(70_000, 1, generator=generator)
    loss, (gradient,) = run([logits], labels, None, grad)
    arguments, parameters = ([logits], labels, None), {"alpha": 0.25, "gamma": 2.0}
    (expected,) = reference.sigmoid_focal_loss_backward(grad, *arguments, **parameters)
    for found, exact in (
        (loss, reference.sigmoid_focal_loss(*arguments, **parameters)),
        (gradient, expected),
    ):
        written = ~found.isnan()
        assert 1000 < written[:65535, 0].sum() < 20_000
        assert 50 < written[65535:, 0].sum() < 2000
        torch.testing.assert_close(found[written], exact[written], rtol=2e-5, atol=1e-6)


def sparse(count, dtype, folder):
    """A tensor in a file that has no more on the disk than what is written."""
    path = folder / "numbers"
    tensor = torch.from_file(str(path), shared=True, size=count, dtype=dtype)
    path.unlink()
    return tensor


def far_apart(tensor, folder):
    """The same numbers [4, A, ...], the images so far apart that a launch takes two of them."""
    storage = sparse(3 * 2**30 + tensor.numel(), tensor.dtype, folder)
    return storage.as_strided(tensor.shape, (2**30, *tensor.stride()[1:])).copy_(tensor)


@pytest.mark.parametrize("far", ["logits", "strided logits", "labels", "weights", "gradients"])
def test_images_beyond_what_32_bits_address(far, kernels, generator, tmp_path):
    tensors = {
        "logits": random_logits((4, 5, 16), torch.float16, generator),
        "labels": random_labels(4, 5, 16, generator),
        "weights": torch.rand(4, 5, generator=generator),
        "gradients": torch.rand(4, 5, generator=generator),
    }
    if far == "strided logits":
        tensors["logits"] = random_logits((4, 16, 5), torch.float16, generator).transpose(1, 2)

    def results():
        logits, *others = tensors.values()
        loss, (gradient,) = run([logits], *others)
        return loss, gradient

    expected = results()
    name = far.removeprefix("strided ")
    tensors[name] = far_apart(tensors[name], tmp_path)
    assert all(torch.equal(*pair) for pair in zip(results(), expected, strict=True))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(1, 2**25 + 1, 1), (1, 1, 2**25 + 1)])
def test_a_level_with_too_many_anchors_or_classes_is_refused(shape):
    logits = torch.zeros(1, 1, 1).expand(shape)
    labels = torch.full((1, 1), BACKGROUND, dtype=torch.int32).expand(shape[:2])
    with pytest.raises(RuntimeError, match="too large for a GPU"):
        sigmoid_focal_loss(logits, labels)


@pytest.mark.usefixtures("kernels")
def test_an_image_that_spans_too_much_is_refused(tmp_path):
    numbers = sparse(2**31 + 8, torch.float16, tmp_path)
    labels = torch.full((1, 3), BACKGROUND, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="too large for a GPU"):
        sigmoid_focal_loss(numbers.as_strided((1, 3, 8), (8, 2**30, 1)), labels)
    loss = sigmoid_focal_loss(numbers.as_strided((1, 3, 8), (8, 2**29, 1)), labels, gamma=0.0, alpha=None)
    torch.testing.assert_close(loss, 8 * torch.full((1, 3), 2.0).log())

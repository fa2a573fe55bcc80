"""Convolutions of a CPU against torch's: values, gradients, and when they stand back."""

import copy

import pytest
import torch
from torch import Tensor, nn

from detkit.builders import build_criterion
from detkit.config import load_config
from detkit.models import retinanet, sparse_gradients, winograd
from detkit.models.convolution import FastConv2d, use_fast_convolutions
from detkit.structures import ImageBatch

INSTRUCTIONS = ("AVX2", "AVX512")


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request, monkeypatch):
    """Of the processor; Winograd's convolutions stand back with AVX-512."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return request.param


@pytest.fixture
def ways(monkeypatch):
    """The modules whose gradients were asked for, in order; what is in neither came from torch."""
    used: list[str] = []

    def watch(module, name):
        compute = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *arguments: used.append(f"{module.__name__.split('.')[-1]}.{name}") or compute(*arguments),
        )

    for module in (winograd, sparse_gradients):
        watch(module, "image_gradient")
        watch(module, "weight_gradient")
    return used


def channels_last(*shape: int, seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last)


def layer(inputs: int = 64, outputs: int = 64, *, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The same convolution as torch's own and as the fast one."""
    torch.manual_seed(0)
    plain = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast)
    assert type(fast) is FastConv2d
    return plain, fast


def few_cells(gradient: Tensor) -> Tensor:
    """The same, zero but for a rectangle of each map."""
    kept = torch.zeros_like(gradient)
    kept[:, :, 3:9, 5:12] = gradient[:, :, 3:9, 5:12]
    return kept


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("few", [True, False], ids=["few", "all"])
@pytest.mark.parametrize("case", [((8, 64, 18, 18), 64), ((3, 64, 27, 29), 96), ((2, 80, 33, 32), 36)])
def test_values_and_gradients_equal_torchs_in_float64(case, few, bias, instructions, ways):
    shape, outputs = case
    plain, fast = layer(shape[1], outputs, bias=bias)
    images = channels_last(*shape, seed=1).requires_grad_()
    gradient = channels_last(shape[0], outputs, *shape[2:], seed=2)
    gradient = few_cells(gradient) if few else gradient
    exact_images = images.detach().double().requires_grad_()
    plain.double()
    found, expected = fast(images), plain(exact_images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(found, [images, *fast.parameters()], gradient)
    exact = torch.autograd.grad(expected, [exact_images, *plain.parameters()], gradient.double())
    for each, other in zip(mine, exact, strict=True):
        torch.testing.assert_close(each.double(), other, rtol=1e-5, atol=1e-5 * other.abs().max().item())
    way = "sparse_gradients" if few else "winograd" if instructions == "AVX2" and outputs >= 64 else None
    assert ways == ([f"{way}.image_gradient", f"{way}.weight_gradient"] if way else [])


@pytest.mark.parametrize("few", [True, False], ids=["few", "all"])
@pytest.mark.parametrize("frozen", ["image", "weight", "bias"])
def test_only_gradients_that_are_asked_for_are_computed(frozen, few, instructions, ways):
    plain, fast = layer()
    gradient = channels_last(8, 64, 18, 18, seed=2)
    made = []
    for convolution in (plain, fast):
        leaves = {"image": channels_last(8, 64, 18, 18, seed=1), **dict(convolution.named_parameters())}
        for name, leaf in leaves.items():
            leaf.requires_grad_(name != frozen)
        convolution(leaves["image"]).backward(few_cells(gradient) if few else gradient)
        made.append({name: leaf.grad for name, leaf in leaves.items()})
    assert made[1].pop(frozen) is None
    for name, found in made[1].items():
        torch.testing.assert_close(found, made[0][name], rtol=1e-4, atol=1e-4 * found.abs().max().item())
    assert not any(used.endswith(f"{frozen}_gradient") for used in ways)
    assert len(ways) == (few or instructions == "AVX2") * (2 if frozen == "bias" else 1)


@pytest.mark.parametrize("side", [33, 34])
def test_an_activation_in_place_may_follow(side, instructions):
    plain, fast = layer()
    images = channels_last(2, 64, side, side, seed=1)
    plain(images).relu_().sum().backward()
    fast(images).relu_().sum().backward()
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("images", "instructions"),
    [
        (channels_last(8, 64, 12, 12, seed=1), "AVX512"),
        (channels_last(1, 64, 20, 20, seed=1), "AVX2"),
        (channels_last(8, 64, 12, 12, seed=1).contiguous(), "AVX2"),
        (channels_last(8, 64, 12, 12, seed=1).double(), "AVX2"),
    ],
    ids=["AVX512", "small", "contiguous", "float64"],
    indirect=["instructions"],
)
def test_elsewhere_it_is_torchs_convolution_to_the_bit(images, instructions):
    plain, fast = layer()
    plain.to(images.dtype), fast.to(images.dtype)
    gradient = torch.randn_like(images)
    made = []
    for convolution in (plain, fast):
        leaf = images.clone().requires_grad_()
        found = convolution(leaf)
        made.append((found, *torch.autograd.grad(found, [leaf, *convolution.parameters()], gradient)))
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


@pytest.mark.parametrize("few", [True, False], ids=["few", "all"])
def test_under_autocast_it_computes_in_half_precision(few, instructions):
    plain, fast = layer()
    plain.double()
    images = channels_last(8, 64, 18, 18, seed=1)
    gradient = channels_last(8, 64, 18, 18, seed=2).bfloat16()
    gradient = few_cells(gradient) if few else gradient
    leaf, exact_leaf = images.clone().requires_grad_(), images.double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fast(leaf)
    assert found.dtype == torch.bfloat16
    exact = plain(exact_leaf)
    made = (found, *torch.autograd.grad(found, [leaf, *fast.parameters()], gradient))
    expected = (exact, *torch.autograd.grad(exact, [exact_leaf, *plain.parameters()], gradient.double()))
    assert [each.dtype for each in made[1:]] == [torch.float32] * 3
    for one, other in zip(made, expected, strict=True):
        within = 2**-7 * other.abs().max().item()
        torch.testing.assert_close(one.double(), other, rtol=2**-7, atol=within)


@pytest.mark.parametrize("few", [True, False], ids=["few", "all"])
def test_a_backward_pass_under_autocast_computes_as_the_forward_pass_did(few, instructions):
    plain, fast = layer()
    gradient = channels_last(8, 64, 18, 18, seed=2)
    gradient = few_cells(gradient) if few else gradient
    for convolution in (plain, fast):
        found = convolution(channels_last(8, 64, 18, 18, seed=1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.backward(gradient)
    exact = plain.weight.grad
    torch.testing.assert_close(fast.weight.grad, exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8, torch.int64], ids=str)
def test_types_that_do_not_go_together_are_refused_as_torch_does(dtype, instructions):
    plain, fast = layer()
    images = channels_last(8, 64, 18, 18, seed=1).to(dtype)
    for convolution in (plain, fast):
        with pytest.raises(RuntimeError, match=r"type|dtype|unsupported"):
            convolution(images)


def test_autocast_leaves_double_precision_alone(instructions):
    plain, fast = layer()
    plain.double(), fast.double()
    images = channels_last(8, 64, 18, 18, seed=1).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(images).dtype == plain(images).dtype == torch.float64


def test_a_weight_that_changed_since_the_forward_pass_is_refused(instructions):
    _, fast = layer()
    found = fast(channels_last(8, 64, 18, 18, seed=1)).sum()
    with torch.no_grad():
        fast.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_a_second_derivative_is_refused(instructions):
    _, fast = layer()
    images = channels_last(8, 64, 18, 18, seed=1).requires_grad_()
    (first,) = torch.autograd.grad(fast(images).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_compiled_it_is_torchs_convolution(instructions):
    plain, fast = layer()
    images = channels_last(8, 64, 18, 18, seed=1)
    found = torch.compile(fast, backend="aot_eager", fullgraph=True)(images)
    assert torch.equal(found, plain(images))


def test_the_default_type_makes_no_difference(instructions, monkeypatch):
    _, fast = layer()
    images = channels_last(8, 64, 18, 18, seed=1)
    expected = fast(images)
    torch.set_default_dtype(torch.float64)
    try:
        found = fast(images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_without_gradients_values_are_the_same(instructions):
    _, fast = layer()
    images = channels_last(8, 64, 12, 12, seed=1)
    with torch.inference_mode():
        found = fast(images)
    assert torch.equal(found, fast(images))


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(32, 64, 3, padding=1),
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(64, 64, 3, padding=1),
    ],
    ids=str,
)
def test_other_convolutions_stay_what_they_are(other):
    kind = type(other)
    use_fast_convolutions(other)
    assert type(other) is kind


def test_a_detector_keeps_its_weights_and_names(small_detector, monkeypatch):
    torch.manual_seed(3)
    model = small_detector(channels=64)
    monkeypatch.setattr(retinanet, "use_fast_convolutions", lambda module: None)
    torch.manual_seed(3)
    plain = small_detector(channels=64).state_dict()
    assert list(model.state_dict()) == list(plain)
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())
    # ResNet-18's but for its first one and the strided, the pyramid's three, and two for each head.
    for each in (model, copy.deepcopy(model)):
        assert sum(type(module) is FastConv2d for module in each.modules()) == 13 + 3 + 4


def test_a_detector_learns_the_same_where_most_cells_have_no_gradient(small_detector, ways):
    """Boxes are learnt at positive anchors alone, so that their head's gradients are sparse."""
    torch.manual_seed(3)
    model = (
        small_detector(channels=64, class_names=("cat",))
        .train()
        .double()
        .to(memory_format=torch.channels_last)
    )
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if type(module) is FastConv2d:
            module.__class__ = nn.Conv2d
    images = torch.rand(2, 3, 256, 320, dtype=torch.float64)
    targets = [
        {"boxes": torch.tensor([[40.0, 50, 80, 95]]), "labels": torch.tensor([0])},
        {"boxes": torch.tensor([[100.0, 90, 150, 140]]), "labels": torch.tensor([0])},
    ]
    criterion = build_criterion(load_config("configs/coco-r50.yaml", []))
    for each in (plain, model):
        batch = ImageBatch(images, ((256, 320),) * 2, ((256, 320),) * 2)
        sum(criterion(each.dense(batch), targets).values()).backward()
    assert ways.count("sparse_gradients.weight_gradient") == 2
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        within = 1e-9 * theirs.grad.abs().max().item()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=within, msg=name)

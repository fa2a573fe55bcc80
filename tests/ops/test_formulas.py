"""The formulas that the CPU and the GPU share, compiled on the host and held against float64 mathematics.

formulas.cpp is compiled as setup.py compiles csrc, for each instruction set that this processor has.
"""

import ctypes
import math
import os
import runpy
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest
import torch
from cpu_levels import NAMESPACES, missing_features
from torch.nn import functional as F

from detkit.ops import reference

ROOT = Path(__file__).parents[2]
TYPES = {"float": torch.float32, "pack": torch.float32, "gpu": torch.float32, "double": torch.float64}
"""What a formula computes with, and the type of the tensors that it reads and writes."""
GAMMAS = (0.0, 0.5, 1.7, 2.0, 5.0)
LARGEST_PACK = 16


class Formulas:
    """The functions of formulas.cpp for one instruction set."""

    def __init__(self, library: Path, level: str):
        self.library = ctypes.CDLL(str(library))
        fused = level not in ("any", "x86-64-v2")
        single = (3e-7, 2e-8) if fused else (3.5e-7, 1e-7)
        self.exponential_error = {"float": single, "pack": single, "gpu": (3e-7, 1e-7), "double": (4e-16, 0)}
        """The bound of the exponential's relative error for each type: a constant, and what each unit of |x| adds.

        Without a fused multiply-add x / log(2) is rounded before its integer part is taken off; on a GPU, always.
        """

    def call(self, name: str, *arguments: torch.Tensor | float) -> None:
        """Call a function with pointers to tensors, whose last dimension is the count that it is told, and numbers."""
        count = next(argument for argument in arguments[::-1] if isinstance(argument, torch.Tensor)).shape[-1]
        assert count % LARGEST_PACK == 0
        getattr(self.library, name)(
            *(
                ctypes.c_void_p(argument.data_ptr())
                if isinstance(argument, torch.Tensor)
                else ctypes.c_double(argument)
                for argument in arguments
            ),
            ctypes.c_int64(count),
        )

    def of(self, name: str, values: torch.Tensor, kind: str, gamma: float = 0.0) -> torch.Tensor:
        """formula(values), which are padded to whole packs."""
        values = values.to(TYPES[kind])
        padded = F.pad(values, (0, -len(values) % LARGEST_PACK)).contiguous()
        results = torch.empty_like(padded)
        self.call(f"{name}_{kind}", gamma, padded, results)
        return results[: len(values)]


@pytest.fixture(scope="session", params=[level for level in NAMESPACES if not missing_features(level)])
def formulas(request, tmp_path_factory):
    """The formulas for one instruction set after another."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no C++ compiler: {compiler} is not found")
    if not (ROOT / "csrc").is_dir():
        pytest.skip("csrc is not beside the tests")
    with mock.patch("setuptools.setup"):
        settings = runpy.run_path(str(ROOT / "setup.py"))
    namespace = NAMESPACES[request.param]
    library = tmp_path_factory.mktemp("formulas") / f"{namespace}.so"
    options = [*settings["HOST"], f"-DCPU_LEVEL={namespace}", *settings["CPU_LEVELS"][namespace]]
    command = [compiler, *options, "-Werror", "-I", str(ROOT / "csrc"), "-shared"]
    source = Path(__file__).with_name("formulas.cpp")
    process = subprocess.run(
        [*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return Formulas(library, request.param)


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    return ((found.double() - exact) / exact).abs()


@pytest.mark.parametrize("kind", TYPES)
def test_exponential_is_as_exact_as_its_comment_promises(formulas, kind):
    x = torch.cat([torch.linspace(-87, 0, 2_000_003), -torch.logspace(-44, 0, 100_000)]).to(TYPES[kind])
    error = relative_error(formulas.of("exp_nonpositive", x, kind), x.double().exp())
    constant, slope = formulas.exponential_error[kind]
    assert (error - slope * x.double().abs()).max() < constant


@pytest.mark.parametrize("kind", ["float", "pack"])
def test_exponential_of_what_is_too_small(formulas, kind):
    x = torch.tensor([-87.0, -87.5, -88.0, -104.0, -1e4, -1e30, -math.inf])
    assert formulas.of("exp_nonpositive", x, kind).sub(1.6458e-38).abs().max() < 1e-42
    ends = torch.tensor([-0.0, 0.0, math.nan])
    assert formulas.of("exp_nonpositive", ends, kind).isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("kind", TYPES)
def test_logarithm_is_as_exact_as_its_comment_promises(formulas, kind):
    x = torch.cat([torch.linspace(0, 1, 2_000_003)[1:], torch.logspace(-37, 0, 100_000)]).to(TYPES[kind])
    error = relative_error(formulas.of("log1p_unit", x, kind), x.double().log1p())
    assert error.max() < {"double": 4e-16, "gpu": 1.5e-6}.get(kind, 5e-7)
    ends = torch.tensor([0.0, 1e-45, math.nan])
    torch.testing.assert_close(
        formulas.of("log1p_unit", ends, kind).float(), ends, rtol=0, atol=0, equal_nan=True
    )


def exact_loss(logits: torch.Tensor, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of negatives with these logits in float64, and its slope, from autograd."""
    logits = logits.double().requires_grad_()
    loss = torch.sigmoid(logits) ** gamma * -F.logsigmoid(-logits)
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), slope


def check_formula(formulas, name, kind, gamma, logits):
    """A formula against the exact one; each factor may lose what the exponential does, and some roundings more."""
    positive = name.startswith("positive")
    loss, slope = exact_loss(-logits if positive else logits, gamma)
    exact = loss if name.endswith("loss") else -slope if positive else slope
    found = formulas.of(name, logits, kind, gamma).double()
    constant, smallest = {"double": (4e-14, 1e-300), "gpu": (2e-6, 1e-36)}.get(kind, (8e-7, 1e-36))
    _, growth = formulas.exponential_error[kind]
    tolerance = (1 + gamma) * (constant + growth * logits.double().abs())
    assert ((found - exact).abs() <= tolerance * exact.abs() + smallest).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", ["negative_loss", "negative_slope", "positive_loss", "positive_slope"])
def test_losses_and_slopes(formulas, name, gamma, kind):
    check_formula(formulas, name, kind, gamma, torch.linspace(-40, 40, 100_001).to(TYPES[kind]))


@pytest.mark.parametrize("kind", ["float", "pack", "gpu"])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("name", ["easy_loss", "easy_slope"])
def test_easy_forms_of_what_is_background_beyond_doubt(formulas, name, gamma, kind):
    logits = torch.cat([torch.linspace(-87, -2, 100_001), torch.tensor([math.nextafter(-2, -3)])])
    check_formula(formulas, name, kind, gamma, logits)
    lowest = torch.tensor([-100.0, -1e30, -math.inf])
    assert formulas.of(name, lowest, kind, gamma).abs().max() < 2e-38


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_coarse_slope_is_as_exact_as_its_comment_promises(formulas, gamma):
    logits = torch.linspace(-40, math.nextafter(-2, -3), 100_001)
    _, exact = exact_loss(logits, gamma)
    found = formulas.of("coarse_slope", logits, "pack", gamma)
    assert ((found.double() - exact).abs() <= 5e-4 * exact + 1e-36).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_logits(formulas, gamma, kind):
    """The slope at an infinite loss is the only one left out."""
    logits = torch.tensor([-math.inf, -1e30, -100, 0, 88, 1e30, math.inf])
    half = 0.5**gamma * math.log(2)
    loss = torch.tensor([0, 0, 0, half, 88, 1e30, math.inf])
    slope = torch.tensor([0, 0, 0, half * gamma / 2 + 0.5 ** (1 + gamma), 1, 1])
    for sign, name in ((1, "negative"), (-1, "positive")):
        found = formulas.of(f"{name}_loss", sign * logits, kind, gamma)
        torch.testing.assert_close(found.float(), loss, rtol=1e-5, atol=1e-36)
        found = formulas.of(f"{name}_slope", sign * logits[:-1], kind, gamma)
        torch.testing.assert_close(found.float(), sign * slope, rtol=1e-5, atol=1e-36)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_no_number_stays_none_whatever_its_bits(formulas, gamma):
    bits = torch.tensor([0x7FC00000, 0x7FFFFFFF, 0x7F800001, 0x7FC00100, -0x400000, -1], dtype=torch.int32)
    for kind in TYPES:
        for name in ("negative_loss", "negative_slope", "positive_loss", "positive_slope"):
            found = formulas.of(name, bits.view(torch.float32), kind, gamma)
            assert found.isnan().all(), (kind, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_widening_every_number(formulas, dtype):
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    expected = values.float()
    scalars, lanes = torch.empty(2, len(values))
    formulas.call(f"widen_{str(dtype).removeprefix('torch.')}", values, scalars, lanes)
    for found in (scalars, lanes):
        assert torch.equal(found.isnan(), values.isnan())
        numbers = ~values.isnan()
        assert torch.equal(found[numbers].view(torch.int32), expected[numbers].view(torch.int32))


def hard_to_round(dtype: torch.dtype) -> torch.Tensor:
    """All numbers of ``dtype``, the ties between them, what is just beside those, and a million of any bits."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).float()
    numbers = numbers[numbers.isfinite()].unique()
    largest = torch.finfo(dtype).max
    beyond = 2 * largest - numbers[-2].double()
    numbers = torch.cat([-beyond.view(1), numbers.double(), beyond.view(1)])
    ties = ((numbers[:-1] + numbers[1:]) / 2).float()
    assert (ties.double() * 2 == numbers[:-1] + numbers[1:]).all()
    infinity = torch.tensor(math.inf)
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (2**20,), generator=generator).to(torch.int32)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 3e38, 1e-45])
    return torch.cat(
        [
            numbers.float(),
            ties,
            ties.nextafter(infinity),
            ties.nextafter(-infinity),
            bits.view(torch.float32),
            special,
        ]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrowing_rounds_as_torch_does(formulas, dtype):
    values = hard_to_round(dtype)
    values = F.pad(values, (0, -len(values) % LARGEST_PACK)).contiguous()
    expected = values.to(dtype)
    scalars, lanes = torch.empty(2, len(values), dtype=dtype)
    formulas.call(f"narrow_{str(dtype).removeprefix('torch.')}", values, scalars, lanes)
    for found in (scalars, lanes):
        assert torch.equal(found.isnan(), values.isnan())
        numbers = ~values.isnan()
        assert torch.equal(found[numbers].view(torch.int16), expected[numbers].view(torch.int16))


def boxes(kind: str, count: int, generator: torch.Generator) -> torch.Tensor:
    """Columns [4, count] of boxes: on a coarse grid, of any size, or spoilt."""
    corner = torch.rand(2, count, generator=generator)
    extent = torch.rand(2, count, generator=generator) ** 3
    result = torch.cat([corner, corner + extent])
    if kind == "grid":
        return (8 * result).round() / 8
    if kind == "sizes":
        return result * 10.0 ** torch.randint(-12, 19, (1, count), generator=generator)
    if kind == "spoilt":
        values = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -1.0, 1e30, 1e-40])
        chosen = values[torch.randint(len(values), (4, count), generator=generator)]
        return torch.where(torch.rand(4, count, generator=generator) < 0.2, chosen, result)
    return result


def area(columns: torch.Tensor) -> torch.Tensor:
    return (columns[2] - columns[0]) * (columns[3] - columns[1])


def pairs(anchors: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each anchor with each box: columns [4, A * G] both."""
    count = anchors.shape[1]
    return anchors.repeat_interleave(boxes.shape[1], dim=1), boxes.repeat(1, count)


@pytest.mark.parametrize("kind", ["plain", "grid", "sizes", "spoilt"])
def test_iou_has_the_same_bits_in_packs_and_in_torch(formulas, kind):
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        anchors, others = boxes(kind, 64, generator), boxes(kind, 96, generator)
        others[:, :20] = anchors[:, :20]
        single, packs = torch.empty(2, 64 * 96)
        formulas.call("pairwise_iou_float", *pairs(anchors, others), single)
        formulas.call("pairwise_iou_pack", *pairs(anchors, others), packs)
        assert torch.equal(single, packs)
        assert torch.equal(single.view(64, 96), reference.box_iou(anchors.t(), others.t()))
        assert single.amax() == 1


def block_of(anchors: torch.Tensor) -> torch.Tensor:
    """The extent, the least and the most area of columns [4, A], without what is no number."""
    rows = torch.cat([anchors, area(anchors)[None]])
    least = rows.nan_to_num(math.inf, math.inf, -math.inf).amin(dim=1)
    most = rows.nan_to_num(-math.inf, math.inf, -math.inf).amax(dim=1)
    return torch.stack([*least[:2], *most[2:4], least[4], most[4]])


def block_and_boxes(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to 64 anchors and 32 boxes; many coincide, nearly coincide, or hold one another."""
    kinds = ["plain", "grid", "sizes", "spoilt"]
    kind = kinds[torch.randint(len(kinds), (), generator=generator)]
    count = int(torch.randint(1, 65, (), generator=generator))
    scale = 10.0 ** int(torch.randint(-12, 19, (), generator=generator))
    anchors = scale * boxes(kind, count, generator)
    others = scale * boxes(kind, 32, generator)
    near = 1 + 1e-7 * torch.randint(-8, 9, (4, min(count, 16)), generator=generator)
    others[:, : near.shape[1]] = anchors[:, : near.shape[1]] * near
    others[:, -4:] = block_of(anchors)[:4, None] * torch.tensor([1, 1, 0.5, 2])
    return anchors, others


def test_culling_never_loses_an_anchor_that_reaches_the_iou(formulas):
    """Save where an area is near the ends of what a float can hold, as that of no box in pixels is."""
    generator = torch.Generator().manual_seed(0)
    reached = culled = 0
    for _ in range(500):
        anchors, others = block_and_boxes(generator)
        iou, single, packs = torch.empty(3, anchors.shape[1] * 32)
        both = pairs(anchors, others)
        formulas.call("pairwise_iou_float", *both, iou)
        formulas.call("may_reach_float", block_of(anchors), both[1], iou, single)
        formulas.call("may_reach_pack", block_of(anchors), both[1], iou, packs)
        assert torch.equal(single, packs)
        must = iou > 0
        assert (single[must] == 1).all()
        formulas.call("may_reach_float", block_of(anchors), both[1], torch.zeros_like(iou), packs)
        assert (packs >= single).all()
        reached += must.sum().item()
        formulas.call("may_reach_float", block_of(anchors), both[1], 0.4 + torch.zeros_like(iou), packs)
        culled += (packs == 0).sum().item()
    assert reached > 50_000
    assert culled > 50_000


def test_culling_never_loses_an_iou_below_the_normal_numbers(formulas):
    """Such a one may have rounded to twice what it is."""
    sides = torch.logspace(-19, -14, 3200)
    others = torch.stack([0 * sides, 0 * sides, sides, sides])
    anchor = torch.tensor([0.0, 0, 3e4, 3e4])[:, None]
    iou, single, packs = torch.empty(3, 3200)
    formulas.call("pairwise_iou_float", anchor.repeat(1, 3200), others, iou)
    formulas.call("may_reach_float", block_of(anchor), others, iou, single)
    formulas.call("may_reach_pack", block_of(anchor), others, iou, packs)
    assert ((iou > 0) & (iou < torch.finfo(torch.float32).smallest_normal)).sum() > 2000
    assert (single[iou > 0] == 1).all()
    assert (packs[iou > 0] == 1).all()


def test_culling_by_one_anchor_is_sharp(formulas):
    generator = torch.Generator().manual_seed(1)
    others = boxes("plain", 320, generator)
    for anchor in boxes("plain", 50, generator).t():
        iou, reach = torch.empty(2, 320)
        formulas.call("pairwise_iou_float", anchor[:, None].repeat(1, 320), others, iou)
        formulas.call("may_reach_float", block_of(anchor[:, None]), others, 1.0002 * iou, reach)
        assert (reach == 0).all()

"""Every instruction set of the CPU kernels gives the right results, and only its own functions use it."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import cpu_levels
import pytest
import torch
from cpu_levels import DTYPES, NAMESPACES, loss_cases, matching_cases, missing_features

from detkit.ops import _library, reference

pytestmark = pytest.mark.skipif(
    not _library.CPU.loaded, reason=f"the CPU library is not loaded: {_library.CPU.reason}"
)
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def run(level, *arguments):
    """Run Python with the kernels of one instruction set."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "DETKIT_CPU": level,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )


@pytest.fixture(scope="module")
def results_of(tmp_path_factory):
    """Call with an instruction set for what comes of all cases with it; skips where this processor has it not."""
    known: dict = {}

    def results(level):
        if missing := missing_features(level):
            pytest.skip(f"this processor is not {level}: it lacks {missing}")
        if level not in known:
            path = tmp_path_factory.mktemp("levels") / "results.pt"
            process = run(level, cpu_levels.__file__, str(path))
            assert process.returncode == 0, process.stderr
            known[level] = torch.load(path)
        return known[level]

    return results


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", NAMESPACES)
def test_losses_and_gradients_are_those_of_the_reference_in_float64(results_of, level, dtype):
    results = results_of(level)
    loss_tolerance = min(1e-5, TOLERANCE[dtype])
    for key, case in loss_cases(dtype):
        loss, *gradients = results[dtype, *key]
        logits = [logit.double() for logit in case.levels]
        weights = None if case.weights is None else case.weights.double()
        arguments = (logits, case.labels, weights)
        parameters = {"alpha": case.alpha, "gamma": case.gamma}
        expected = reference.sigmoid_focal_loss(*arguments, **parameters)
        torch.testing.assert_close(loss.double(), expected, rtol=loss_tolerance, atol=1e-9, msg=str(key))
        slopes = reference.sigmoid_focal_loss_backward(case.grad.double(), *arguments, **parameters)
        for found, slope in zip(gradients, slopes, strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(
                found.double(),
                slope,
                rtol=TOLERANCE[dtype],
                atol=torch.finfo(dtype).smallest_normal,
                msg=str(key),
            )


@pytest.mark.parametrize("level", NAMESPACES)
def test_labels_of_anchors_are_those_of_the_reference(results_of, level):
    results = results_of(level)
    for key, case in matching_cases():
        expected = reference.match_anchors(
            case.anchors, case.boxes, foreground_iou=0.5, background_iou=0.4, low_quality=case.low_quality
        )
        assert torch.equal(results[key], expected), key
        assert (expected >= 0).sum() > 100


@pytest.mark.parametrize(("lower", "level"), list(pairwise(NAMESPACES)))
def test_instruction_sets_agree(results_of, lower, level):
    one, other = results_of(lower), results_of(level)
    for key, result in one.items():
        if isinstance(result, torch.Tensor):
            assert torch.equal(result, other[key]), key
        else:
            torch.testing.assert_close(result, other[key], rtol=2e-2, atol=1e-3, msg=str(key))


USE_AN_OP = """
import torch
from detkit.ops import match_anchors
boxes = torch.tensor([[0.0, 0, 4, 4]])
try:
    print(match_anchors(boxes, [boxes]).item())
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["native", "X86-64-V2"])
def test_an_unknown_instruction_set_is_an_error_that_names_those_there_are(name):
    process = run(name, "-c", USE_AN_OP)
    has = ", ".join(level for level in NAMESPACES if not missing_features(level))
    assert process.stdout == f"detkit: DETKIT_CPU is {name}; this processor and build have {has}\n"


def test_an_instruction_set_that_the_processor_lacks_is_an_error():
    lacking = [level for level in NAMESPACES if missing_features(level)]
    if not lacking:
        pytest.skip("this processor has all of them")
    for level in lacking:
        assert run(level, "-c", USE_AN_OP).stdout.startswith(f"detkit: DETKIT_CPU is {level}; this processor")


# What instructions of a level look like: their names and their operands. Older processors run tzcnt as another
# instruction, and compilers use it where that does not matter.
V4_OPERANDS = re.compile(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|[23]\d)")
V3_NAMES = re.compile(
    r"v.+|(andn|bextr|bls[ir]|blsmsk|bzhi|mulx|pdep|pext|rorx|s[ah]rx|shlx|lzcnt|movbe)[lq]?"
)


def namespace_needed(name, operands):
    """The lowest namespace in which an instruction may stand."""
    if V4_OPERANDS.search(operands):
        return "x86_64_v4"
    return "x86_64_v3" if V3_NAMES.fullmatch(name) else "any_level"


def namespace_of(function):
    """The namespace that a mangled name says; the getters stand outside, as specialisations for a level."""
    getter = re.search(r"(?:matching|focal_loss)_kernelsILNS_8CpuLevelE(\d)E", function)
    if getter:
        return list(NAMESPACES.values())[int(getter[1])]
    return next((namespace for namespace in NAMESPACES.values() if namespace in function), "any_level")


@pytest.fixture(scope="module")
def instructions():
    """The names and operands of each function's instructions, by its mangled name."""
    if "x86-64-v4" not in NAMESPACES:
        pytest.skip(f"a processor of type {platform.machine()} has one instruction set here")
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not found; it comes with binutils")
    (library,) = Path(_library.__file__).parent.glob("_cpu.*")
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    found = defaultdict(set)
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            function = start[1]
        elif instruction := re.match(r" +[0-9a-f]+:\s+(\S+)\s*(.*)", line):
            found[function].add((instruction[1], instruction[2]))
    return found


def test_no_function_uses_instructions_of_a_higher_level_than_its_name_says(instructions):
    order = list(NAMESPACES.values())
    wrong = {
        (function, name)
        for function, body in instructions.items()
        for name, operands in body
        if order.index(namespace_needed(name, operands)) > order.index(namespace_of(function))
    }
    assert not wrong


REGISTERS = {"any_level": "xmm", "x86_64_v3": "ymm", "x86_64_v4": "zmm"}
HOT_LOOPS = {"FocalLoss": ("fmadd", "divps", "maxps"), "ImageBoxes": ("divps", "minps", "maxps")}
"""What those of an op do, which are known by the type of a parameter."""


@pytest.mark.parametrize("namespace", REGISTERS)
@pytest.mark.parametrize("parameter", HOT_LOOPS)
def test_the_hot_loops_use_the_registers_of_their_level(instructions, namespace, parameter):
    used = {
        name
        for function, body in instructions.items()
        if namespace in function and parameter in function
        for name, operands in body
        if REGISTERS[namespace] in operands
    }
    for operation in HOT_LOOPS[parameter] if namespace != "any_level" else ("mulps", "divps"):
        assert any(operation in name for name in used), operation

"""The compiled libraries, and what happens where there are none."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detkit import labels
from detkit.ops import _library

ROOT = Path(__file__).parents[2]
USE_BOTH_OPS = """
import torch
from detkit.ops import match_anchors, sigmoid_focal_loss
logits = torch.linspace(-3, 3, 24).reshape(2, 4, 3).requires_grad_()
loss = sigmoid_focal_loss(logits, torch.tensor([[0, -1, -2, 2]] * 2, dtype=torch.int32))
loss.sum().backward()
boxes = torch.tensor([[0.0, 0, 4, 4], [1, 0, 5, 4]])
results = loss.tolist(), logits.grad.tolist(), match_anchors(boxes, [boxes[1:]]).tolist()
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def test_the_sentinels_are_the_same_in_both_languages():
    header = ROOT / "csrc" / "labels.h"
    if not header.is_file():
        pytest.skip("csrc is not beside the tests")
    found = dict(re.findall(r"constexpr int32_t (\w+) = (-?\d+);", header.read_text()))
    assert {name: int(value) for name, value in found.items()} == {
        "BACKGROUND": labels.BACKGROUND,
        "IGNORE": labels.IGNORE,
    }


def test_the_library_defines_the_schemas_that_python_expects():
    if not _library.CPU.loaded:
        pytest.skip(f"the CPU library is not loaded: {_library.CPU.reason}")
    for name, schema in _library.SCHEMAS.items():
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"detkit::{name}", "CPU")
        assert str(getattr(torch.ops.detkit, name).default._schema) == f"detkit::{name}{schema}"


@pytest.mark.parametrize("status", [_library.CPU, _library.CUDA], ids=lambda status: status.name)
def test_the_library_needs_nothing_of_torch_but_its_stable_abi(status):
    """So that one build serves every torch: none of its C++ functions, which change from release to release."""
    if not status.loaded:
        pytest.skip(f"the library {status.name} is not loaded: {status.reason}")
    if shutil.which("nm") is None:
        pytest.skip("nm is not found; it comes with binutils")
    (library,) = Path(_library.__file__).parent.glob(f"{status.name}.*")
    command = ["nm", "--dynamic", "--undefined-only", "--format=just-symbols", str(library)]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "torch_call_dispatcher" in " ".join(needed)
    assert [name for name in needed if re.match(r"_Z(T[ISV])?N?K?(2at|3c10|5torch|6caffe2)", name)] == []


def test_without_the_library_the_reference_gives_the_same_and_says_nothing_when_asked_for():
    process = run(USE_BOTH_OPS + "print(results)", DETKIT_EXTENSION="0")
    assert process.stderr == ""
    here: dict = {}
    exec(USE_BOTH_OPS, here)
    for found, expected in zip(eval(process.stdout), here["results"], strict=True):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_warns_once_where_no_library_is_found():
    code = """
import warnings, pathlib
pathlib.Path.glob = lambda self, pattern: iter(())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import detkit.ops
    from detkit.ops import focal_loss, matching
print([str(warning.message) for warning in caught if "detkit" in str(warning.message)])
"""
    (message,) = eval(run(code, DETKIT_EXTENSION="1").stdout)
    assert "it is not built" in message
    assert "python -m detkit.doctor" in message


def test_a_library_that_cannot_be_loaded_is_reported(tmp_path, monkeypatch):
    (tmp_path / "_broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    monkeypatch.delenv("DETKIT_EXTENSION", raising=False)
    status = _library._load("_broken")
    assert not status.loaded
    assert "_broken.so" in status.reason
    assert _library._load("_absent").reason == "it is not built"


def test_the_reference_serves_devices_without_a_kernel():
    """Kernels of a library come first; the reference is there for every device beside them."""
    for name in _library.SCHEMAS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"detkit::{name}", "CompositeExplicitAutograd")

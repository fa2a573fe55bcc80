"""Builds the CUDA sources of csrc for the host (folder cuda_on_host), and lets the ops run them on CPU tensors."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from detkit.ops import _library

CSRC = Path(__file__).parents[2] / "csrc"
HOST = Path(__file__).parent / "cuda_on_host"
REWRITTEN = {
    r"(\S.*)<<<(.+)>>>\((.*)\);": r"run_on_host(\2, [=](const auto&... a) { \1(a...); }, \3);",
    r"\bconst __grid_constant__ (\w+) ": r"const \1& ",
}
"""What a header cannot make C++ of: launches, and parameters that all threads share."""
CHECKS = "alignment,bounds-strict,integer-divide-by-zero,shift,signed-integer-overflow"
OPTIONS = [
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing"),
    *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DUSE_CUDA", f"-I{HOST}"),
    *("-isystem", str(Path(torch.__file__).parent / "include")),
]
# The checks of an operating system's kernel: those for programs must be loaded before Python itself.
CHECKED = [
    *("-O1", f"-fsanitize=kernel-address,{CHECKS}", f"-fno-sanitize-recover={CHECKS}"),
    # Each access to memory calls a function of warps.cpp.
    *("--param=asan-instrumentation-with-call-threshold=0", "--param=asan-stack=0", "--param=asan-globals=0"),
]


def rewrite(source: Path) -> None:
    """Make C++ of a CUDA source."""
    text = source.read_text()
    for pattern, replacement in REWRITTEN.items():
        text = re.sub(pattern, replacement, text)
    assert "<<<" not in text, f"{source.name}: a launch of another form"
    source.write_text(text)


def build(folder: Path) -> Path:
    """Compile the CUDA sources into a library in ``folder``; skips where there is no g++ or no csrc."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to compile the kernels for the host")
    if not CSRC.is_dir():
        pytest.skip("csrc is not beside the tests")
    copy = folder / "csrc"
    shutil.copytree(CSRC, copy)
    shutil.copy(HOST / "undefined.cu", copy)
    objects = [_compile(HOST / "warps.cpp", folder, "-O2"), _compile(copy / "library.cpp", folder, "-O1")]
    for source in sorted(copy.rglob("*.cu")):
        rewrite(source)
        objects.append(_compile(source, folder, *CHECKED))
    library = folder / "kernels.so"
    wrapped = re.findall(r"\b__wrap_(\w+)", (HOST / "warps.cpp").read_text())
    # Without the compiler's checks: warps.cpp has all that they call, and their own library may not be there.
    _run(
        *(
            "g++",
            "-shared",
            *objects,
            *(f"-Wl,--wrap={name}" for name in wrapped),
            "-Wl,-zdefs",
            "-o",
            library,
        ),
        *(f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu"),
    )
    return library


def _compile(source: Path, folder: Path, *options: str) -> Path:
    made = folder / f"{source.stem}.o"
    _run("g++", *OPTIONS, *options, "-x", "c++", "-c", source, "-o", made)
    return made


def _run(*command: str | Path) -> None:
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


@contextmanager
def kernels_in_use(library: Path) -> Iterator[ctypes.CDLL]:
    """Let the ops of detkit run the kernels of a library that build() has made, and hand out its functions."""
    torch.ops.load_library(library)
    with torch.library._scoped_library("detkit", "IMPL") as in_place_of_cpu:
        for name in _library.SCHEMAS:
            in_place_of_cpu.impl(name, getattr(torch.ops.detkit_on_host, name).default, "CPU")
        yield ctypes.CDLL(str(library))

"""Says what is installed, what works, what does not and how to mend it: ``python -m detkit.doctor [--json]``.

It uses the standard library alone and survives whatever is broken. The exit status is 1 if something is wrong
that matters. With ``--json`` it prints one object: ``versions``, ``libraries``, ``build_tools``, ``hardware`` and
``problems`` (a list of objects with ``what``, ``remedy`` and ``serious``).
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import detkit

REQUIRED = (
    "torch",
    "torchvision",
    "opencv-python-headless",
    "albumentations",
    "pycocotools",
    "pydantic",
    "PyYAML",
    "rich",
    "numpy",
    "matplotlib",
)
OPTIONAL = ("scikit-image", "faster-coco-eval", "tensorboard")
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
TORCH_MINOR_AHEAD = 15  # torch 2.N goes with torchvision 0.(N + 15)
BUILD = "pip install --no-build-isolation -e . in a checkout (python setup.py build_ext --inplace to see why it fails)"

Versions = Mapping[str, str | None]


@dataclass(frozen=True)
class Problem:
    """Something wrong, and how to mend it; what is not serious costs speed or convenience alone."""

    what: str
    remedy: str
    serious: bool = True


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> str | None:
    """What importing ``module`` raises, in one line, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def check_packages(versions: Versions) -> list[Problem]:
    """Packages that are missing, and several that fight for the folder cv2."""
    problems = [
        Problem(f"{package} is not installed", f"pip install {package}")
        for package in REQUIRED
        if versions.get(package) is None
    ]
    opencv = [package for package in OPENCV if installed_version(package)]
    if len(opencv) > 1:
        problems.append(
            Problem(
                f"{' and '.join(opencv)} overwrite each other's cv2",
                f"pip uninstall -y {' '.join(opencv)}; pip install opencv-python-headless",
            )
        )
    return problems


def check_pair(versions: Versions, torchvision_error: str | None) -> list[Problem]:
    """A torchvision that was made for another torch."""
    torch, torchvision = versions.get("torch"), versions.get("torchvision")
    if torch is None or torchvision is None:
        return []
    minor = int(torch.split(".")[1])
    paired = torchvision.startswith(f"0.{minor + TORCH_MINOR_AHEAD}.")
    if paired and torchvision_error is None:
        return []
    found = f" ({torchvision_error})" if torchvision_error else ""
    return [
        Problem(
            f"torch {torch} and torchvision {torchvision} are no pair{found}",
            f"install both together and from one place, both for CUDA or both for the CPU: "
            f"pip install --force-reinstall torch==2.{minor}.* torchvision==0.{minor + TORCH_MINOR_AHEAD}.*",
        )
    ]


def check_imports(versions: Versions) -> list[Problem]:
    """Packages that are there and cannot be imported."""
    torch_error = import_error("torch") if versions.get("torch") else None
    if torch_error:
        return [Problem(f"torch cannot be imported: {torch_error}", "install torch and torchvision again")]
    problems = check_pair(versions, import_error("torchvision"))
    opencv_error = import_error("cv2")
    if opencv_error and versions.get("opencv-python-headless"):
        problems.append(
            Problem(
                f"cv2 cannot be imported: {opencv_error}",
                "pip uninstall -y every opencv package, and pip install opencv-python-headless",
            )
        )
    return problems


def compiled_libraries() -> dict[str, dict[str, Any]]:
    """Which of the two libraries of ops are in use, and if not why."""
    error = import_error("detkit.ops")
    if error:
        status = {"loaded": False, "reason": f"detkit.ops cannot be imported: {error}"}
        return {"cpu": status, "cuda": status}
    from detkit.ops import _library

    return {
        "cpu": {"loaded": _library.CPU.loaded, "reason": _library.CPU.reason},
        "cuda": {"loaded": _library.CUDA.loaded, "reason": _library.CUDA.reason},
    }


def check_libraries(
    libraries: Mapping[str, Mapping[str, Any]], tools: Mapping[str, str | None], gpus: list[str]
) -> list[Problem]:
    """Libraries that should be in use; the reference runs in their place, so only a broken one is serious."""
    problems = []
    for name, tool, wanted in (("cpu", "compiler", True), ("cuda", "nvcc", bool(gpus))):
        library = libraries[name]
        if library["loaded"] or not wanted:
            continue
        reason = library["reason"]
        missing = "" if tools[tool] else f"install {'a C++ compiler (g++)' if name == 'cpu' else 'nvcc'}, then "
        remedy = "unset DETKIT_EXTENSION" if "DETKIT_EXTENSION" in reason else missing + BUILD
        problems.append(
            Problem(
                f"the {name.upper()} library is not in use ({reason}); slower ops in plain PyTorch run instead",
                remedy,
                serious=not reason.startswith(("it is not built", "DETKIT_EXTENSION", "the CPU library")),
            )
        )
    return problems


def build_tools() -> dict[str, str | None]:
    """The compilers that setup.py would use, by their own words."""
    return {
        "compiler": _first_version_line(os.environ.get("CXX", "g++"), "Free Software|clang|g\\+\\+"),
        "nvcc": _first_version_line(os.environ.get("NVCC") or _nvcc(), "release"),
    }


def _nvcc() -> str:
    folder = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or f"{folder}/bin/nvcc"


def _first_version_line(program: str, word: str) -> str | None:
    """The line of ``program --version`` that holds ``word``, or None where it does not run."""
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = output.stdout.splitlines()
    return next((line for line in lines if word in line), lines[0] if lines else program)


def hardware() -> dict[str, Any]:
    """The processor, what it can do, and the GPUs that torch sees."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    fields = dict(reversed([part.strip() for part in line.split(":", 1)]) for line in lines if ":" in line)
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "cpu_features": [feature for feature in CPU_FEATURES if feature in flags],
        "gpus": gpu_names(),
    }


def gpu_names() -> list[str]:
    """The GPUs that torch can use."""
    if import_error("torch"):
        return []
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def examine() -> dict[str, Any]:
    """Everything that the doctor finds; see the module's docstring for the keys."""
    versions: dict[str, str | None] = {"detkit": detkit.__version__, "Python": platform.python_version()}
    versions |= {package: installed_version(package) for package in (*REQUIRED, *OPTIONAL)}
    problems = check_packages(versions) + check_imports(versions)
    libraries, tools, machine = compiled_libraries(), build_tools(), hardware()
    problems += check_libraries(libraries, tools, machine["gpus"])
    return {
        "versions": versions,
        "libraries": libraries,
        "build_tools": tools,
        "hardware": machine,
        "problems": [asdict(problem) for problem in problems],
    }

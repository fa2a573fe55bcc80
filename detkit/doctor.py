"""Says what is installed, what works, what does not and how to mend it: ``python -m detkit.doctor [--json]``.

It uses the standard library alone and survives whatever is broken. The exit status is 1 if something is wrong
that matters. With ``--json`` it prints one object: ``versions``, ``libraries``, ``build_tools``, ``hardware`` and
``problems`` (a list of objects with ``what``, ``remedy`` and ``serious``). ``libraries.cpu.instruction_set`` is the
one that the CPU's ops use, null where they are not in use or DETKIT_CPU names none.
"""

import argparse
import ctypes
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
    "jinja2",
)
OPTIONAL = ("scikit-image", "faster-coco-eval", "tensorboard", "optuna")
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
TORCH_MINOR_AHEAD = 15  # torch 2.N goes with torchvision 0.(N + 15)
BUILD = "pip install --no-build-isolation -e . in a checkout of detkit (with -v to see why it fails)"

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
        if versions.get(package) is None and package != "torchvision"
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
    """A torchvision that is missing, or was made for another torch."""
    torch, torchvision = versions.get("torch"), versions.get("torchvision")
    if torch is None:
        return []
    minor = int(torch.split(".")[1])
    if torchvision is None:
        remedy = f"pip install torchvision==0.{minor + TORCH_MINOR_AHEAD}.*"
        return [Problem(f"torchvision, the one that goes with torch {torch}, is not installed", remedy)]
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
    problems = check_pair(versions, import_error("torchvision") if versions.get("torchvision") else None)
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
    """Which of the two libraries of ops are in use, with what instruction set, and if not why."""
    error = import_error("detkit.ops")
    if error:
        status = {"loaded": False, "reason": f"detkit.ops cannot be imported: {error}"}
        return {"cpu": status | {"instruction_set": None}, "cuda": status}
    from detkit.ops import _library

    cpu = {"loaded": _library.CPU.loaded, "reason": _library.CPU.reason}
    cpu["instruction_set"] = instruction_set(Path(_library.__file__).parent) if _library.CPU.loaded else None
    return {"cpu": cpu, "cuda": {"loaded": _library.CUDA.loaded, "reason": _library.CUDA.reason}}


def instruction_set(folder: Path) -> str | None:
    """What the CPU library in ``folder``, which is loaded, says that it uses; None where DETKIT_CPU names none."""
    ask = getattr(ctypes.CDLL(str(min(folder.glob("_cpu.*")))), "detkit_cpu_level", None)
    if ask is None:
        return "an unknown one, because the library is older than the package"
    ask.restype = ctypes.c_char_p
    name = ask()
    return None if name is None else name.decode()


def check_instruction_set(cpu: Mapping[str, Any]) -> list[Problem]:
    """A DETKIT_CPU with which the ops do not run."""
    if not cpu["loaded"] or cpu["instruction_set"] is not None:
        return []
    wanted = os.environ.get("DETKIT_CPU")
    return [
        Problem(
            f"DETKIT_CPU is {wanted}, which is no instruction set that this processor and the CPU library have",
            "unset DETKIT_CPU, and the best one is used",
        )
    ]


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
        missing = (
            "" if tools[tool] else f"install {'a C++ compiler (g++)' if name == 'cpu' else 'nvcc'}, then "
        )
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
    """The compilers that setup.py would use, in their own words, or None."""
    toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc") or f"{toolkit}/bin/nvcc"
    return {"compiler": _version_line(os.environ.get("CXX", "g++")), "nvcc": _version_line(nvcc, "release")}


def _version_line(program: str, word: str = "") -> str | None:
    """The first line with ``word`` that ``program --version`` prints, or None where it does not run."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next((line for line in output.stdout.splitlines() if word in line), program)


def hardware() -> dict[str, Any]:
    """The processor, what it can do that matters here, and the GPUs that torch sees."""
    cpuinfo = Path("/proc/cpuinfo")
    fields = {}
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.machine()),
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
    if import_error("torch") is None:
        problems += check_libraries(libraries, tools, machine["gpus"])
        problems += check_instruction_set(libraries["cpu"])
    return {
        "versions": versions,
        "libraries": libraries,
        "build_tools": tools,
        "hardware": machine,
        "problems": [asdict(problem) for problem in problems],
    }


def describe(report: Mapping[str, Any]) -> str:
    """The report of :func:`examine` for people."""
    lines = ["Installed"]
    lines += [f"  {name:26}{version or 'missing'}" for name, version in report["versions"].items()]
    lines += ["Compiled ops"]
    for name, library in report["libraries"].items():
        level = f", with {library['instruction_set']}" if library.get("instruction_set") else ""
        lines.append(
            f"  {name:26}{'in use' + level if library['loaded'] else 'not in use: ' + library['reason']}"
        )
    lines += ["To build them"]
    lines += [f"  {name:26}{version or 'not found'}" for name, version in report["build_tools"].items()]
    machine = report["hardware"]
    lines += ["Machine"]
    lines += [f"  {'processor':26}{machine['cpu']}, {machine['cores']} cores"]
    lines += [
        f"  {'its features':26}{', '.join(machine['cpu_features']) or 'none of ' + ', '.join(CPU_FEATURES)}"
    ]
    lines += [f"  {'GPUs':26}{', '.join(machine['gpus']) or 'none'}"]
    for problem in report["problems"]:
        lines += ["", f"{'WRONG' if problem['serious'] else 'note'}: {problem['what']}"]
        lines += [f"  mend it: {problem['remedy']}"]
    if not report["problems"]:
        lines += ["", "All is well."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the report; 1 if something is wrong that matters."""
    parser = argparse.ArgumentParser(
        prog="python -m detkit.doctor",
        description="Say what is installed, what works, what does not and how to mend it.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    report = examine()
    print(json.dumps(report, indent=2) if options.json else describe(report))
    return int(any(problem["serious"] for problem in report["problems"]))


if __name__ == "__main__":
    sys.exit(main())

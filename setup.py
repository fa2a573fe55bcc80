"""Builds the extension; everything else about the package is in setup.cfg.

Two libraries are built beside detkit/ops: ``_cpu``, which knows nothing of CUDA, and ``_cuda`` where nvcc and a
torch with CUDA are there. Both use only LibTorch's stable ABI, so that one build serves every Python and every
torch from TARGET_TORCH on. What cannot be built is left out, with a line that says why and what to do: the
package works without (``python -m detkit.doctor`` tells what is in use).

torch must be importable while building, so a build in isolation leaves the extension out:
    pip install --no-build-isolation -e .
    python setup.py build_ext --inplace          # after an edit in csrc; compiles only what has changed

Environment variables:
    DETKIT_BUILD=0   build no library at all
    DETKIT_CUDA=0    build the CPU library alone
    CXX              the C++ compiler, g++ if not given
    NVCC             the CUDA compiler; if not given, the nvcc on PATH, in CUDA_HOME or in /usr/local/cuda
"""

import importlib.util
import os
import platform
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

TARGET_TORCH = "0x020a000000000000"  # 2.10, the first with all that csrc uses
GPUS = ("80", "90")  # compute capabilities with code of their own; newer ones compile the last one's PTX
COMMON = ["-std=c++20", "-O3", f"-DTORCH_TARGET_VERSION={TARGET_TORCH}"]
# Contracted products and sums would give other bits than torchvision's box_iou, and than the other device. Nothing
# reads errno or traps, which would keep both sides of a choice from being computed side by side.
HOST = [
    *COMMON,
    *("-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    # GCC 12 warns of uninitialised variables inside its own AVX-512 headers.
    *("-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
]
DEVICE = [*COMMON, "--expt-relaxed-constexpr", "-DUSE_CUDA", "-Xcompiler=-fPIC,-fvisibility=hidden"]
# The one GPU source for which instructions are scarce, and where no bit depends on the order of operations.
CONTRACTED = "focal_loss_cuda.cu"
# Sources named *_simd.cpp are compiled for each of these instruction sets (csrc/cpu_level.h) and chosen from at run
# time, so that one build serves every processor and yet uses the newest ones' vectors.
CPU_LEVELS = {"any_level": []}
if platform.machine() in ("x86_64", "AMD64"):
    CPU_LEVELS = {
        "any_level": ["-march=x86-64-v2"],
        "x86_64_v3": ["-march=x86-64-v3"],
        "x86_64_v4": ["-march=x86-64-v4"],
    }
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))


def torch_folder() -> Path | None:
    """Where torch is installed, found without the seconds that importing it takes."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def find_nvcc() -> str | None:
    """The CUDA compiler, which knows its own toolkit; a wrapper or link on PATH will do."""
    folders = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = [
        os.environ.get("NVCC"),
        shutil.which("nvcc"),
        *(f"{folder}/bin/nvcc" for folder in folders if folder),
    ]
    return next((place for place in places if place and Path(place).is_file()), None)


def left_out(what: str, reason: str, remedy: str) -> None:
    print(f"detkit: {what} is left out: {reason}. {remedy}", file=sys.stderr)


def extensions() -> list[Extension]:
    """The libraries that this environment can be expected to build."""
    if os.environ.get("DETKIT_BUILD") == "0":
        left_out("the extension", "DETKIT_BUILD=0", "Plain PyTorch runs instead.")
        return []
    torch = torch_folder()
    if torch is None:
        left_out(
            "the extension",
            "torch cannot be imported here (pip builds in isolation)",
            "To get it, install torch and repeat the pip install with --no-build-isolation.",
        )
        return []
    cuda = runpy.run_path(str(torch / "version.py")).get("cuda")
    libraries = [library("_cpu", ".cpp")]
    if cuda is None or os.environ.get("DETKIT_CUDA") == "0":
        left_out(
            "the CUDA library",
            "torch has no CUDA" if cuda is None else "DETKIT_CUDA=0",
            "GPUs run plain PyTorch.",
        )
    elif find_nvcc() is None:
        left_out(
            "the CUDA library", "nvcc is not found", "Install the CUDA toolkit and put its nvcc on PATH."
        )
    else:
        libraries.append(library("_cuda", ".cu"))
    return libraries


def library(name: str, suffix: str) -> Extension:
    sources = sorted(str(path) for path in Path("csrc").rglob(f"*{suffix}"))
    return Extension(
        f"detkit.ops.{name}", sources, depends=[*HEADERS, "setup.py"], py_limited_api=True, optional=True
    )


class BuildLibraries(build_ext):
    """Compiles with g++ and nvcc themselves: neither library is a Python module, nor needs Python's headers."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # A fixed folder, where pip's builds find the objects of the last one too.
        self.objects = Path("build", "extension", sysconfig.get_platform())

    def build_extensions(self) -> None:
        """Build the CPU library, and then the CUDA library, which is of no use without."""
        for ext in self.extensions:
            if not self._build_or_leave_out(ext):
                break

    def _build_or_leave_out(self, ext: Extension) -> bool:
        output = Path(self.get_ext_fullpath(ext.name))
        try:
            self._build(ext, output)
        except FileNotFoundError as error:
            reason = f"{error.filename} is not found"
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"{getattr(error, 'cmd', [error])[0]} failed (see above)"
        else:
            return True
        for stale in (output, Path(*ext.name.split(".")[:-1], output.name)):
            stale.unlink(missing_ok=True)
        what = "CUDA library" if ext.name.endswith("_cuda") else "extension"
        left_out(
            f"the {what}", reason, "Plain PyTorch runs instead; python -m detkit.doctor says what to do."
        )
        return False

    def _build(self, ext: Extension, output: Path) -> None:
        """Compile the sources whose objects are out of date, and link."""
        torch = torch_folder()
        cuda = ext.name.endswith("_cuda")
        compiler = find_nvcc() if cuda else os.environ.get("CXX", "g++")
        includes = ["-isystem", str(torch / "include")]
        objects = []
        for source, level in ((path, level) for path in ext.sources for level in levels(path)):
            target = self.objects / Path(source).with_suffix(f".{level}.o")
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.force or out_of_date(target, [source, *ext.depends]):
                flags = gpu_flags(source) if cuda else [*HOST, *CPU_LEVELS[level]]
                run([compiler, *flags, f"-DCPU_LEVEL={level}", *includes, "-c", source, "-o", str(target)])
            objects.append(str(target))
        output.parent.mkdir(parents=True, exist_ok=True)
        libraries = ["-ltorch_cpu", *(["-ltorch_cuda"] if cuda else [])]
        run([compiler, "-shared", *objects, f"-L{torch / 'lib'}", *libraries, "-o", str(output)])


def out_of_date(target: Path, sources: list[str]) -> bool:
    return not target.exists() or target.stat().st_mtime < max(os.path.getmtime(source) for source in sources)


def levels(source: str) -> list[str]:
    """The instruction sets that a source is compiled for."""
    return list(CPU_LEVELS) if source.endswith("_simd.cpp") else ["any_level"]


def gpu_flags(source: str) -> list[str]:
    contraction = "true" if source.endswith(CONTRACTED) else "false"
    binaries = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in GPUS]
    ptx = f"-gencode=arch=compute_{GPUS[-1]},code=compute_{GPUS[-1]}"
    return [*DEVICE, f"-fmad={contraction}", *binaries, ptx]


def run(command: list[str]) -> None:
    print(" ".join(command))
    subprocess.run(command, check=True)


# Without isolation, pip does not look at what pyproject.toml requires. The libraries alone have no
# metadata, and any setuptools builds them: a machine with a GPU may be offline.
if "build_ext" not in sys.argv and int(setuptools.__version__.split(".")[0]) < 77:
    sys.exit(f"detkit: setuptools {setuptools.__version__} is too old; pip install 'setuptools>=77'")
libraries = extensions()
setup(
    ext_modules=libraries,
    cmdclass={"build_ext": BuildLibraries},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if libraries else {},
)

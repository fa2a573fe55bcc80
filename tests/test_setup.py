"""setup.py builds what it can, leaves out what it cannot and says why."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path):
    """A small copy of the repository: the real setup.py, with sources that compile in no time."""
    for name in ("setup.py", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("detkit\n")
    (tmp_path / "detkit" / "ops").mkdir(parents=True)
    shutil.copy(ROOT / "detkit" / "__init__.py", tmp_path / "detkit")
    (tmp_path / "detkit" / "ops" / "__init__.py").touch()
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "number.h").write_text("inline int number() { return 1; }\n")
    source = '#include "number.h"\nextern "C" __attribute__((visibility("default"))) int one() { return number(); }\n'
    (tmp_path / "csrc" / "library.cpp").write_text(source)
    (tmp_path / "csrc" / "kernels.cu").write_text(source)
    return tmp_path


def run(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )


def build(folder, *arguments, **environment):
    """Run setup.py; without a CUDA compiler unless the test names one."""
    command = arguments or ("build_ext", "--inplace")
    process = run(folder, "setup.py", *command, **{"DETKIT_CUDA": "0", **environment})
    assert process.returncode == 0, process.stderr
    return process


def libraries(folder):
    return sorted(path.name.split(".")[0] for path in (folder / "detkit" / "ops").glob("*.so"))


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


@needs_compiler
def test_compiles_again_only_what_has_changed(checkout):
    assert " -c " in build(checkout).stdout
    assert libraries(checkout) == ["_cpu"]
    assert " -c " not in build(checkout).stdout
    later = (checkout / "build").stat().st_mtime + 60
    os.utime(checkout / "csrc" / "number.h", (later, later))
    assert " -c " in build(checkout).stdout


@needs_compiler
def test_the_hot_loops_are_compiled_for_each_instruction_set(checkout):
    (checkout / "csrc" / "loops_simd.cpp").write_text("namespace CPU_LEVEL { int two() { return 2; } }\n")
    commands = [line for line in build(checkout).stdout.splitlines() if " -c " in line]
    levels = {"any_level": None}
    if platform.machine() == "x86_64":
        levels = {"any_level": "x86-64-v2", "x86_64_v3": "x86-64-v3", "x86_64_v4": "x86-64-v4"}

    def compiled_for(name):
        options = [dict(re.findall(r"-(DCPU_LEVEL|march)=(\S+)", line)) for line in commands if name in line]
        return {option["DCPU_LEVEL"]: option.get("march") for option in options}

    assert compiled_for("loops_simd.cpp") == levels
    assert compiled_for("library.cpp") == {"any_level": levels["any_level"]}
    assert libraries(checkout) == ["_cpu"]


def test_without_a_compiler_it_installs_and_says_so_once(checkout):
    process = build(checkout, CXX="/nowhere/g++", DETKIT_CUDA="1")
    assert libraries(checkout) == []
    assert process.stderr.count("detkit: ") == 1
    assert "the extension is left out: /nowhere/g++ is not found" in process.stderr


@needs_compiler
def test_a_failing_cuda_build_keeps_the_cpu_library(checkout):
    torch = pytest.importorskip("torch")
    if torch.version.cuda is None:
        pytest.skip("this torch has no CUDA, so that no CUDA library is tried")
    process = build(checkout, DETKIT_CUDA="1", NVCC=shutil.which("false"))
    assert libraries(checkout) == ["_cpu"]
    assert "the CUDA library is left out" in process.stderr


@needs_compiler
def test_a_failing_build_leaves_no_library_of_an_older_source(checkout):
    build(checkout)
    (checkout / "csrc" / "library.cpp").write_text("#error broken\n")
    process = build(checkout)
    assert "failed (see above)" in process.stderr
    assert libraries(checkout) == []


def test_where_torch_cannot_be_imported_it_installs_without(checkout):
    """As in pip's isolated build: -S hides all packages but those on the path."""
    import setuptools

    (checkout / "only").mkdir()
    packages = Path(setuptools.__file__).parents[1]
    for path in (*packages.glob("setuptools*"), packages / "_distutils_hack"):
        (checkout / "only" / path.name).symlink_to(path)
    process = run(checkout, "-S", "setup.py", "bdist_wheel", PYTHONPATH=str(checkout / "only"))
    assert process.returncode == 0, process.stderr
    assert "the extension is left out: torch cannot be imported here" in process.stderr
    assert "--no-build-isolation" in process.stderr
    assert [path.name.split("-", 2)[2] for path in (checkout / "dist").iterdir()] == ["py3-none-any.whl"]


@pytest.mark.parametrize(("command", "accepted"), [("build_ext --inplace", True), ("bdist_wheel", False)])
def test_an_old_setuptools_builds_in_place_and_makes_no_wheel(checkout, command, accepted):
    """As on a machine with a GPU that is offline."""
    program = (
        "import runpy, setuptools, sys; setuptools.__version__ = '76.1.0'; "
        "sys.argv[0] = 'setup.py'; runpy.run_path('setup.py')"
    )
    process = run(checkout, "-c", program, *command.split(), DETKIT_BUILD="0")
    assert (process.returncode == 0) == accepted, process.stderr
    assert ("setuptools 76.1.0 is too old; pip install 'setuptools>=77'" in process.stderr) != accepted


@needs_compiler
def test_one_wheel_serves_every_python(checkout):
    build(checkout, "bdist_wheel")
    (wheel,) = (checkout / "dist").iterdir()
    assert "-cp311-abi3-linux_" in wheel.name


def test_nothing_is_built_when_told_so(checkout):
    process = build(checkout, DETKIT_BUILD="0")
    assert libraries(checkout) == []
    assert "DETKIT_BUILD=0" in process.stderr


@needs_compiler
def test_the_extension_of_this_checkout_is_in_use():
    """Where a compiler is there, the other tests must not pass on the reference unnoticed."""
    from detkit.ops import _library

    if os.environ.get("DETKIT_EXTENSION") == "0" or os.environ.get("DETKIT_BUILD") == "0":
        pytest.skip("the extension is switched off")
    assert _library.CPU.loaded, _library.CPU.reason

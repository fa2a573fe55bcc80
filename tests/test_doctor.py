"""The doctor finds what is wrong, and survives it."""

import configparser
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detkit import doctor

ROOT = Path(__file__).parents[1]
HEALTHY = dict.fromkeys(doctor.REQUIRED, "1.0") | {"torch": "2.14.1+cu130", "torchvision": "0.29.2"}


def run_doctor(*arguments, folder=None, **environment):
    path = os.pathsep.join([*([str(folder)] if folder else []), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "detkit.doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
    )


def broken_package(folder, name, error):
    """A package that raises when imported, ahead of the real one."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"raise {error}\n")


def test_reports_this_machine():
    process = run_doctor("--json")
    report = json.loads(process.stdout)
    assert set(report) == {"versions", "libraries", "build_tools", "hardware", "problems"}
    assert report["versions"]["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(report["libraries"]) == {"cpu", "cuda"}
    assert process.returncode == int(any(problem["serious"] for problem in report["problems"]))


def test_survives_a_torchvision_made_for_another_torch(tmp_path):
    broken_package(tmp_path, "torchvision", "RuntimeError('operator torchvision::nms does not exist')")
    process = run_doctor(folder=tmp_path)
    assert process.returncode == 1
    assert "WRONG: torch" in process.stdout
    assert "operator torchvision::nms does not exist" in process.stdout
    assert "pip install --force-reinstall torch==2." in process.stdout
    assert process.stderr == ""


def test_survives_a_broken_torch(tmp_path):
    broken_package(tmp_path, "torch", "OSError('libcudart.so.13: cannot open shared object file')")
    process = run_doctor("--json", folder=tmp_path)
    report = json.loads(process.stdout)
    assert process.returncode == 1
    (problem,) = (problem for problem in report["problems"] if "torch" in problem["what"])
    assert "libcudart.so.13" in problem["what"]
    assert report["hardware"]["gpus"] == []
    assert not report["libraries"]["cpu"]["loaded"]


@pytest.mark.parametrize(
    ("versions", "error", "expected"),
    [
        ({}, None, None),
        ({"torch": "2.10.0", "torchvision": "0.25.1+cpu"}, None, None),
        ({"torch": "2.13.0"}, None, "no pair"),
        ({}, "RuntimeError: operator torchvision::nms does not exist", "nms"),
        ({"torchvision": None}, None, "torchvision, the one that goes with torch 2.14.1"),
    ],
)
def test_torch_and_torchvision_pair(versions, error, expected):
    problems = doctor.check_pair(HEALTHY | versions, error)
    if expected is None:
        assert problems == []
    else:
        (problem,) = problems
        assert problem.serious
        assert expected in problem.what
        minor = int((versions.get("torch") or HEALTHY["torch"]).split(".")[1])
        assert f"torchvision==0.{minor + 15}.*" in problem.remedy


def test_two_opencv_packages_are_a_problem(monkeypatch):
    both = {"opencv-python", "opencv-python-headless"}
    monkeypatch.setattr(doctor, "installed_version", lambda package: "4.12" if package in both else None)
    (problem,) = doctor.check_packages(HEALTHY)
    assert problem.what == "opencv-python and opencv-python-headless overwrite each other's cv2"
    assert "pip uninstall -y opencv-python opencv-python-headless" in problem.remedy


def test_a_missing_package_is_named():
    (problem,) = (
        problem
        for problem in doctor.check_packages(HEALTHY | {"pydantic": None})
        if "cv2" not in problem.what
    )
    assert (problem.what, problem.remedy) == ("pydantic is not installed", "pip install pydantic")


@pytest.mark.parametrize(
    ("reason", "compiler", "serious", "remedy"),
    [
        ("it is not built", "g++ 12", False, "pip install --no-build-isolation"),
        ("it is not built", None, False, "install a C++ compiler"),
        ("DETKIT_EXTENSION is 0", "g++ 12", False, "unset DETKIT_EXTENSION"),
        ("undefined symbol: torch_parallel_for", "g++ 12", True, "pip install --no-build-isolation"),
    ],
)
def test_a_library_that_is_not_in_use_is_explained(reason, compiler, serious, remedy):
    libraries = {
        "cpu": {"loaded": False, "reason": reason},
        "cuda": {"loaded": False, "reason": "this torch has no CUDA"},
    }
    (problem,) = doctor.check_libraries(libraries, {"compiler": compiler, "nvcc": None}, gpus=[])
    assert problem.serious == serious
    assert remedy in problem.remedy
    with_gpu = doctor.check_libraries(libraries, {"compiler": compiler, "nvcc": None}, gpus=["H200"])
    assert len(with_gpu) == 2


def test_tells_the_instruction_set_in_use():
    torch = pytest.importorskip("torch")
    cpu = json.loads(run_doctor("--json", DETKIT_CPU="").stdout)["libraries"]["cpu"]
    if not cpu["loaded"]:
        assert cpu["instruction_set"] is None
        pytest.skip(f"the CPU library is not loaded: {cpu['reason']}")
    if platform.machine() == "x86_64":
        best = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
        assert cpu["instruction_set"] == best.get(torch.backends.cpu.get_cpu_capability(), "x86-64-v2")
    lowest = "x86-64-v2" if platform.machine() == "x86_64" else "any"
    assert f"  {'cpu':26}in use, with {lowest}\n" in run_doctor(DETKIT_CPU=lowest).stdout


def test_an_instruction_set_that_there_is_not_is_a_problem():
    process = run_doctor(DETKIT_CPU="native")
    report = json.loads(run_doctor("--json", DETKIT_CPU="native").stdout)
    assert report["libraries"]["cpu"]["instruction_set"] is None
    if not report["libraries"]["cpu"]["loaded"]:
        pytest.skip(f"the CPU library is not loaded: {report['libraries']['cpu']['reason']}")
    assert process.returncode == 1
    assert f"  {'cpu':26}in use\n" in process.stdout
    assert "WRONG: DETKIT_CPU is native, which is no instruction set" in process.stdout
    assert "mend it: unset DETKIT_CPU" in process.stdout


@pytest.mark.parametrize(("loaded", "name", "count"), [(True, None, 1), (True, "any", 0), (False, None, 0)])
def test_only_ops_in_use_need_an_instruction_set(loaded, name, count):
    assert len(doctor.check_instruction_set({"loaded": loaded, "instruction_set": name})) == count


def test_knows_the_requirements_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.MULTILINE)
    assert tuple(required) == doctor.REQUIRED
    extras = " ".join(setup["options.extras_require"].values())
    assert all(package in extras for package in doctor.OPTIONAL)

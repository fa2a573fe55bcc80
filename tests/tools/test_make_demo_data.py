"""The script that makes the demo data, run as a user runs it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ("--train", "3", "--val", "2", "--test", "1", "--size", "128")


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/make_demo_data.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


def test_writes_once_and_then_says_that_it_is_there(tmp_path: Path):
    folder = tmp_path / "demo"
    first = run(str(folder), *SMALL)
    assert (first.returncode, first.stderr) == (0, "")
    assert "wrote 3 + 2 + 1 scenes" in first.stdout
    assert len(list(folder.rglob("*.png"))) == 6
    second = run(str(folder), *SMALL)
    assert second.returncode == 0
    assert "already there" in second.stdout


def test_a_mistake_is_one_line_without_a_traceback(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run(str(tmp_path), *SMALL)
    assert done.returncode == 2
    assert "is not demo data" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches():
    done = run("--help")
    assert done.returncode == 0
    assert "python tools/make_demo_data.py data/demo" in done.stdout

"""The script that makes the demo data, run as a user runs it."""

from pathlib import Path

from scripts import Ended, run_script

SMALL = ("--train", 3, "--val", 2, "--test", 1, "--size", 128)


def run(*arguments: object) -> Ended:
    return run_script("make_demo_data.py", *arguments)


def test_writes_once_and_then_says_that_it_is_there(tmp_path: Path):
    folder = tmp_path / "demo"
    first = run(folder, *SMALL)
    assert (first.status, first.errors) == (0, "")
    assert "wrote 3 + 2 + 1 scenes" in first.output
    assert len(list(folder.rglob("*.png"))) == 6
    second = run(folder, *SMALL)
    assert second.status == 0
    assert "already there" in second.output


def test_a_mistake_is_one_line_without_a_traceback(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run(tmp_path, *SMALL)
    assert done.status == 2
    assert "is not demo data" in done.errors
    assert "Traceback" not in done.errors


def test_help_teaches():
    done = run("--help")
    assert done.status == 0
    assert "python tools/make_demo_data.py data/demo" in done.output

"""Scripts as a user runs them, but in this process, which saves the seconds that importing torch takes."""

import io
import os
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from detkit.console import run_tool

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
"""Of a script in a process of its own."""


class Ended(NamedTuple):
    """How a script ended."""

    status: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        """All of it, with every run of white space as one space."""
        return " ".join((self.output + self.errors).split())


def command(tool: str, *arguments: object) -> list[str]:
    """What runs a script in a process of its own."""
    return [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]


def run_script(tool: str, *arguments: object) -> Ended:
    """Run a script in tools to its end."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]  # as strict as a terminal
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        patch.setattr(sys, "argv", command(tool, *arguments)[1:])
        patch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    texts = []
    for stream in streams:
        stream.seek(0)
        texts.append(stream.read())
    return Ended(ended.value.code, *texts)


def printed_by(tool: str, *arguments: object, status: int = 0) -> str:
    """All that a script says, on one line; it must end with this status."""
    ended = run_script(tool, *arguments)
    assert ended.status == status, ended.output + ended.errors
    return ended.said


def refused(tool: str, *arguments: object) -> str:
    """The one message of a mistake, without what argparse says before it."""
    said = printed_by(tool, *arguments, status=2)
    assert "Traceback" not in said
    return said.partition("error: ")[2]


def run_main(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """Run the ``main`` of an imported script, one of benchmarks, to its end; its exit status."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
    try:
        return run_tool(script.main)
    except SystemExit as ended:
        return ended.code

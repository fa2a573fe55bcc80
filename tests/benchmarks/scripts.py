"""Runs the scripts of benchmarks in the process of a test."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from detkit.console import run_tool


def run_script(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path | float
) -> int | str | None:
    """Run the ``main`` of a script with these arguments; its exit status."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
    try:
        return run_tool(script.main)
    except SystemExit as ended:
        return ended.code

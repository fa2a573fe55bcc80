"""Imports go one way, read from the sources, so that an import inside a function counts too; functions are short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "detkit"
MOST_LINES = 40
"""Of a function, with its docstring and without its decorators."""
WORDS = {"labels", "errors", "structures", "boxes", "files", "console", "devices", "arguments"}
ALLOWED = {
    "config": WORDS,
    "ops": {"labels"},
    "data": WORDS | {"ops"},
    "models": WORDS | {"ops"},
    "evaluation": {"labels", "errors", "files"},
    "report": {"errors", "files", "evaluation"},
    "comparison": WORDS | {"evaluation"},
    "search": WORDS | {"evaluation"},
    "negative_regions": {"boxes"},
    "selection": WORDS | {"ops", "models", "negative_regions"},
    "criterion": WORDS | {"ops", "models", "selection"},
    "inference": WORDS | {"models", "evaluation"},
    "mining": WORDS | {"data", "evaluation"},
    "training": WORDS | {"ops", "data", "models", "evaluation", "selection", "inference"},
    "bootstrap": WORDS | {"evaluation", "negative_regions", "mining", "training"},
    "doctor": {"ops"},
    "builders": WORDS
    | {
        "config",
        "data",
        "models",
        "evaluation",
        "selection",
        "negative_regions",
        "criterion",
        "inference",
        "mining",
    }
    | {"training", "bootstrap", "comparison", "search"},
}
"""What each part may import of detkit, besides itself. The words import each other and nothing else."""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("detkit.")}
    return parts


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_one_way(path):
    part = part_of(path)
    if part == "__init__":
        assert not imported_parts(path)
        return
    allowed = WORDS if part in WORDS else ALLOWED[part]
    beyond = imported_parts(path) - allowed - {part}
    assert not beyond, f"detkit.{part} must not import detkit.{', detkit.'.join(sorted(beyond))}"


def test_ops_import_torch_alone():
    allowed = {"torch", "detkit"}
    for path in (PACKAGE / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.split(".")[0]
                assert top in allowed or top in __import__("sys").stdlib_module_names, (
                    f"{path.name} imports {name}"
                )


def test_functions_are_short():
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "setup.py"]
    functions = [
        (node.end_lineno - node.lineno + 1, node.name, path.relative_to(ROOT))
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [f"{path}: {name} has {lines} lines" for lines, name, path in functions if lines > MOST_LINES]
    assert len(functions) > 500
    assert not long, f"divide what has more than {MOST_LINES} lines: {'; '.join(long)}"

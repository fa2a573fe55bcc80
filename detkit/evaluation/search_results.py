"""search.json: everything that a search found, and test.json: what its winner scores on test.

``detkit.search`` finds and ``detkit.report`` shows what they hold; neither knows the other. The classes below are the
format: an object of JSON for each dataclass, a list for each tuple, its keys the fields. Strict JSON; metrics are
fractions from 0 to 1, null where there is nothing to measure. ``format_version`` is 1 in both files. Nothing of
search.json was measured on test; test.json is written once, when the search is over, and never anew.

Compute is counted in forward passes per canvas pixel (forward 1, backward 2); FLOPs are those of convolutions and
matrix products in one forward pass over one image, two for each multiply-add.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from detkit.errors import DataError
from detkit.files import read_json, write_json

FORMAT_VERSION = 1
SEARCH_FILE, TEST_FILE = "search.json", "test.json"
NEAR = 0.02
"""What a smaller model may lose and still be nearly as good."""
State = Literal["complete", "pruned", "failed", "running"]
Read = TypeVar("Read")


@dataclass(frozen=True)
class CurvePoint:
    """A validation of a trial."""

    epoch: int
    compute: float
    """Spent until then."""
    value: float | None


@dataclass(frozen=True)
class ModelCost:
    """What a trial's model costs to use."""

    parameters: int
    """Their number."""
    flops: int
    """Of one forward pass over one image."""
    height: int
    width: int
    """Of the canvas, pixels: that of the commonest validation image at the trial's evaluation size."""


@dataclass(frozen=True)
class SearchTrial:
    """A trial."""

    number: int
    """Counted from 0."""
    values: dict[str, int | float | str]
    """What was drawn, by the names of ``Search.parameters``; a choice by its label."""
    state: State
    value: float | None
    """The best of its curve."""
    curve: tuple[CurvePoint, ...] = ()
    cost: ModelCost | None = None
    """None where the model could not be built."""
    compute: float = 0.0
    seconds: float = 0.0
    """Of training and validation."""
    reason: str = ""
    """Why it failed; empty otherwise."""


@dataclass(frozen=True)
class Parameter:
    """A range of the search."""

    name: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    """Labels; empty for a range of numbers."""
    importance: float | None = None
    """Its share of what sets the best trials apart from the others; all together 1. None while trials are too few."""


@dataclass(frozen=True)
class Search:
    """A search, over or not."""

    title: str
    metric: str
    wanted: int
    """Trials of the whole search."""
    parameters: tuple[Parameter, ...]
    """The most important first."""
    trials: tuple[SearchTrial, ...]
    winner: int | None = None
    """Number of the best complete trial on validation."""
    winner_config: str = ""
    """Its whole configuration as YAML."""
    has_test: bool = True
    """The experiment has a test split, which the winner is scored on when the search is over."""
    verdict: tuple[str, ...] = ()
    """Plain sentences, the most important first; none of test."""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def over(self) -> bool:
        """Every trial that is wanted has ended."""
        return len(self.trials) >= self.wanted and all(one.state != "running" for one in self.trials)


@dataclass(frozen=True)
class TestScore:
    """What the winner scores on test."""

    __test__ = False  # pytest takes the name for a class of tests

    trial: int
    images: int
    metrics: dict[str, float | None]
    """COCO's twelve by name."""
    format_version: int = FORMAT_VERSION


def best_trial(trials: Sequence[SearchTrial]) -> SearchTrial | None:
    """The complete trial with the highest value; of equals the one that is cheaper to use, then the first."""
    return max(_complete(trials), key=lambda one: (one.value or 0.0, -_flops(one), -one.number), default=None)


def cost_front(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """The complete trials that none is both as cheap and as good as, from the dearest to the cheapest."""
    front: list[SearchTrial] = []
    for one in sorted(_complete(trials), key=lambda one: (_flops(one), -(one.value or 0.0), one.number)):
        if not front or (one.value or 0.0) > (front[-1].value or 0.0):
            front.append(one)
    return front[::-1]


def smaller_trial(trials: Sequence[SearchTrial]) -> SearchTrial | None:
    """The cheapest trial that is nearly as good as the best; where none is, the best of the cheaper ones."""
    front = cost_front(trials)
    near = [one for one in front[1:] if is_near(one, front[0])]
    return near[-1] if near else next(iter(front[1:]), None)


def is_near(trial: SearchTrial, best: SearchTrial) -> bool:
    """Whether a trial is nearly as good as the best."""
    return (best.value or 0.0) - (trial.value or 0.0) <= NEAR


def _complete(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    return [one for one in trials if one.state == "complete" and one.value is not None]


def _flops(trial: SearchTrial) -> int:
    return trial.cost.flops if trial.cost else 0


def write_search(path: str | os.PathLike, search: Search) -> None:
    """Write search.json, whole or not at all."""
    write_json(path, asdict(search), indent=1)


def read_search(path: str | os.PathLike) -> Search:
    """Read search.json.

    Raises:
        DataError: the file is not JSON, of another format version, or lacks something.
    """
    return _read(path, Search)


def write_test_score(path: str | os.PathLike, score: TestScore) -> None:
    """Write test.json, whole or not at all."""
    write_json(path, asdict(score))


def read_test_score(path: str | os.PathLike) -> TestScore:
    """Read test.json.

    Raises:
        DataError: as of ``read_search``.
    """
    return _read(path, TestScore)


def _read(path: str | os.PathLike, kind: type[Read]) -> Read:
    tree: Any = read_json(path)
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version is {version!r}, and {FORMAT_VERSION} is read here; use the detkit that wrote it"
        )
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{path}: {where}: {first['msg']} (one of {error.error_count()} problems); make it again with "
            "tools/search.py"
        ) from None

"""Bootstrapping in real runs of the smallest detector, which takes nearly everything for an object."""

import io
import json
import pkgutil
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.builders import build_run
from detkit.config import load_config
from detkit.mining.manifest import read_manifest
from detkit.mining.negative_set import load_negative_set
from detkit.training.checkpoint import load_checkpoint
from detkit.training.learner import Learner
from detkit.training.loop import LAST, Position, Run
from detkit.training.run_log import read_log

TIMES = ("seconds", "images_per_second")
POOL_SIZES = 3 * [(48, 80)] + 3 * [(64, 64)]
"""(height, width) of the pool's images; the detector sees the first three as 38 x 64."""
CROPS = {"share": 0.25, "threshold": 0.001, "least_side": 8, "per_image": 2, "per_round": 10}
MINED = {"name": "mined", "initial": 4, "per_image": 4, "threshold": 0.005}


@pytest.fixture(scope="session")
def with_pool(tmp_path_factory, tiny_coco) -> Path:
    """A copy of the tiny data set with background/: six pictures of soft blobs."""
    copy = tmp_path_factory.mktemp("with_pool") / "data"
    shutil.copytree(tiny_coco, copy)
    (copy / "background").mkdir()
    for number, (height, width) in enumerate(POOL_SIZES):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(copy / "background" / f"{number}.png"), picture)
    return copy


def overrides(
    *,
    rounds: Sequence[float] = (0.25, 0.5, 0.75),
    crops: dict[str, Any] | None = None,
    selection: dict[str, Any] | None = None,
    pool: str | None = None,
    share: float = 0.5,
    average: bool = False,
    more: Sequence[str] = (),
    **bootstrap: Any,
) -> list[str]:
    """What a run is told beside the tiny configuration: eight steps, and rounds after 2, 4 and 6 of them.

    ``crops`` is added to ``CROPS``, and ``{}`` is none; ``pool`` is the state of background/.
    """
    crops = {"sources": ["train"]} if crops is None else crops
    bootstrap |= {"rounds": list(rounds), "crops": {**CROPS, **crops} if crops else None}
    background = {"images": "background", "state": pool, "share": share} if pool else None
    return [
        "data.workers=0",
        f"data.background={json.dumps(background)}",
        f"selection={json.dumps(selection or MINED)}",
        f"bootstrap={json.dumps(bootstrap)}",
        "postprocess={score_threshold: 0.001, candidates_per_level: 100, detections_per_image: 20}",
        "evaluation.batch_size=4",
        "training.steps=8",
        "training.checkpoint_every=3",
        "training.validate_every=9",
        "optimiser={name: sgd, learning_rate: 0.002}",
        f"training.ema_decay={0.9 if average else 'null'}",
        "schedule.warmup_steps=1",
        *more,
    ]


@dataclass(frozen=True)
class Step:
    """What a step was given."""

    names: tuple[str, ...]
    pixels: torch.Tensor
    targets: list[dict[str, Any]]
    canvas_pixels: int


@dataclass
class Watched:
    """A run, and what was seen of it."""

    run: Run
    bootstrapping: Bootstrapping
    told: dict[str, Any]
    """What builds another run of it."""
    steps: dict[int, Step] = field(default_factory=dict)
    before: list[dict[str, Any]] = field(default_factory=list)
    """The learner's state at the beginning of each pause."""
    after: list[dict[str, Any]] = field(default_factory=list)
    computes: list[float] = field(default_factory=list)
    """After each pause."""
    said: str = ""

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def rounds(self) -> Path:
        return self.folder / "rounds"

    def fit(self) -> Position:
        """Train, or go on where the folder's run was stopped."""
        last = self.folder / LAST
        output = io.StringIO()
        with redirect_stdout(output):
            position = self.run.fit(load_checkpoint(last) if last.exists() else None)
        self.said = output.getvalue()
        return position

    def record(self, number: int) -> dict[str, Any]:
        """round_NNN.json."""
        return json.loads((self.rounds / f"round_{number:03}.json").read_text())

    def log(self, event: str) -> list[dict[str, Any]]:
        """The rows of one kind."""
        return [row for row in read_log(self.folder / "metrics.jsonl") if row["event"] == event]

    def canvases(self, step: int) -> list[str]:
        """The names of a step's canvases of crops."""
        return [name for name in self.steps[step].names if name.startswith("canvas")]


def _copied(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state


def _watch(run: Run, recalls: Sequence[float] | None, told: dict[str, Any]) -> Watched:
    """Note what a run does; ``recalls`` is what watching it measures at each pause."""
    bootstrapping = run.at_pause
    assert isinstance(bootstrapping, Bootstrapping)
    watched = Watched(run, bootstrapping, told)

    def step(batches: Any, number: int, observe: Any = None) -> dict[str, float]:
        ((images, targets),) = batches
        pixels = images.canvas_pixels
        watched.steps[number] = Step(images.file_names, images.pixels, list(targets), pixels)
        return Learner.step(run.learner, batches, number, observe)

    def pause(position: Position) -> dict[str, Any] | None:
        watched.before.append(_copied(run.learner.state_dict()))
        at_pause = bootstrapping
        if recalls is not None:
            measured = {at_pause.watch.recall: recalls[position.ended_pauses]}
            at_pause = replace(at_pause, watch=replace(at_pause.watch, measure=lambda: measured))
        row = at_pause(position)
        watched.after.append(_copied(run.learner.state_dict()))
        watched.computes.append(position.compute)
        return row

    object.__setattr__(run.learner, "step", step)
    run.at_pause = pause
    return watched


@pytest.fixture(scope="session")
def told() -> Callable[..., list[str]]:
    """See ``overrides``."""
    return overrides


@pytest.fixture(scope="session")
def bootstrapped(write_tiny_config, with_pool) -> Callable[..., Watched]:
    """Call with a folder for a run of it, not begun or not ended; arguments as of ``overrides``."""

    def build(folder: Path, recalls: Sequence[float] | None = None, **told: Any) -> Watched:
        folder.mkdir(exist_ok=True)
        config = load_config(write_tiny_config(folder), overrides(**told), data_root=str(with_pool))
        run = build_run(config, resumed=(folder / "run" / LAST).exists())
        return _watch(run, recalls, told if recalls is None else {"recalls": recalls, **told})

    return build


def same(first: Any, second: Any) -> bool:
    """Whether nested dicts and lists with tensors are equal, bit by bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.fixture(scope="session")
def same_state() -> Callable[[Any, Any], bool]:
    """See ``same``."""
    return same


@pytest.fixture(scope="session")
def assert_same_end() -> Callable[[Path, Path], None]:
    """Call with the folders of two runs: they must have the same weights, log and files of rounds."""

    def check(first: Path, second: Path) -> None:
        checkpoints = [load_checkpoint(folder / LAST)["training"] for folder in (first, second)]
        for name in ("learner", "position", "random_state"):
            assert same(*(checkpoint[name] for checkpoint in checkpoints)), name
        assert _log_without_times(first) == _log_without_times(second)
        names = [
            sorted(str(path.relative_to(folder)) for path in (folder / "rounds").rglob("*"))
            for folder in (first, second)
        ]
        assert names[0] == names[1]
        for name in names[0]:
            assert _same_file(first / name, second / name), name

    return check


def _log_without_times(folder: Path) -> list[dict[str, Any]]:
    rows = read_log(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _same_file(first: Path, second: Path) -> bool:
    """Archives have the times at which they were written, so their content is compared."""
    if first.is_dir():
        return second.is_dir()
    if first.suffix == ".pt":
        return same(*(torch.load(path, weights_only=True) for path in (first, second)))
    if first.suffix != ".npz":
        return first.read_bytes() == second.read_bytes()
    crops = [load_negative_set(path).crops for path in (first, second)]
    return all(
        np.array_equal(getattr(crops[0], column.name), getattr(crops[1], column.name))
        for column in fields(crops[0])
    )


class KilledError(BaseException):
    """In place of a signal, where the moment must be exact."""


@pytest.fixture(scope="session")
def kill_at() -> Callable[[Watched, str, int], None]:
    """Call with a run, and the name of a function that ends it when it is called for the ``call``-th time."""

    def kill(run: Watched, name: str, call: int) -> None:
        original, calls = pkgutil.resolve_name(name), count(1)

        def dying(*arguments: Any, **named: Any) -> Any:
            if next(calls) == call:
                raise KilledError
            return original(*arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(name, dying)
            with pytest.raises(KilledError):
                run.fit()

    return kill


@pytest.fixture(scope="session")
def of_train(tmp_path_factory, bootstrapped) -> Watched:
    """A run that mines regions and crops of its training images, and watches recall."""
    return _fitted(bootstrapped(tmp_path_factory.mktemp("of_train"), lost_recall=0.9))


@pytest.fixture(scope="session")
def of_pool(tmp_path_factory, bootstrapped) -> Watched:
    """A run with a verified pool that is divided into two parts; without augmentation."""
    told = {"pool": "verified-empty", "crops": {"sources": ["pool"]}, "parts": 2, "more": ["data.augment=[]"]}
    return _fitted(bootstrapped(tmp_path_factory.mktemp("of_pool"), **told))


@pytest.fixture(scope="session")
def suspicious(tmp_path_factory, bootstrapped, kill_at) -> float:
    """A score that five detections in the unverified pool reach in the first round."""
    run = bootstrapped(tmp_path_factory.mktemp("suspicious"), **_unverified(1.0))
    kill_at(run, "detkit.bootstrap.bootstrapping.write_json", 1)
    _, rows = read_manifest(run.rounds / "pool_001" / "manifest.jsonl")
    assert rows[4]["score"] > rows[5]["score"]
    return (rows[4]["score"] + rows[5]["score"]) / 2


@pytest.fixture(scope="session")
def of_both(tmp_path_factory, bootstrapped, suspicious) -> Watched:
    """A run with an unverified pool, which scans it and the training images; without augmentation."""
    return _fitted(bootstrapped(tmp_path_factory.mktemp("of_both"), **_unverified(suspicious)))


@pytest.fixture(scope="session")
def undone(tmp_path_factory, bootstrapped) -> Watched:
    """A run with six rounds, three of which lose recall.

    The third would stay if it were compared with the second, which is undone; the fifth would not if it were compared
    with the first.
    """
    run = bootstrapped(
        tmp_path_factory.mktemp("undone"),
        recalls=(0.8, 0.5, 0.6, 0.72, 0.65, 0.3),
        rounds=[step / 12 for step in (2, 4, 6, 8, 10, 11)],
        lost_recall=0.1,
        parts=2,
        average=True,
        more=["training.steps=12"],
    )
    return _fitted(run)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory, bootstrapped) -> Watched:
    """A run of six steps, with rounds after 2 and 4 of them, each of which begins with a new detector."""
    told = {"start": "scratch", "average": True, "rounds": [1 / 3, 2 / 3], "more": ["training.steps=6"]}
    return _fitted(bootstrapped(tmp_path_factory.mktemp("scratch"), **told))


def _unverified(score: float) -> dict[str, Any]:
    crops = {"sources": ["pool", "train"], "quarantine_score": score}
    return {"pool": "unverified", "crops": crops, "more": ["data.augment=[]"]}


def _fitted(run: Watched) -> Watched:
    assert run.fit().finished
    return run

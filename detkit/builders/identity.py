"""What a run's numbers depend on: runs that differ in it are not to be mixed in one comparison."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import detkit
from detkit.builders.data import in_data_root, split_paths
from detkit.config import Config, Split
from detkit.data.images import find_images
from detkit.devices import place
from detkit.files import sha256_of
from detkit.training.resume import FREE_TO_CHANGE, flat_keys

VERSIONS = ("torch", "torchvision", "numpy", "albumentations", "pycocotools")


def versions(*more: str) -> dict[str, str]:
    """Of detkit, of what its numbers come from, and of more packages by name."""
    own = f"{detkit.__version__} (sources {_sources()})"
    return {"detkit": own, **{name: version(name) for name in (*VERSIONS, *more)}}


@cache
def _sources() -> str:
    """A digest of detkit's Python files: between two releases the version alone says little."""
    root = Path(detkit.__file__).parent
    files = sorted(root.rglob("*.py"))
    lines = [f"{file.relative_to(root).as_posix()} {sha256_of(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def run_identity(config: Config, splits: Sequence[Split | None]) -> dict[str, Any]:
    """The configuration by full key, without what is free to change, and what it was made with.

    Weights, marks and annotations are known by their content, a pool by the names and sizes of its images, so that it
    does not matter where they are.

    Args:
        config: the run's.
        splits: what the run is judged on.
    """
    keys = flat_keys(config.model_dump(mode="json"))
    kept = {key: value for key, value in keys.items() if key not in FREE_TO_CHANGE}
    placement = place(config.device, config.precision)
    background = config.data.background
    return {
        **kept,
        "model.weights": _told_file(config.model.weights),
        "data.marks": _told_file(config.data.marks),
        "device": placement.device.type,
        "precision": str(placement.dtype).removeprefix("torch."),
        "torch": torch.__version__.partition("+")[0],
        "annotations": [
            sha256_of(split_paths(config, split)[0])[:16] for split in (config.data.train, *splits)
        ],
        "background": background and _folder(in_data_root(config, background.images)),
    }


def _told_file(told: str | None) -> str | None:
    if told is None or not Path(told).is_file():
        return told
    return f"{Path(told).name} (sha256 {sha256_of(told)[:16]})"


def _folder(folder: Path) -> str:
    """A digest of the names and sizes of a folder's images."""
    lines = [f"{file.relative_to(folder)} {file.stat().st_size}" for file in find_images([folder])]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

"""Checkpoints: one file is enough to predict with, and ``last.pt`` to go on training as if never stopped.

Format version 1, a dict for ``torch.load(weights_only=True)``:

- ``format``, ``format_version``;
- ``config``: the experiment as nested dicts, see ``detkit.config``;
- ``class_names``, ``category_ids``: class index to name and to COCO category id;
- ``marks``: the digest of the review marks that were respected, None for none;
- ``model``: the state dict to predict with (the moving average where training keeps one);
- ``step``, ``metrics``: optimiser steps taken, and the last validation's row or None;
- ``training``: only in ``last.pt``: ``learner`` (weights, optimiser, average), ``position`` (see ``loop.Position``),
  ``log_size`` (bytes of metrics.jsonl that belong to this state), ``random_state`` (torch's generators).
"""

import os
from pathlib import Path
from typing import Any

import torch

from detkit.errors import WeightsError
from detkit.files import written_whole

FORMAT = "detkit checkpoint"
FORMAT_VERSION = 1


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; ``checkpoint`` holds the keys above but for the format's."""
    with written_whole(path) as partial:
        torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, **checkpoint}, partial)


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        WeightsError: the file is not there, not a checkpoint of detkit, or of a newer format.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such file") from None
    except Exception as error:  # a damaged file can fail in any layer of the reader
        raise WeightsError(
            f"{path}: is not a checkpoint that torch can read ({type(error).__name__})"
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: is not a detkit checkpoint; a plain weights file goes into model.weights of a config"
        )
    if checkpoint["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"{path}: has format version {checkpoint['format_version']}, this detkit reads up to {FORMAT_VERSION}; "
            "update detkit"
        )
    return checkpoint


def random_state() -> dict[str, Any]:
    """The state of torch's generators, which dropout draws from."""
    gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": gpu}


def restore_random_state(state: dict[str, Any]) -> None:
    """Take back what ``random_state`` gave; GPU states only where there are as many GPUs."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])

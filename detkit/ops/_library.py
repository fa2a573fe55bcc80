"""Finds and loads the compiled ops, and registers the reference where there are none.

``torch.ops.detkit.*`` exists either way: the CPU library defines the ops and adds the CPU kernels, the CUDA
library adds its own, and on a device without a kernel the reference runs. ``DETKIT_EXTENSION=0`` leaves both
libraries alone, to compare with the reference or to get round a broken build.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detkit.ops import reference

SCHEMAS = {
    "sigmoid_focal_loss": (
        "(Tensor[] logits, Tensor labels, Tensor? weights, *, float? alpha, float gamma) -> Tensor"
    ),
    "sigmoid_focal_loss_backward": (
        "(Tensor grad, Tensor[] logits, Tensor labels, Tensor? weights, *, float? alpha, float gamma) -> Tensor[]"
    ),
    "match_anchors": (
        "(Tensor anchors, Tensor[] boxes, *, float foreground_iou, float background_iou, bool low_quality)"
        " -> Tensor"
    ),
}
"""The ops; csrc/library.cpp defines the same."""


@dataclass(frozen=True)
class LibraryStatus:
    """Whether one of the two libraries is in use, and if not why."""

    name: str
    loaded: bool
    reason: str = ""


def _switched_off() -> bool:
    return os.environ.get("DETKIT_EXTENSION") == "0"


def _load(name: str) -> LibraryStatus:
    """Load the library ``name`` that lies beside this file."""
    if _switched_off():
        return LibraryStatus(name, loaded=False, reason="DETKIT_EXTENSION is 0")
    paths = sorted(Path(__file__).parent.glob(f"{name}.*"))
    if not paths:
        return LibraryStatus(name, loaded=False, reason="it is not built")
    try:
        torch.ops.load_library(paths[0])
    except (OSError, RuntimeError) as error:
        return LibraryStatus(name, loaded=False, reason=str(error))
    return LibraryStatus(name, loaded=True)


def _load_libraries() -> tuple[LibraryStatus, LibraryStatus]:
    """Load the CPU library, and the CUDA library where this torch can use it."""
    cpu = _load("_cpu")
    if not cpu.loaded:
        return cpu, LibraryStatus("_cuda", loaded=False, reason="the CPU library is not loaded")
    if torch.version.cuda is None:
        return cpu, LibraryStatus("_cuda", loaded=False, reason="this torch has no CUDA")
    return cpu, _load("_cuda")


def _register_reference() -> torch.library.Library:
    """Define the ops that no library has defined, and let the reference serve devices without a kernel."""
    library = torch.library.Library("detkit", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.detkit, name):
            library.define(name + schema)
        found = str(getattr(torch.ops.detkit, name).default._schema)
        if found != f"detkit::{name}{schema}":
            raise ImportError(
                f"detkit's compiled ops are of another version (found {found}); build them again with "
                "python setup.py build_ext --inplace, or install detkit again"
            )
        library.impl(name, getattr(reference, name), "CompositeExplicitAutograd")
    return library


def _warn_without_library() -> None:
    if not CPU.loaded and not _switched_off():
        warnings.warn(
            f"detkit's compiled ops are not in use ({CPU.reason}): slower ones in plain PyTorch run instead, with "
            "the same results; python -m detkit.doctor says how to get them",
            RuntimeWarning,
            stacklevel=2,
        )


def register_fake(name: str, fake: Callable[..., Any]) -> None:
    """Give the op ``name`` the kernel that tells torch.compile the shapes of its results."""
    torch.library.register_fake(f"detkit::{name}", fake, lib=_LIBRARY)


def register_autograd(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., None] | None = None
) -> None:
    """Give the op ``name`` its gradient."""
    torch.library.register_autograd(f"detkit::{name}", backward, setup_context=setup_context, lib=_LIBRARY)


CPU, CUDA = _load_libraries()
_LIBRARY = _register_reference()
_warn_without_library()

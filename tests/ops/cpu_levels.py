"""The instruction sets that the CPU kernels are compiled for, and cases that every one of them must get right.

As a script it runs the cases and saves what comes of them: DETKIT_CPU=x86-64-v2 python cpu_levels.py results.pt
"""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import match_anchors, sigmoid_focal_loss

if platform.machine() in ("x86_64", "AMD64"):
    NAMESPACES = {"x86-64-v2": "any_level", "x86-64-v3": "x86_64_v3", "x86-64-v4": "x86_64_v4"}
else:
    NAMESPACES = {"any": "any_level"}
"""What DETKIT_CPU may be, lowest first, and the namespace of the functions compiled for it (csrc/host_device.h)."""

FEATURES = {
    "x86-64-v3": {"avx2", "fma", "bmi1", "bmi2"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}

CLASSES = (1, 3, 7, 8, 16, 17, 80, 91, 365)
LAYOUTS = ("channels_last", "channels_first", "part", "strided")
PARAMETERS = ((0.25, 2.0), (None, 0.0), (0.5, 1.5))


def missing_features(level: str) -> str:
    """What this processor lacks for ``level``, as the system lists it; empty where it has all."""
    path = Path("/proc/cpuinfo")
    found = set(path.read_text().split()) if path.is_file() else set()
    lower = list(NAMESPACES)[: list(NAMESPACES).index(level) + 1]
    return ", ".join(sorted(set().union(*(FEATURES.get(name, set()) for name in lower)) - found))


@dataclass(frozen=True)
class LossCase:
    """The arguments of a loss, and the gradient [N, A] that comes back to it."""

    levels: list[Tensor]
    labels: Tensor
    weights: Tensor | None
    grad: Tensor
    alpha: float | None
    gamma: float


@dataclass(frozen=True)
class MatchingCase:
    """The arguments of a matching."""

    anchors: Tensor
    boxes: list[Tensor]
    low_quality: bool


def _level(layout: str, anchors: int, classes: int, generator: torch.Generator) -> Tensor:
    """Logits [2, anchors, classes] of several magnitudes: detectors' own are mostly far below 0.

    A channels_last head's lie side by side. Then each anchor's are apart, or part of a longer row, or both.
    """
    if layout == "channels_first":
        return _level("channels_last", classes, anchors, generator).transpose(1, 2)
    if layout == "part":
        return _level("channels_last", anchors, classes + 3, generator)[:, :, 1:-2]
    if layout == "strided":
        return _level("channels_last", 2 * anchors, 2 * classes, generator)[:, ::2, 1::2]
    values = 3 * torch.randn(2, anchors, classes, generator=generator, dtype=torch.float64)
    return values - 8 * torch.rand(2, anchors, 1, generator=generator, dtype=torch.float64).round()


def _in_dtype(level: Tensor, dtype: torch.dtype) -> Tensor:
    """The level in another type and of the same strides."""
    return torch.empty_strided(level.shape, level.stride(), dtype=dtype).copy_(level)


def loss_cases(dtype: torch.dtype) -> Iterator[tuple[tuple, LossCase]]:
    """Each with a key; weights, zeros among them, where there is an alpha."""
    generator = torch.Generator().manual_seed(0)
    for classes in CLASSES:
        for layout in LAYOUTS:
            levels = [_level(layout, anchors, classes, generator) for anchors in (36, 9)]
            labels = torch.randint(IGNORE, classes, (2, 45), generator=generator, dtype=torch.int32)
            common = torch.rand(2, 45, generator=generator) < 0.6
            labels = torch.where(common, BACKGROUND, labels)
            weights, grad = torch.rand(2, 2, 45, generator=generator, dtype=torch.float64)
            weights = torch.where(weights < 0.1, 0, weights)
            of_loss = torch.float64 if dtype == torch.float64 else torch.float32
            for alpha, gamma in PARAMETERS:
                yield (
                    (classes, layout, gamma),
                    LossCase(
                        [_in_dtype(level, dtype) for level in levels],
                        labels,
                        None if alpha is None else weights.to(of_loss),
                        grad.to(of_loss),
                        alpha,
                        gamma,
                    ),
                )


def _boxes(count: int, size: float, generator: torch.Generator) -> Tensor:
    """Boxes within 100 pixels of the origin, on a coarse grid, where many tie."""
    corner = 100 * torch.rand(count, 2, generator=generator)
    extent = size * (0.5 + torch.rand(count, 2, generator=generator))
    return (torch.cat([corner, corner + extent], dim=1) / 2).round() * 2


def matching_cases() -> Iterator[tuple[tuple, MatchingCase]]:
    """Blocks of anchors of one size after another, and one that is not full."""
    generator = torch.Generator().manual_seed(1)
    anchors = torch.cat([_boxes(count, size, generator) for count, size in ((1500, 8), (400, 20), (77, 60))])
    huge = torch.tensor([[-1e4, -1e4, 1e4, 1e4]])
    crowd = torch.cat([_boxes(90, 8, generator), _boxes(30, 60, generator), anchors[::200], huge])
    boxes = [_boxes(7, 20, generator), crowd, torch.empty(0, 4), 1e6 + crowd[:3], crowd[:17] / 7]
    for low_quality in (False, True):
        yield ("grid", low_quality), MatchingCase(anchors, boxes, low_quality)
        shifted = [image / 3 + 0.1 for image in boxes]
        yield ("shifted", low_quality), MatchingCase(anchors / 3, shifted, low_quality)


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def run_loss(case: LossCase) -> list[Tensor]:
    """The loss, and the gradient of each level."""
    levels = [level.requires_grad_() for level in case.levels]
    loss = sigmoid_focal_loss(levels, case.labels, case.weights, alpha=case.alpha, gamma=case.gamma)
    return [loss.detach(), *torch.autograd.grad(loss, levels, case.grad)]


def run_all() -> dict[tuple, list[Tensor] | Tensor]:
    """What comes of every case, at the instruction set in use."""
    results: dict[tuple, list[Tensor] | Tensor] = {}
    for dtype in DTYPES:
        for key, loss_case in loss_cases(dtype):
            results[dtype, *key] = run_loss(loss_case)
    for key, case in matching_cases():
        results[key] = match_anchors(case.anchors, case.boxes, low_quality=case.low_quality)
    return results


if __name__ == "__main__":
    torch.save(run_all(), sys.argv[1])

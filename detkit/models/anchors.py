"""The boxes that the heads speak of (focal loss paper, section 4, "Anchors")."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from detkit.errors import ConfigError


@dataclass(frozen=True)
class AnchorGenerator:
    """Anchors of every pyramid level, at their true strides.

    torchvision derives a stride from image and feature sizes, so that its coarse levels drift on canvases
    whose sides do not divide by 128; on those that do the anchors are the same.
    """

    sizes: Sequence[Sequence[float]]
    """Sides in pixels of the square with an anchor's area: for each level, as many as on every other."""
    ratios: Sequence[float]
    """Height over width."""
    strides: Sequence[int]
    """Pixels between the cells of each level."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(tuple(map(float, sizes)) for sizes in self.sizes))
        object.__setattr__(self, "ratios", tuple(map(float, self.ratios)))
        object.__setattr__(self, "strides", tuple(self.strides))
        if len(self.sizes) != len(self.strides) or len({len(sizes) for sizes in self.sizes}) != 1:
            raise ConfigError(
                f"model.anchor_sizes: found {[len(sizes) for sizes in self.sizes]} sizes for "
                f"{len(self.strides)} levels; give every level its sizes, and the same number of them"
            )

    @property
    def per_location(self) -> int:
        """Number of anchors at each cell."""
        return len(self.sizes[0]) * len(self.ratios)

    def anchors_for(
        self, size: tuple[int, int], device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """The anchors of each level on a canvas of ``size`` (height, width).

        Returns:
            For each level xyxy in pixels, float32 [H * W * A, 4] with H and W the sides divided by the stride
            and rounded up: along rows, then columns, then ratios, then sizes, as the heads order their
            outputs. They may reach over the edge. The tensors are kept for the next call and must not be
            changed.
        """
        return _all_anchors(self, size, torch.device(device or "cpu"))


# Multi-scale training meets many canvases; each set of anchors is a few megabytes.
@lru_cache(maxsize=32)
# A tensor first made under inference_mode could never be used in training.
@torch.inference_mode(False)
def _all_anchors(
    generator: AnchorGenerator, size: tuple[int, int], device: torch.device
) -> tuple[Tensor, ...]:
    levels = []
    for sizes, stride in zip(generator.sizes, generator.strides, strict=True):
        rows, columns = (torch.arange(-(-side // stride), dtype=torch.float32) * stride for side in size)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        corners = torch.stack([x, y, x, y], dim=-1)[:, :, None]
        levels.append((corners + _cell_anchors(sizes, generator.ratios)).reshape(-1, 4).to(device))
    return tuple(levels)


def _cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors around the origin [ratios * sizes, 4], in whole pixels as torchvision's weights expect."""
    side = torch.tensor(sizes)
    height = torch.tensor(ratios).sqrt()
    width = 1 / height
    heights = (height[:, None] * side).flatten()
    widths = (width[:, None] * side).flatten()
    return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()

"""What the ops are measured on: anchors of real grids, logits and labels as in training, boxes as in COCO."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from detkit.labels import BACKGROUND, IGNORE

STRIDES = (8, 16, 32, 64, 128)
OCTAVES = (0, 1 / 3, 2 / 3)
RATIOS = (0.5, 1.0, 2.0)
PER_CELL = len(OCTAVES) * len(RATIOS)
IMAGE_SIZES = ((640, 640), (800, 1088), (800, 1344))
"""Heights and widths whose pyramids P3 to P7 hold 76,725, 163,206 and 201,600 anchors."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BACKGROUND_LOGIT = {"sure": (-5.0, 1.0), "unsure": (-4.0, 1.3)}
"""Mean and standard deviation. Training starts at -4.6, the prior, with next to no spread. Ours takes short formulas
for anchors of which every logit is below -2: of 80 classes, 90 % of the sure detector's and 1 % of the unsure one's."""
FOREGROUND_LOGIT = (0.0, 1.5)
FOREGROUND_SHARE = 0.0015
IGNORE_SHARE = 0.005
MEDIAN_BOX = 42 / 480
SPREAD_OF_BOXES = 1.18
SMALLEST_BOX = 8.0
SPREAD_OF_RATIOS = 0.4
SEED = 0
ALIGNMENT = 512
"""Bytes between which PyTorch's GPU allocator places tensors."""

Size = tuple[int, int]


def grids(size: Size) -> list[Size]:
    """Rows and columns of each level's cells on an image of this height and width."""
    return [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in STRIDES]


def count_anchors(size: Size) -> int:
    return PER_CELL * sum(rows * columns for rows, columns in grids(size))


@dataclass(frozen=True)
class LossCase:
    """Logits of a batch of images of one size."""

    images: int
    size: Size
    classes: int
    dtype: str
    background: str = "sure"

    @property
    def anchors(self) -> int:
        return count_anchors(self.size)

    @property
    def logit_bytes(self) -> int:
        return self.images * self.anchors * self.classes * DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        unsure = "" if self.background == "sure" else f" {self.background}"
        return f"N={self.images} A={self.anchors} K={self.classes}{unsure}"


@dataclass(frozen=True)
class MatchingCase:
    """Anchors of one image size, and as many boxes on each image."""

    images: int
    size: Size
    boxes: int
    dtype: str = "fp32"

    @property
    def anchors(self) -> int:
        return count_anchors(self.size)

    def __str__(self) -> str:
        return f"N={self.images} A={self.anchors} G={self.boxes}"


class LossInputs:
    """Logits as the heads of a channels-last network leave them, and labels; the same on every run.

    Attributes:
        memory: all logits, one piece; what a plain copy copies.
        outputs: of each level [N, 9 K, H, W] in channels-last order, inside ``memory``; they want a gradient.
        labels: int32 [N, A]; 0.15 % of the anchors have a class and 0.5 % are IGNORE.
    """

    def __init__(self, case: LossCase, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(SEED)
        self.case = case
        self.labels = _labels(case, device, generator)
        channels, dtype = PER_CELL * case.classes, DTYPES[case.dtype]
        sizes = [case.images * rows * columns * channels for rows, columns in grids(case.size)]
        # Each level begins where an allocation of its own could.
        step = ALIGNMENT // dtype.itemsize
        starts = [sum(math.ceil(size / step) * step for size in sizes[:level]) for level in range(len(sizes))]
        self.memory = torch.empty(starts[-1] + sizes[-1], dtype=dtype, device=device)
        self.memory.normal_(*BACKGROUND_LOGIT[case.background], generator=generator)
        self.outputs = []
        for (rows, columns), start, size in zip(grids(case.size), starts, sizes, strict=True):
            level = self.memory[start : start + size].view(case.images, rows, columns, channels)
            self.outputs.append(level.permute(0, 3, 1, 2))
        self._raise_foreground(generator)
        self.outputs = [output.detach().requires_grad_() for output in self.outputs]

    def _raise_foreground(self, generator: torch.Generator) -> None:
        """Give each foreground anchor the logit of a detector that has begun to see its class."""
        levels = level_views(self.outputs, self.case.classes)
        for level, labels in zip(levels, self.labels.split([x.shape[1] for x in levels], dim=1), strict=True):
            image, anchor = (labels >= 0).nonzero(as_tuple=True)
            logits = torch.empty(len(image), device=level.device).normal_(
                *FOREGROUND_LOGIT, generator=generator
            )
            level[image, anchor, labels[image, anchor].long()] = logits.to(level.dtype)

    @cached_property
    def concatenated(self) -> Tensor:
        """The same logits [N, A, K] in one tensor that wants a gradient, as torchvision's head returns them."""
        levels = level_views(self.outputs, self.case.classes)
        return torch.cat(levels, dim=1).detach().requires_grad_()


def level_views(outputs: Sequence[Tensor], classes: int) -> list[Tensor]:
    """Each level [N, 9 K, H, W] in channels-last order as [N, H W 9, K], without a copy."""
    return [output.permute(0, 2, 3, 1).reshape(len(output), -1, classes) for output in outputs]


def _labels(case: LossCase, device: torch.device, generator: torch.Generator) -> Tensor:
    shape = (case.images, case.anchors)
    chance = torch.rand(shape, device=device, generator=generator)
    classes = torch.randint(case.classes, shape, dtype=torch.int32, device=device, generator=generator)
    labels = torch.where(chance < FOREGROUND_SHARE, classes, BACKGROUND)
    return torch.where(chance > 1 - IGNORE_SHARE, IGNORE, labels).int()


class MatchingInputs:
    """Anchors [A, 4], and for each image boxes [G, 4]; xyxy in pixels, float32; the same on every run."""

    def __init__(self, case: MatchingCase, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self.case = case
        self.anchors = make_anchors(case.size).to(device)
        self.boxes = [make_boxes(case.boxes, case.size, generator).to(device) for _ in range(case.images)]


def make_anchors(size: Size) -> Tensor:
    """RetinaNet's anchors [A, 4] on every cell of P3 to P7 (focal loss paper, section 4), in whole pixels."""
    levels = []
    for stride, (rows, columns) in zip(STRIDES, grids(size), strict=True):
        sides = 4 * stride * 2 ** torch.tensor(OCTAVES)
        stretch = torch.tensor(RATIOS).sqrt()[:, None]
        half = torch.stack([sides / stretch, sides * stretch], dim=-1).reshape(-1, 2) / 2
        cell = torch.cat([-half, half], dim=1).round()
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        corners = stride * torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        levels.append((corners + cell).reshape(-1, 4))
    return torch.cat(levels).float()


def make_boxes(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Boxes [G, 4] with sizes as in COCO, anywhere on an image of this height and width.

    The side of the square with a box's area is log-normal, with a median of 42 px and a spread of 1.18 on an
    image of 480 px (its shorter side), in proportion on others: that gives COCO's 41 % of small objects (below
    32 px) and 24 % of large ones (from 96 px). The logarithm of height over width has a spread of 0.4. Sides
    reach from 8 px to the image's own.
    """
    limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
    side = torch.randn(count, 1, generator=generator).mul(SPREAD_OF_BOXES).exp() * MEDIAN_BOX * min(size)
    stretch = torch.randn(count, 1, generator=generator).mul(SPREAD_OF_RATIOS / 2).exp()
    sides = torch.cat([side / stretch, side * stretch], dim=1).clamp(min=SMALLEST_BOX).minimum(limits)
    corner = torch.rand(count, 2, generator=generator) * (limits - sides)
    return torch.cat([corner, corner + sides], dim=1)

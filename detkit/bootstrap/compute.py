"""What a run is charged, in forward passes per canvas pixel, and how long it may then train.

A forward pass over a canvas costs its pixels once, a backward pass twice. A scan is forward passes alone. Its charge
follows from the sizes of its images, so that one that was interrupted and resumed costs what it would have cost.
"""

from collections.abc import Sequence

from detkit.errors import ConfigError

Size = tuple[int, int]
"""(height, width) in pixels."""


def scan_compute(sizes: Sequence[Size], stride: int, batch: int) -> int:
    """The charge for looking once at each image, at the size at which the detector sees it.

    Args:
        sizes: of the images, resized, in the order in which they are looked at.
        stride: divides the sides of a canvas.
        batch: images that are looked at together, on canvases that hold the largest of them.
    """
    charge = 0
    for start in range(0, len(sizes), batch):
        some = sizes[start : start + batch]
        height, width = (-(-max(side) // stride) * stride for side in zip(*some, strict=True))
        charge += len(some) * height * width
    return charge


def affordable_steps(budget: float, *, step: float, scans: float) -> int:
    """The training steps that a budget pays for when scans are paid first.

    Args:
        budget: of the whole run.
        step: the charge for a training step.
        scans: the charge for all scans together.

    Raises:
        ConfigError: nothing is left for training.
    """
    steps = int((budget - scans) / step + 1e-9)
    if steps < 1:
        raise ConfigError(
            f"the scans of all rounds cost {scans:.3g} of a budget of {budget:.3g}, which leaves less than a step of "
            f"{step:.3g}; take fewer rounds, divide the pool into more parts, or train for longer"
        )
    return steps

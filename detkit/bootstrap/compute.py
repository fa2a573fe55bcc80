"""What a run is charged, in forward passes per canvas pixel, and how long it may then train.

A forward pass over a canvas costs its pixels once, a backward pass twice. A scan is forward passes alone. Its charge
follows from the sizes of its images, so that one that was interrupted and resumed costs what it would have cost.
"""

from collections.abc import Iterable

from detkit.errors import ConfigError

Size = tuple[int, int]
"""(height, width) in pixels."""


def scan_compute(sizes: Iterable[Size], stride: int) -> int:
    """The charge for looking once at each image, at the size at which the detector sees it.

    Args:
        sizes: of the images, resized.
        stride: divides the sides of the canvas, which is the smallest that holds an image.
    """
    return sum((-(-height // stride) * stride) * (-(-width // stride) * stride) for height, width in sizes)


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

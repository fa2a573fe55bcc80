"""The learning rate over a run: a pure function of the step, so that a resumed run needs no state of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer

ScheduleName = Literal["constant", "step", "cosine", "one_cycle"]


@dataclass(frozen=True)
class LearningRateSchedule:
    """Warm-up, then constant, steps down, a half cosine, or one cycle (Smith, 2018; cosine both ways)."""

    name: ScheduleName
    steps: int
    """Optimiser steps of the whole run."""
    warmup_steps: int = 0
    warmup_factor: float = 0.001
    """Multiple of the learning rate that the first step begins at."""
    milestones: Sequence[float] = (2 / 3, 8 / 9)
    """Of ``step``: shares of the run after which the rate is multiplied by ``decay``."""
    decay: float = 0.1
    final_factor: float = 0.0
    """Of ``cosine`` and ``one_cycle``: the multiple that the run ends with."""
    restarts: Sequence[int] = ()
    """Steps at which the whole schedule begins anew, ascending; it then ends where the next one begins."""

    def factor(self, step: int) -> float:
        """The multiple of the learning rate for optimiser step ``step``, counted from 0."""
        begins = [0, *(restart for restart in self.restarts if restart <= step)]
        ends = [*self.restarts, self.steps]
        return self._factor(step - begins[-1], ends[len(begins) - 1] - begins[-1])

    def _factor(self, step: int, steps: int) -> float:
        """Of step ``step`` of ``steps``."""
        warmup = min(self.warmup_steps, steps)
        if step < warmup:
            rise = step / warmup
            if self.name == "one_cycle":
                rise = (1 - math.cos(math.pi * rise)) / 2
            return self.warmup_factor + (1 - self.warmup_factor) * rise
        match self.name:
            case "constant":
                return 1.0
            case "step":
                # Rounded, so that .667 of 90,000 is not a step late by floating point.
                return self.decay ** sum(step >= round(share * steps) for share in self.milestones)
            case _:
                progress = (step - warmup) / max(1, steps - warmup)
                return self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * progress)) / 2

    def apply(self, optimiser: Optimizer, step: int) -> float:
        """Set every group's rate for this step and return the factor."""
        factor = self.factor(step)
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return factor

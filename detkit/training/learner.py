"""One optimiser step, and everything that it changes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from detkit.devices import Placement
from detkit.errors import TrainingError
from detkit.models import RetinaNet
from detkit.structures import ImageBatch, Target
from detkit.training.schedule import LearningRateSchedule

Batch = tuple[ImageBatch, list[Target]]


@dataclass(frozen=True)
class Learner:
    """A model and what trains it; ``step`` is the only place where weights change."""

    model: RetinaNet
    criterion: nn.Module
    optimiser: Optimizer
    schedule: LearningRateSchedule
    placement: Placement
    clip_norm: float | None = None
    average: AveragedModel | None = None

    @property
    def evaluated_model(self) -> RetinaNet:
        """The weights that are evaluated and kept as the result: the average where there is one."""
        return self.model if self.average is None else cast(RetinaNet, self.average.module)

    def step(
        self, batches: Sequence[Batch], step: int, observe: Callable[..., None] | None = None
    ) -> dict[str, float]:
        """Take optimiser step ``step``; return what to log.

        The batches are one to the losses, which are divided by the positives of all of them: an image without objects
        weighs no more than one with many. Numbers are read from the device once, after the backward passes, so that a
        GPU is not kept waiting in between. What ``observe`` is shown, see ``DetectionCriterion.forward``.

        Raises:
            TrainingError: a loss or the gradient is not finite; no weight has been changed by this step.
        """
        self.model.train()
        factor = self.schedule.apply(self.optimiser, step)
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._backward(batches, observe)
        norm = self._clip()
        totals = {name: value.item() for name, value in losses.items()}
        if not math.isfinite(sum(totals.values())):
            raise TrainingError(_not_finite(f"the loss is not finite ({_listed(totals)})", step, batches))
        if not math.isfinite(norm):
            raise TrainingError(
                _not_finite(f"the gradient is not finite (its norm is {norm})", step, batches)
            )
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        rate = max(group["initial_lr"] for group in self.optimiser.param_groups) * factor
        return {"loss": sum(totals.values()), **totals, "gradient_norm": norm, "learning_rate": rate}

    def sums(
        self, images: ImageBatch, targets: Sequence[Target], observe: Callable[..., None] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The forward pass and the criterion on this learner's device: losses, and what they are to be divided by."""
        device = self.placement.device
        with self.placement.autocast():
            outputs = self.model(images.to(device, non_blocking=True))
        sums = cast(Callable[..., tuple[dict[str, Tensor], Tensor]], self.criterion.sums)
        return sums(outputs, on_device(targets, device), observe)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "criterion": self.criterion.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.criterion.load_state_dict(state["criterion"])

    def _backward(self, batches: Sequence[Batch], observe: Callable[..., None] | None) -> dict[str, Tensor]:
        """Leave the gradient in the parameters; the losses."""
        parts, counts = [], []
        for images, targets in batches:
            sums, positives = self.sums(images, targets, observe)
            counts.append(positives)
            # All positives are known after the last batch only, so until then those of the first stand for them.
            losses = {name: value / counts[0].clamp(min=1) for name, value in sums.items()}
            torch.stack(list(losses.values())).sum().backward()
            parts.append({name: value.detach() for name, value in losses.items()})
        if len(batches) == 1:
            return parts[0]  # divided by all there are
        share = counts[0].clamp(min=1) / torch.stack(counts).sum().clamp(min=1)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad *= share
        return {name: torch.stack([part[name] for part in parts]).sum() * share for name in parts[0]}

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def _clip(self) -> float:
        most = math.inf if self.clip_norm is None else self.clip_norm
        return clip_grad_norm_(self._parameters, most).item()


def on_device(targets: Sequence[Target], device: torch.device) -> list[Target]:
    """The same targets with their tensors on ``device``."""
    return [
        {name: value.to(device, non_blocking=True) for name, value in target.items()}  # type: ignore[misc, attr-defined]
        for target in targets
    ]


def _not_finite(what: str, step: int, batches: Sequence[Batch]) -> str:
    names = [name for images, _ in batches for name in images.file_names]
    return (
        f"step {step}: {what}; images of this step: {', '.join(names)}; try a lower optimiser.learning_rate, "
        "a longer schedule.warmup_steps or training.clip_norm, and check these images with tools/check_data.py"
    )


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())

"""What learns: model, losses, optimiser and schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detkit.builders.criterion import build_criterion
from detkit.builders.model import build_model, place_model
from detkit.config import Config
from detkit.console import say
from detkit.devices import Placement
from detkit.models import load_weights
from detkit.training.averaging import moving_average
from detkit.training.learner import Learner
from detkit.training.loop import Plan
from detkit.training.optimiser import build_optimiser
from detkit.training.schedule import LearningRateSchedule


def build_learner(
    config: Config,
    class_names: Sequence[str],
    plan: Plan,
    placement: Placement,
    *,
    read_weights: bool,
    accepted: Mapping[int, Tensor] | None = None,
) -> Learner:
    """A learner that has learned nothing yet.

    Args:
        config: the run's.
        class_names: in the order of the class indices.
        plan: its pauses are where the schedule begins anew, if each round begins from scratch.
        placement: where it runs.
        read_weights: read ``model.weights``; a checkpoint that follows makes it needless.
        accepted: what a person called background, by image (see ``builders.training_images``).
    """
    # Seeded here and nowhere else: the initial weights, and then dropout, draw from torch's global generator.
    torch.manual_seed(config.seed)
    model = build_model(config, class_names)
    if config.model.weights is not None and read_weights:
        say(str(load_weights(model, config.model.weights)))
    place_model(model, config, placement.device)
    settings: dict[str, Any] = config.schedule.model_dump()
    scratch = config.bootstrap is not None and config.bootstrap.start == "scratch"
    decay = config.training.ema_decay
    return Learner(
        model=model,
        criterion=build_criterion(config, accepted),
        optimiser=build_optimiser(model, **config.optimiser.model_dump()),
        schedule=LearningRateSchedule(steps=plan.steps, restarts=plan.pauses if scratch else (), **settings),
        placement=placement,
        clip_norm=config.training.clip_norm,
        average=None if decay is None else moving_average(model, decay),
    )

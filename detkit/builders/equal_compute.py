"""How long each arm of a comparison may train: what scans cost is paid with steps."""

from itertools import islice

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.bootstrap.compute import affordable_steps
from detkit.builders.background import background_counts
from detkit.builders.rounds import bootstrap_settings
from detkit.builders.run import build_run
from detkit.config import Config
from detkit.training.loop import STEP_PASSES, Run

SAMPLED_STEPS = 8
"""From whose canvases the cost of a step is estimated; where all images come out in one size, it is exact."""


def compute_budget(config: Config) -> float:
    """What a run costs, in forward passes per canvas pixel."""
    run = build_run(config, resumed=True)
    return run.plan.steps * step_cost(config, run)


def steps_within(config: Config, budget: float) -> int:
    """The steps that a run may take to cost no more than a budget, the scans of all its rounds included.

    Raises:
        ConfigError: the scans leave nothing for training.
    """
    run = build_run(config, resumed=True)
    scans = run.at_pause.charge() if isinstance(run.at_pause, Bootstrapping) else 0
    step = step_cost(config, run)
    steps = affordable_steps(budget, step=step, scans=scans)
    # Steps that have no canvases yet cost less, and what they leave pays for more of them.
    while (steps + 1) * step - _saved(config, steps + 1) * step + scans <= budget:
        steps += 1
    return steps


def _saved(config: Config, steps: int) -> float:
    """How many whole steps the steps before the first crops save, for they have no canvases in their place yet."""
    settings = bootstrap_settings(config)
    counts = background_counts(config)
    if settings is None or counts.pool or not counts.canvases:
        return 0.0
    return settings.pauses(steps)[0] * counts.canvases / (counts.images + counts.canvases)


def step_cost(config: Config, run: Run) -> float:
    """What a whole step costs, canvases of crops included, which the first steps lack."""
    batches = list(islice(run.batches_from(0), SAMPLED_STEPS * run.plan.accumulate))
    pixels = sum(images.canvas_pixels for images, _ in batches) / sum(len(images) for images, _ in batches)
    return STEP_PASSES * pixels * config.training.batch_size * run.plan.accumulate

"""The loop: epochs of steps, validation, checkpoints, early stopping, and resuming exactly.

A checkpoint holds everything that the rest of the run depends on, and the order of the data is a pure function of
the seed and the step. A run killed at any moment and resumed therefore ends with the same weights and the same
log, times aside, as one that was left alone (on a CPU; GPU convolutions may differ in their last bits).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from detkit.console import ProgressBar, progress_bar, say
from detkit.models import RetinaNet
from detkit.training.checkpoint import random_state, restore_random_state, save_checkpoint
from detkit.training.interruption import Interruption, watch_interruption
from detkit.training.learner import Batch, Learner
from detkit.training.run_log import RunLog

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True)
class Plan:
    """How long to train, and what to do on the way."""

    epochs: int
    steps_per_epoch: int
    accumulate: int = 1
    """Batches per optimiser step."""
    validate_every: int = 1
    """Epochs; the last epoch is always validated."""
    metric: str = "AP"
    """Higher is better; chooses the best checkpoint."""
    patience: int | None = None
    """Validations without a gain after which the run stops; None never stops early."""
    min_gain: float = 0.0
    checkpoint_every: int | None = None
    """Steps; None saves at the end of each epoch alone."""
    log_every: int = 20

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclass
class Position:
    """Where a run is: what the loop itself remembers from step to step."""

    step: int = 0
    """Optimiser steps taken."""
    ended_epochs: int = 0
    """Epochs whose validation, where it was due, is done."""
    best: float | None = None
    best_step: int | None = None
    gained: float | None = None
    """The last value that counted as a gain for early stopping."""
    stale: int = 0
    """Validations since then."""
    finished: bool = False
    metrics: dict[str, Any] | None = None
    """The last validation's row."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums over the steps since the last row of the log."""
    window_steps: int = 0


@dataclass
class Run:
    """A training run in its folder: ``last.pt``, ``best.pt`` and ``metrics.jsonl``."""

    folder: Path
    plan: Plan
    learner: Learner
    batches_from: Callable[[int], Iterator[Batch]]
    """The batches from an optimiser step on, for the rest of the run."""
    validate: Callable[[RetinaNet], dict[str, Any]]
    """Validation losses and COCO metrics of a model."""
    identity: dict[str, Any]
    """What every checkpoint carries: config, class_names, category_ids."""
    tensorboard: bool = False

    def fit(self, checkpoint: dict[str, Any] | None = None) -> Position:
        """Train from the beginning, or on from a ``last.pt``; return where the run ended.

        Ctrl-C and SIGTERM end it early, after saving: ``finished`` is then False.

        Raises:
            TrainingError: a loss or gradient is not finite. ``last.pt`` is the last good state.
        """
        position, log_size = self._restore(checkpoint)
        if position.finished:
            return position
        with (
            RunLog(self.folder, resume_at=log_size, tensorboard=self.tensorboard) as log,
            watch_interruption() as interruption,
        ):
            batches = self.batches_from(position.step)
            while not position.finished and interruption.signal is None:
                # A run that was stopped between an epoch and its validation owes the validation first.
                if position.step // self.plan.steps_per_epoch == position.ended_epochs:
                    self._train_epoch(batches, position, log, interruption)
                    self._save_last(position, log)
                if position.step % self.plan.steps_per_epoch == 0 and interruption.signal is None:
                    self._end_epoch(position, log)
                    self._save_last(position, log)
        return position

    def _restore(self, checkpoint: dict[str, Any] | None) -> tuple[Position, int | None]:
        """The position to go on from, and the size of the log that belongs to it."""
        if checkpoint is None:
            return Position(), None
        state = checkpoint["training"]
        self.learner.load_state_dict(state["learner"])
        restore_random_state(state["random_state"])
        return Position(**state["position"]), state["log_size"]

    def _train_epoch(
        self, batches: Iterator[Batch], position: Position, log: RunLog, interruption: Interruption
    ) -> None:
        """Steps to the end of the epoch, or until the run is asked to stop."""
        plan = self.plan
        done = position.step % plan.steps_per_epoch
        epoch = position.step // plan.steps_per_epoch
        meter = _Meter(position)
        with progress_bar() as bar:
            title = f"epoch {epoch + 1}/{plan.epochs}"
            task = bar.add_task(title, total=plan.steps, completed=position.step, status="")
            for _ in range(done, plan.steps_per_epoch):
                group = list(islice(batches, plan.accumulate))
                meter.add(self.learner.step(group, position.step), sum(len(images) for images, _ in group))
                position.step += 1
                ends = position.step % plan.steps_per_epoch == 0
                if ends or position.step % plan.log_every == 0:
                    log.write(self._train_row(meter, bar))
                bar.update(task, advance=1, status=meter.status)
                if interruption.signal is not None:
                    return
                if not ends and plan.checkpoint_every and position.step % plan.checkpoint_every == 0:
                    self._save_last(position, log)

    def _train_row(self, meter: "_Meter", bar: ProgressBar) -> dict[str, Any]:
        position = meter.position
        row = {"event": "train", "step": position.step, "epoch": self._epoch(position), **meter.means()}
        if bar.disable:
            values = ", ".join(
                f"{name} {row[name]:.4g}" for name in row if name not in ("event", "step", "epoch")
            )
            say(
                f"epoch {row['epoch']:.2f}/{self.plan.epochs}, step {position.step}/{self.plan.steps}: {values}"
            )
        return row

    def _end_epoch(self, position: Position, log: RunLog) -> None:
        """Validate where it is due, keep the best, and decide whether the run is over."""
        plan = self.plan
        epoch = position.ended_epochs = position.step // plan.steps_per_epoch
        position.finished = epoch >= plan.epochs
        if epoch % plan.validate_every and not position.finished:
            return
        started = time.monotonic()
        metrics = self.validate(self.learner.evaluated_model)
        row = {"event": "validate", "step": position.step, "epoch": self._epoch(position), **metrics}
        log.write({**row, "seconds": round(time.monotonic() - started, 3)})
        position.metrics = row
        say(f"epoch {epoch}/{plan.epochs}: validation " + _validation_line(metrics))
        self._keep_best(position, metrics[plan.metric])
        if plan.patience is not None and position.stale >= plan.patience and not position.finished:
            say(f"stopped early: {plan.metric} has not improved for {position.stale} validations")
            position.finished = True

    def _keep_best(self, position: Position, value: float | None) -> None:
        """Save ``best.pt`` where the metric is better than ever, or has never been measured yet."""
        if value is not None and (position.gained is None or value > position.gained + self.plan.min_gain):
            position.gained, position.stale = value, 0
        else:
            position.stale += 1
        if position.best is None or (value is not None and value > position.best):
            position.best, position.best_step = value, position.step
            save_checkpoint(self.folder / BEST, self._predictor(position))

    def _save_last(self, position: Position, log: RunLog) -> None:
        training = {
            "learner": self.learner.state_dict(),
            "position": asdict(position),
            "log_size": log.flush(),
            "random_state": random_state(),
        }
        save_checkpoint(self.folder / LAST, {**self._predictor(position), "training": training})

    def _predictor(self, position: Position) -> dict[str, Any]:
        return {
            **self.identity,
            "model": self.learner.evaluated_model.state_dict(),
            "step": position.step,
            "metrics": position.metrics,
        }

    def _epoch(self, position: Position) -> float:
        return round(position.step / self.plan.steps_per_epoch, 4)


class _Meter:
    """Means over the steps since the last row of the log; the sums live in the position, so a resume keeps them."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.status = ""
        self._images = 0
        self._since = time.monotonic()

    def add(self, values: dict[str, float], images: int) -> None:
        window = self.position.window
        for name, value in values.items():
            window[name] = window.get(name, 0.0) + value
        self.position.window_steps += 1
        self._images += images
        speed = self._images / (time.monotonic() - self._since)
        self.status = " ".join(f"{name} {values[name]:.3g}" for name in ("loss", "classification", "box"))
        self.status += f" | {speed:.1f} images/s"

    def means(self) -> dict[str, float]:
        """The means, and a new window."""
        seconds = time.monotonic() - self._since
        row = {name: value / self.position.window_steps for name, value in self.position.window.items()}
        row["images_per_second"] = round(self._images / seconds, 2)
        row["seconds"] = round(seconds, 3)
        self.position.window, self.position.window_steps = {}, 0
        self._images, self._since = 0, time.monotonic()
        return row


def _validation_line(metrics: dict[str, Any]) -> str:
    shown = {name: metrics.get(name) for name in ("loss", "AP", "AP50", "AP75", "AR100")}
    return ", ".join(f"{name} {'n/a' if value is None else f'{value:.4f}'}" for name, value in shown.items())

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

from detkit.console import ProgressBar, progress_bar, say, warn
from detkit.errors import TrainingError
from detkit.models import RetinaNet
from detkit.training.checkpoint import random_state, restore_random_state, save_checkpoint
from detkit.training.interruption import Interruption, watch_interruption
from detkit.training.laziness import StepLook
from detkit.training.learner import Batch, Learner
from detkit.training.run_log import RunLog, read_log
from detkit.training.verdicts import verdicts

LAST, BEST = "last.pt", "best.pt"
STEP_PASSES = 3
"""Forward passes that a training step costs: one, and a backward pass, which is twice as dear."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and what to do on the way."""

    steps: int
    """Optimiser steps of the whole run."""
    steps_per_epoch: int
    """The last epoch of a run may have fewer."""
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

    pauses: tuple[int, ...] = ()
    """Steps after which something else has its turn, ascending, all before the last."""

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, the last one perhaps not complete."""
        return -(-self.steps // self.steps_per_epoch)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with this many steps."""
        return step % self.steps_per_epoch == 0 or step == self.steps

    def logs(self, step: int) -> bool:
        """Whether the log gets a row after this many steps."""
        return self.ends_epoch(step) or step % self.log_every == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due amid an epoch after this many steps."""
        if self.checkpoint_every is None or self.ends_epoch(step):
            return False
        return step % self.checkpoint_every == 0

    def stop_after(self, step: int) -> int:
        """Where the steps that follow ``step`` are interrupted next: at a pause or an epoch's end."""
        epoch_end = min(self.steps, (step // self.steps_per_epoch + 1) * self.steps_per_epoch)
        return min([epoch_end, *(pause for pause in self.pauses if pause > step)])


@dataclass
class Position:
    """Where a run is: what the loop itself remembers from step to step."""

    step: int = 0
    """Optimiser steps taken."""
    ended_epochs: int = 0
    """Epochs whose validation, where it was due, is done."""
    ended_pauses: int = 0
    """Pauses that are over."""
    compute: float = 0.0
    """Forward passes per canvas pixel: 3 for each pixel of a step, and what pauses were charged."""
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
    window_images: int = 0
    window_seconds: float = 0.0


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
    """What every checkpoint carries: config, class_names, category_ids, and the digest of marks."""
    tensorboard: bool = False
    at_pause: Callable[[Position], dict[str, Any] | None] | None = None
    """Called at each of the plan's pauses; what it returns is logged as a ``round``. It may change what the learner
    holds and what ``batches_from`` gives, and adds to the position's compute. A run that is stopped before it returns
    calls it again when it is resumed, with everything as it was."""
    pauses_change_batches: bool = True
    """Whether ``batches_from`` is asked again after a pause: starting workers, and reading again what they had read
    ahead, takes time."""
    look: Callable[[], StepLook] | None = None
    """Makes what looks at the first step and at each that gets a row in the log; None looks at none."""
    after_validation: Callable[[Position], bool] | None = None
    """Called when a validation is done and the position knows of it; True ends the run there. A run that is killed
    before the checkpoint that follows calls it again when it is resumed, with the same values."""

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
            batches = None
            while not position.finished and interruption.signal is None:
                # A run that was stopped between an epoch and its validation, or in a pause, owes that first.
                if position.ended_epochs < self._epochs_at(position.step):
                    self._end_epoch(position, log)
                elif self.at_pause and position.ended_pauses < self._pauses_at(position.step):
                    if self.pauses_change_batches:
                        batches = None
                    started = time.monotonic()
                    row = self.at_pause(position)
                    if row is not None:
                        seconds = round(time.monotonic() - started, 3)
                        log.write({"event": "round", **self._where(position), **row, "seconds": seconds})
                    position.ended_pauses += 1
                else:
                    batches = batches or self.batches_from(position.step)
                    self._train(batches, position, log, interruption)
                self._save_last(position, log)
        return position

    def _epochs_at(self, step: int) -> int:
        """Epochs that end with this many steps or fewer."""
        plan = self.plan
        return step // plan.steps_per_epoch if step < plan.steps else plan.epochs

    def _pauses_at(self, step: int) -> int:
        """Pauses after this many steps or fewer."""
        return sum(pause <= step for pause in self.plan.pauses)

    def _restore(self, checkpoint: dict[str, Any] | None) -> tuple[Position, int | None]:
        """The position to go on from, and the size of the log that belongs to it."""
        if checkpoint is None:
            return Position(), None
        if checkpoint.get("marks") != self.identity.get("marks"):
            raise TrainingError(
                f"{self.folder / LAST}: was trained with other review marks (data.marks names a file whose content has "
                "changed); put the file back, or begin anew (--overwrite)"
            )
        state = checkpoint["training"]
        self.learner.load_state_dict(state["learner"])
        restore_random_state(state["random_state"])
        return Position(**state["position"]), state["log_size"]

    def _train(
        self, batches: Iterator[Batch], position: Position, log: RunLog, interruption: Interruption
    ) -> None:
        """Steps to the next pause or the end of the epoch, or until the run is asked to stop."""
        plan = self.plan
        epoch = position.step // plan.steps_per_epoch
        meter = _Meter(position)
        with progress_bar() as bar:
            title = f"epoch {epoch + 1}/{plan.epochs}"
            task = bar.add_task(title, total=plan.steps, completed=position.step, status="")
            for _ in range(position.step, plan.stop_after(position.step)):
                group = list(islice(batches, plan.accumulate))
                logs = plan.logs(position.step + 1)
                look = self.look() if self.look and (logs or position.step == 0) else None
                values = self.learner.step(group, position.step, look)
                meter.add(values, sum(len(images) for images, _ in group))
                position.step += 1
                position.compute += sum(STEP_PASSES * images.canvas_pixels for images, _ in group)
                if look:
                    self._log_look(look, position, log)
                if logs:
                    log.write(self._train_row(meter, bar))
                bar.update(task, advance=1, status=meter.status)
                if interruption.signal is not None:
                    return
                if plan.saves(position.step):
                    self._save_last(position, log)

    def _log_look(self, look: StepLook, position: Position, log: RunLog) -> None:
        log.write({"event": "look", **self._where(position), **look.values(), "seconds": look.seconds})
        if position.step == 1:
            self._judge(position, log)

    def _judge(self, position: Position, log: RunLog) -> None:
        """Say what is wrong, as far as it has not been said yet."""
        rows = read_log(log.path)
        said = {row["cause"] for row in rows if row["event"] == "verdict"}
        for verdict in verdicts(rows, steps=self.plan.steps, classes=len(self.identity["class_names"])):
            if verdict.cause not in said:
                log.write({"event": "verdict", **self._where(position), **asdict(verdict)})
                warn(f"{verdict.cause}: {verdict.sentence}")

    def _train_row(self, meter: "_Meter", bar: ProgressBar) -> dict[str, Any]:
        position = meter.position
        row = {"event": "train", **self._where(position), **meter.means()}
        if bar.disable:
            values = ", ".join(
                f"{name} {row[name]:.4g}" for name in row if name not in ("event", "step", "epoch", "compute")
            )
            say(
                f"epoch {row['epoch']:.2f}/{self.plan.epochs}, step {position.step}/{self.plan.steps}: {values}"
            )
        return row

    def _end_epoch(self, position: Position, log: RunLog) -> None:
        """Validate where it is due, keep the best, and decide whether the run is over."""
        plan = self.plan
        epoch = position.ended_epochs = self._epochs_at(position.step)
        position.finished = position.step >= plan.steps
        if epoch % plan.validate_every and not position.finished:
            return
        started = time.monotonic()
        metrics = self.validate(self.learner.evaluated_model)
        row = {"event": "validate", **self._where(position), **metrics}
        log.write({**row, "seconds": round(time.monotonic() - started, 3)})
        position.metrics = row
        say(f"epoch {epoch}/{plan.epochs}: validation " + _validation_line(metrics))
        self._judge(position, log)
        self._keep_best(position, metrics[plan.metric])
        if plan.patience is not None and position.stale >= plan.patience and not position.finished:
            say(f"stopped early: {plan.metric} has not improved for {position.stale} validations")
            position.finished = True
        if self.after_validation is not None and self.after_validation(position):
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

    def _where(self, position: Position) -> dict[str, float]:
        epoch = round(position.step / self.plan.steps_per_epoch, 4)
        return {"step": position.step, "epoch": epoch, "compute": position.compute}


class _Meter:
    """Means over the steps since the last row of the log; the sums live in the position, so a resume keeps them."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.status = ""
        self._since = time.monotonic()

    def add(self, values: dict[str, float], images: int) -> None:
        window = self.position.window
        for name, value in values.items():
            window[name] = window.get(name, 0.0) + value
        now = time.monotonic()
        self.position.window_steps += 1
        self.position.window_images += images
        self.position.window_seconds += now - self._since
        self._since = now
        speed = self.position.window_images / self.position.window_seconds
        self.status = " ".join(f"{name} {values[name]:.3g}" for name in ("loss", "classification", "box"))
        self.status += f" | {speed:.1f} images/s"

    def means(self) -> dict[str, float]:
        """The means, and a new window."""
        position = self.position
        row = {name: value / position.window_steps for name, value in position.window.items()}
        row["images_per_second"] = round(position.window_images / position.window_seconds, 2)
        row["seconds"] = round(position.window_seconds, 3)
        position.window, position.window_steps = {}, 0
        position.window_images, position.window_seconds = 0, 0.0
        return row


def _validation_line(metrics: dict[str, Any]) -> str:
    shown = {name: metrics.get(name) for name in ("loss", "AP", "AP50", "AP75", "AR100")}
    return ", ".join(f"{name} {'n/a' if value is None else f'{value:.4f}'}" for name, value in shown.items())

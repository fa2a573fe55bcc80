"""A quality gate: what a detector must reach, and must not do, before it goes out."""

from typing import Literal

from pydantic import model_validator

from detkit.config.values import Count, Metric, Positive, Section, Share


class RecallAt(Section):
    """The least recall, at IoU .5."""

    false_positives: Positive
    """Per image."""
    recall: Share


class Least(Section):
    """The least values of metrics, as fractions."""

    metrics: dict[Metric | Literal["precision", "recall", "F1"], Share] = {}
    """By name; of one class there are AP, AP50, AP75, AR100, precision, recall and F1."""
    recall_at: list[RecallAt] = []


class AlarmLimit(Section):
    """How many of the images without objects may have a detection."""

    score: Share = 0.5
    """The least of a detection that is an alarm."""
    rate: Share
    """The highest share of those images."""


class Baseline(Section):
    """Detections on the same images that must not be better beyond what chance explains."""

    detections: str
    """COCO results of another run, relative to the gate's file."""
    metric: Literal["AP", "AP50", "AP75", "AR100"] = "AP50"
    resamples: Count = 2000
    """Of the images, for the 95 % interval of the difference."""


class Gate(Section):
    """All that is named must hold."""

    score: Share = 0.5
    """The least of a detection that counts for precision, recall and F1."""
    overall: Least | None = None
    classes: dict[str, Least] = {}
    """By name."""
    alarms: AlarmLimit | None = None
    baseline: Baseline | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Gate":
        least = [one for one in (self.overall, *self.classes.values()) if one is not None]
        if not (any(one.metrics or one.recall_at for one in least) or self.alarms or self.baseline):
            raise ValueError("asks for nothing, so that everything would pass")
        return self

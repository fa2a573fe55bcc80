"""results.json: everything that a comparison of arms found, as one file.

``detkit.comparison`` writes it and ``detkit.report`` reads it; neither knows the other. The classes below are the
format: an object of JSON for each dataclass, a list for each tuple, its keys the fields. Strict JSON; metrics are
fractions from 0 to 1 or counts per image, by the names of ``compared_metrics``, and null where there is nothing to
measure, a recall is not reached or an interval is open. ``format_version`` is 1.

Compute is counted in forward passes per canvas pixel: a forward pass over a canvas costs its pixels (height x width)
once, a backward pass twice, so that a training step costs three times the pixels of its batch and a scan for
negatives once those of its images. Validation is measured for all alike and charged to none.

Paths of pictures are relative to the file's folder and stay inside it.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from detkit.errors import DataError
from detkit.evaluation.compared_metrics import COMMON_RECALL, ComparedMetric
from detkit.files import read_json, write_json

FORMAT_VERSION = 1
EQUAL_COMPUTE = 0.02
"""Runs whose compute differs by less than this share of the mean are equal: they stop on whole steps."""
LEAST_LOWER = 0.005
"""Recalls nearer to the common one than this are taken for it."""
COMPUTE_UNIT = "forward passes per canvas pixel (forward 1, backward 2)"


class _Scored(Protocol):
    @property
    def score(self) -> float: ...


Negative = TypeVar("Negative", bound=_Scored)
Metrics = dict[str, float | None]
Box = tuple[float, float, float, float]
"""xyxy in pixels of the original image."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    """None where that end is open: in some resamples the recall is not reached."""


@dataclass(frozen=True)
class LearningPoint:
    """What a run scored on its way."""

    compute: float
    """Spent until then, mining included."""
    metrics: Metrics


@dataclass(frozen=True)
class RoundResult:
    """One search for false positives, by scans and by the training steps themselves, and what became of them."""

    number: int
    """Counted from 1."""
    compute: float
    """Spent by the run when the round ended."""
    scanned: int
    """Images looked at, each as often as it was."""
    false_positives: int
    """Detections there that are background errors, and regions that training steps noted."""
    added: int
    """What of them entered the negative set."""
    negatives: int
    """Members of the set after the round."""
    acceptance: float | None = None
    """Added / images looked at: it falls as the detector learns; None where no image was."""
    rolled_back: bool = False
    reason: str = ""
    """Why the round was rolled back or mining stopped; empty otherwise."""


@dataclass(frozen=True)
class HardNegative:
    """A mined crop, to be shown."""

    picture: str
    """Path of a JPEG or PNG."""
    source: str
    """The file that it was cut from."""
    class_name: str
    """What the detector took it for."""
    score: float
    round: int
    of_pool: bool = False
    """It was cut from an image of the pool."""


@dataclass(frozen=True)
class Curves:
    """A run over all score thresholds, at IoU .5, all classes together, on the grids of ``Comparison``."""

    precision: tuple[float | None, ...]
    """At each of ``recall_grid``; None past the highest recall."""
    recall: tuple[float | None, ...]
    """At each of ``false_positive_grid``."""
    highest_recall: float | None


@dataclass(frozen=True)
class Run:
    """An arm trained with one seed."""

    seed: int
    metrics: Metrics
    compute: dict[str, float]
    """What was charged, by part: "training", "mining"."""
    wall_clock: float
    """Seconds."""
    learning: tuple[LearningPoint, ...]
    curves: Curves
    rounds: tuple[RoundResult, ...] = ()
    hardest: tuple[HardNegative, ...] = ()


@dataclass(frozen=True)
class MissingRun:
    """One that was planned and is not finished, or failed."""

    arm: str
    seed: int


@dataclass(frozen=True)
class Arm:
    """One strategy, its runs and what they score together."""

    name: str
    config: str
    """The configuration's exact text."""
    runs: tuple[Run, ...]
    estimates: dict[str, Estimate]
    """The mean over the seeds, by metric."""


@dataclass(frozen=True)
class Difference:
    """A pair of arms in one metric: the first less the second."""

    first: str
    second: str
    metric: str
    seeds: tuple[int, ...]
    """Those that both arms have; the difference is their mean."""
    value: float | None
    low: float | None
    high: float | None
    """None where that end is open."""
    p: float | None
    """Two-sided, of no difference."""
    p_holm: float | None
    """After Holm's correction over all pairs of this metric."""
    shown: bool
    """A difference is shown: the interval leaves out 0 and ``p_holm`` is below .05."""
    sentence: str
    recall: float | None = None
    """Of ``fppi_at_common_recall``: the recall that both reach."""

    @property
    def leaves_out_zero(self) -> bool:
        """The interval lies on the value's side of 0."""
        if (self.value or 0) < 0:
            return self.high is not None and self.high < 0
        return self.low is not None and self.low > 0


@dataclass(frozen=True)
class Lead:
    """A difference told from the better arm's side."""

    better: str
    worse: str
    value: float
    """By how much it is better: 0 or more."""
    low: float | None
    high: float | None
    recall: float | None
    """Of ``fppi_at_common_recall``."""

    @property
    def lower_recall(self) -> float | None:
        """The recall that false positives are compared at, where one of the two does not reach the common one."""
        low = self.recall is not None and self.recall < COMMON_RECALL - LEAST_LOWER
        return self.recall if low else None


@dataclass(frozen=True)
class Object:
    """An object in a picture."""

    box: Box
    class_name: str


@dataclass(frozen=True)
class DrawnDetection:
    """A detection in a picture."""

    box: Box
    class_name: str
    score: float
    outcome: Literal["correct", "false", "ignored"]


@dataclass(frozen=True)
class Panel:
    """What one arm sees in a picture, at a score threshold of its own."""

    arm: str
    seed: int
    threshold: float
    detections: tuple[DrawnDetection, ...]
    missed: tuple[int, ...]
    """Indices of the picture's objects that were not found."""


@dataclass(frozen=True)
class Picture:
    """One validation image under every arm."""

    picture: str
    """Path of a JPEG or PNG, which may be smaller than the image."""
    name: str
    """File name of the image."""
    width: int
    height: int
    """Of the original image, in whose pixels the boxes are."""
    reason: str
    """Why this image was chosen."""
    objects: tuple[Object, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Resampling:
    """How intervals were made."""

    resamples: int
    seed: int
    groups: int | None = None
    """Of images that are not independent, which were drawn together; None where images were drawn."""


@dataclass(frozen=True)
class Comparison:
    """Arms, seeds and their differences."""

    title: str
    images: int
    objects: int
    classes: tuple[str, ...]
    resampling: Resampling
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    verdict: tuple[str, ...]
    """Plain sentences, the most important first."""
    recall_grid: tuple[float, ...]
    false_positive_grid: tuple[float, ...]
    """Per image."""
    pictures: tuple[Picture, ...] = ()
    picture_recall: float | None = None
    """In the pictures every arm stands at the highest score that gives this recall over the whole set."""
    config: str = ""
    """The comparison's own configuration."""
    versions: dict[str, str] = field(default_factory=dict)
    """That the runs were made with."""
    splits: tuple[str, ...] = ()
    """What was measured on."""
    missing: tuple[MissingRun, ...] = ()
    compute_unit: str = COMPUTE_UNIT
    format_version: int = FORMAT_VERSION


def off_mean_compute(arms: Sequence[Arm]) -> tuple[Arm, Run, float] | None:
    """The run whose compute is farthest from the mean of all, and by which share of it; None where none is recorded."""
    totals = [(arm, run, sum(run.compute.values())) for arm in arms for run in arm.runs]
    mean = sum(total for _, _, total in totals) / len(totals) if totals else 0.0
    if not mean:
        return None
    arm, run, total = max(totals, key=lambda one: abs(one[2] - mean))
    return arm, run, total / mean - 1


def lead(difference: Difference, metric: ComparedMetric) -> Lead:
    """The difference with the better arm first; of equals, the one that was first."""
    value, low, high = difference.value or 0.0, difference.low, difference.high
    names = (difference.first, difference.second)
    if value and (value < 0) == metric.higher_is_better:
        names = names[::-1]
    if value < 0:
        value, low, high = -value, _negative(high), _negative(low)
    return Lead(*names, value, low, high, difference.recall)


def ranking(arms: Sequence[Arm], metric: ComparedMetric) -> list[Arm]:
    """The arms from best to worst; those without a value last."""

    def key(arm: Arm) -> tuple[bool, float]:
        value = arm.estimates[metric.name].value
        return value is None, (value or 0) * (-1 if metric.higher_is_better else 1)

    return sorted(arms, key=key)


def hardest_of_images(negatives: Iterable[Negative], image: Callable[[Negative], Hashable]) -> list[Negative]:
    """The negative of each image that scores highest, hardest first.

    What fires once fires around there too, and under every seed: a few images would fill a gallery.
    """
    of_images = {image(negative): negative for negative in sorted(negatives, key=lambda one: one.score)}
    return sorted(of_images.values(), key=lambda one: -one.score)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def write_comparison(path: str | os.PathLike, comparison: Comparison) -> None:
    """Write results.json, whole or not at all."""
    write_json(path, asdict(comparison), indent=1)


def read_comparison(path: str | os.PathLike) -> Comparison:
    """Read results.json.

    Raises:
        DataError: the file is not JSON, of another format version, or lacks something.
    """
    tree = read_json(path)
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version is {version!r}, and {FORMAT_VERSION} is read here; make the file with "
            "tools/compare.py of the same detkit"
        )
    try:
        return TypeAdapter(Comparison).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{path}: {where}: {first['msg']} (one of {error.error_count()} problems); make the file with "
            "tools/compare.py again"
        ) from None

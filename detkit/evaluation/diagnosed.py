"""A diagnosis together with what its page shows beside the numbers: the images, the suspects and the marks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detkit.evaluation.detection_errors import ClassifiedDetections
from detkit.evaluation.diagnosis import Diagnosis
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.missing_labels import Suspects
from detkit.evaluation.results import DetectionTable
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks

ReadImages = Callable[[Sequence[int]], Iterator[np.ndarray]]
"""The images of these ids, in this order and one by one as they are asked for, RGB uint8 [H, W, 3]."""


@dataclass(frozen=True)
class TrainingLog:
    """What a run wrote while it trained."""

    rows: Sequence[dict[str, Any]]
    """Of metrics.jsonl."""
    metric: str
    """The column of the validation rows that the best checkpoint was chosen by."""


@dataclass(frozen=True)
class Diagnosed:
    """All that is known of a detector on a set of images."""

    title: str
    """What was looked at, for people."""
    diagnosis: Diagnosis
    ground_truth: GroundTruth
    table: DetectionTable
    classified: ClassifiedDetections
    suspects: Suspects
    image_names: Mapping[int, str]
    """As the annotations have them, by image id."""
    image_sizes: Mapping[int, tuple[int, int]]
    """(height, width) in pixels, of the images whose annotations say it."""
    read_images: ReadImages | None = None
    """None where there are no images to be had."""
    marks: ReviewMarks = NO_MARKS
    """Made before, of these images or others."""
    image_digests: Mapping[int, str] = field(default_factory=dict)
    """The first 16 hexadecimal digits of the SHA-256 of the file of each suspect's image, where there are files."""
    log: TrainingLog | None = None
    """Of the run, where there is one."""

"""What a run is trained on, and what a person said of places in it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detkit.builders.background import background_pool
from detkit.builders.data import split_paths
from detkit.config import Config
from detkit.console import warn
from detkit.data.coco import CocoAnnotations, read_coco, with_ignore_regions
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks, read_review_marks
from detkit.mining.pool import Pool, tracked_id


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The images of a run."""

    annotations: CocoAnnotations
    """Of the training set; what a person rejected is a region to ignore."""
    pool: Pool | None
    """Images without objects."""
    marks: ReviewMarks = NO_MARKS
    """Of the training set."""
    pool_marks: ReviewMarks = NO_MARKS

    @property
    def identity(self) -> dict[str, Any]:
        """What checkpoints tell of them (see ``training.checkpoint``)."""
        both = ReviewMarks(marks=[*self.marks.marks, *self.pool_marks.marks])
        return {
            "class_names": list(self.annotations.class_names),
            "category_ids": list(self.annotations.category_ids),
            "marks": both.digest if both.marks else None,
        }

    def accepted(self) -> dict[int, Tensor]:
        """What a person called background, xyxy float32 [M, 4], by the id with which targets tell an image."""
        names, image_ids = self.annotations.file_names.tolist(), self.annotations.image_ids.tolist()
        places = enumerate(self.pool.names.tolist() if self.pool is not None else ())
        parts = (
            (self.marks, dict(zip(names, image_ids, strict=True))),
            (self.pool_marks, {name: tracked_id(place) for place, name in places}),
        )
        return {
            ids[name]: torch.from_numpy(boxes).float()
            for marks, ids in parts
            for name, boxes in marks.boxes("accepted").items()
        }


def training_images(config: Config) -> TrainingImages:
    """Read what a configuration names.

    Raises:
        ConfigError: a file or folder is not there.
        DataError: the annotations or the marks cannot be used, or an image of the pool is held out.
    """
    file, folder = split_paths(config, config.data.train)
    annotations = read_coco(file, config.data.classes)
    pool = background_pool(config, annotations)
    if config.data.marks is None:
        return TrainingImages(annotations, pool)
    told = read_review_marks(config.data.marks)
    marks = told.of_images(folder, annotations.file_names.tolist())
    pool_marks = told.of_images(pool.folder, pool.names.tolist()) if pool is not None else NO_MARKS
    others = told.without(marks, pool_marks)
    if others:
        warn(
            f"data.marks: {len(others)} marks of {config.data.marks} are of images that are not trained on, as "
            f"{others[0].file_name!r}, and change nothing; mark what tools/diagnose.py --split train shows"
        )
    annotations = with_ignore_regions(annotations, marks.boxes("rejected"))
    return TrainingImages(annotations, pool, marks, pool_marks)

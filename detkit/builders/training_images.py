"""What a run is trained on, and what a person said of places in it."""

from dataclasses import dataclass

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
    marks: ReviewMarks

    def accepted(self) -> dict[int, Tensor]:
        """What a person called background, xyxy float32 [M, 4], by the id with which targets tell an image."""
        names, image_ids = self.annotations.file_names.tolist(), self.annotations.image_ids.tolist()
        ids = dict(zip(names, image_ids, strict=True))
        if self.pool is not None:
            ids = {name: tracked_id(place) for place, name in enumerate(self.pool.names.tolist())} | ids
        accepted = self.marks.boxes("accepted")
        return {ids[name]: torch.from_numpy(boxes).float() for name, boxes in accepted.items() if name in ids}


def training_images(config: Config) -> TrainingImages:
    """Read what a configuration names.

    Raises:
        ConfigError: a file or folder is not there.
        DataError: the annotations or the marks cannot be used, or an image of the pool is held out.
    """
    annotations = read_coco(split_paths(config, config.data.train)[0], config.data.classes)
    pool = background_pool(config, annotations)
    marks = NO_MARKS
    if config.data.marks is not None:
        marks = read_review_marks(config.data.marks)
        _warn_of_others(config.data.marks, marks, annotations, pool)
    return TrainingImages(with_ignore_regions(annotations, marks.boxes("rejected")), pool, marks)


def _warn_of_others(path: str, marks: ReviewMarks, annotations: CocoAnnotations, pool: Pool | None) -> None:
    names = [*annotations.file_names.tolist(), *(pool.names.tolist() if pool else ())]
    elsewhere = marks.elsewhere(names)
    if elsewhere:
        warn(
            f"data.marks: {len(elsewhere)} images of {path} are not among those that are trained on, "
            f"{min(elsewhere)!r} for one; what is marked there changes nothing"
        )

"""Detections of imaginary arms on an imaginary validation set, for tests of the comparison and its report.

An arm is described by how it sees: how often it finds an object, how far its boxes are off, how many backgrounds
look like objects to it, and how well its scores part the two. All numbers of a comparison are then computed from
the detections, as they are of a real one.
"""

from dataclasses import dataclass

import numpy as np

from detkit.evaluation import DetectionTable, GroundTruth

SIDE = 256


@dataclass(frozen=True)
class Eye:
    """What an arm sees."""

    recall: float = 0.95
    jitter: float = 0.05
    """Of the boxes, as a share of the object's size."""
    backgrounds: float = 6.0
    """False detections per image, before any threshold."""
    separation: float = 2.5
    """Between the logits of objects and of backgrounds."""
    seed_spread: float = 0.05
    """Standard deviation of the separation between seeds."""


def simulated_truth(
    images: int, *, seed: int = 0, classes: tuple[str, ...] = ("drone", "bird"), side: int = SIDE
) -> GroundTruth:
    """Objects anywhere in square images: about 1.5 an image, none in some."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(1, images + 1), rng.poisson(1.5, images))
    sizes = rng.uniform(0.08, 0.3, (len(owners), 2)) * side
    corners = rng.uniform(0, 1, (len(owners), 2)) * (side - sizes)
    return GroundTruth(
        image_ids=np.arange(1, images + 1),
        category_ids=tuple(range(1, len(classes) + 1)),
        class_names=classes,
        object_image_ids=owners,
        object_category_ids=rng.integers(1, len(classes) + 1, len(owners)),
        boxes=np.concatenate([corners, corners + sizes], axis=1),
        areas=sizes.prod(axis=1),
        crowd=np.zeros(len(owners), dtype=bool),
    )


def simulated_detections(truth: GroundTruth, eye: Eye, *, seed: int, skill: float = 1.0) -> DetectionTable:
    """What an arm reports; all share the images: how hard each object is, how cluttered each image.

    Args:
        skill: from 0 to 1, how far training has come; separation and recall grow with it.
    """
    images, of_seed = np.random.default_rng(7), np.random.default_rng([seed, 7])
    hardness = images.normal(0, 0.9, len(truth)) + of_seed.normal(0, 0.3, len(truth))
    clutter = images.gamma(2, 0.5, len(truth.image_ids))
    luck = images.random(len(truth))
    rng = np.random.default_rng([seed, round(1e6 * eye.separation), round(1e3 * eye.backgrounds)])
    separation = skill * (eye.separation + rng.normal(0, eye.seed_spread))
    seen = np.flatnonzero(luck < eye.recall * (0.4 + 0.6 * skill))
    sizes = np.tile(truth.boxes[seen, 2:] - truth.boxes[seen, :2], 2)
    found = truth.boxes[seen] + rng.normal(0, eye.jitter / (0.3 + 0.7 * skill), (len(seen), 4)) * sizes
    wrong_images = np.repeat(truth.image_ids, rng.poisson(eye.backgrounds * clutter))
    corners = rng.uniform(0, 0.75, (len(wrong_images), 2)) * SIDE
    wrong = np.concatenate([corners, corners + rng.uniform(0.08, 0.25, corners.shape) * SIDE], axis=1)
    logits = np.concatenate(
        [separation - 0.8 * hardness[seen], rng.normal(-separation, 1.2, len(wrong_images))]
    )
    boxes = np.concatenate([found, wrong])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return DetectionTable(
        image_ids=np.concatenate([truth.object_image_ids[seen], wrong_images]),
        boxes=boxes.astype(np.float32),
        scores=(1 / (1 + np.exp(-logits))).astype(np.float32),
        category_ids=np.concatenate(
            [
                truth.object_category_ids[seen],
                rng.integers(1, len(truth.category_ids) + 1, len(wrong_images)),
            ]
        ),
    )

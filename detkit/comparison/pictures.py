"""The same validation images under every arm, chosen and written for the report.

Every arm stands at the score threshold where it finds the same share of all objects, so that what differs is how
often it fires on something else. A threshold of .5 for all would compare calibrations instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detkit.evaluation import DetectionTable, GroundTruth, match_detections, restrict
from detkit.evaluation.compared_metrics import COMMON_RECALL
from detkit.evaluation.comparison_results import Box, DrawnDetection, Object, Panel, Picture
from detkit.evaluation.detection_curve import detection_curve
from detkit.evaluation.matching import Matches
from detkit.files import written_whole

FOLDER = "pictures"
LONGEST_SIDE = 480
QUALITY = 80
"""JPEG's."""
DIFFER, DRAWN = "One of those on which the arms differ most", "Drawn at random"


@dataclass(frozen=True)
class ArmDetections:
    """One run of an arm, as it is drawn."""

    arm: str
    seed: int
    threshold: float
    table: DetectionTable
    """Detections of at least the threshold."""
    matches: Matches
    """At IoU .5."""


def at_equal_recall(
    ground_truth: GroundTruth, runs: Mapping[tuple[str, int], DetectionTable]
) -> tuple[float, list[ArmDetections]]:
    """Cut each run's detections at the highest score that gives one recall for all.

    It is COMMON_RECALL, or the highest that half of the arms reach where they do not get so far. An arm that never
    reaches it, as one that has learned to answer "background", stands at its own highest recall: it must not empty
    the pictures of the others.

    Args:
        ground_truth: the objects, of which there is at least one.
        runs: by arm and seed; one of each arm.

    Returns:
        The common recall, and the arms in the order given.
    """
    tables = {key: restrict(table, ground_truth) for key, table in runs.items()}
    curves = {key: detection_curve(ground_truth, table) for key, table in tables.items()}
    highest = {key: curve.highest_recall or 0.0 for key, curve in curves.items()}
    recall = min(COMMON_RECALL, sorted(highest.values())[len(highest) // 2])
    arms = []
    for (arm, seed), table in tables.items():
        score = curves[arm, seed].score_at(min(recall, highest[arm, seed]))
        threshold = 0.0 if score is None else score
        kept = table.select(table.scores >= threshold)
        arms.append(ArmDetections(arm, seed, threshold, kept, match_detections(ground_truth, kept)))
    return recall, arms


def choose_images(
    ground_truth: GroundTruth, arms: Sequence[ArmDetections], *, count: int, seed: int
) -> dict[int, str]:
    """Image ids and why they were chosen: half where the arms differ most in errors, half at random."""
    errors = np.stack([_errors_per_image(ground_truth, arm) for arm in arms])
    spread = errors.max(axis=0) - errors.min(axis=0)
    order = np.argsort(-spread, kind="stable")
    differing = [int(index) for index in order[: count - count // 2] if spread[index] > 0]
    others = np.setdiff1d(np.arange(len(ground_truth.image_ids)), differing)
    drawn = np.random.default_rng(seed).permutation(others)[: count - len(differing)].tolist()
    ids = ground_truth.image_ids.tolist()
    return {ids[index]: DIFFER for index in differing} | {ids[index]: DRAWN for index in drawn}


def write_pictures(
    folder: Path,
    ground_truth: GroundTruth,
    arms: Sequence[ArmDetections],
    chosen: Mapping[int, str],
    read_image: Callable[[int], tuple[str, np.ndarray]],
) -> tuple[Picture, ...]:
    """Write each chosen image as a small JPEG below ``folder`` and say what every arm sees in it.

    Args:
        folder: of results.json.
        chosen: image ids and reasons.
        read_image: gives an image's file name and its pixels, RGB uint8 [H, W, 3].
    """
    pictures = []
    for number, (image_id, reason) in enumerate(chosen.items(), 1):
        name, pixels = read_image(image_id)
        path = Path(FOLDER) / f"{number:02}.jpg"
        write_jpeg(folder / path, pixels, LONGEST_SIDE)
        rows = np.flatnonzero((ground_truth.object_image_ids == image_id) & ~ground_truth.crowd)
        pictures.append(
            Picture(
                picture=path.as_posix(),
                name=name,
                width=pixels.shape[1],
                height=pixels.shape[0],
                reason=reason,
                objects=tuple(_object(ground_truth, row) for row in rows.tolist()),
                panels=tuple(_panel(ground_truth, arm, image_id, rows) for arm in arms),
            )
        )
    return tuple(pictures)


def _errors_per_image(ground_truth: GroundTruth, arm: ArmDetections) -> np.ndarray:
    """False detections and missed objects of each image; int64 [I]."""
    missed = ~ground_truth.crowd
    missed[arm.matches.objects[arm.matches.correct]] = False
    wrong = arm.table.image_ids[arm.matches.objects < 0].tolist()
    errors = dict.fromkeys(ground_truth.image_ids.tolist(), 0)
    for image_id in wrong + ground_truth.object_image_ids[missed].tolist():
        errors[image_id] += 1
    return np.array(list(errors.values()), dtype=np.int64)


def _panel(ground_truth: GroundTruth, arm: ArmDetections, image_id: int, objects: np.ndarray) -> Panel:
    rows = np.flatnonzero(arm.table.image_ids == image_id)
    rows = rows[np.argsort(-arm.table.scores[rows], kind="stable")]
    found = arm.matches.objects[arm.matches.correct]
    return Panel(
        arm=arm.arm,
        seed=arm.seed,
        threshold=arm.threshold,
        detections=tuple(
            DrawnDetection(
                box=_box(arm.table.boxes[row]),
                class_name=ground_truth.names[int(arm.table.category_ids[row])],
                score=round(float(arm.table.scores[row]), 4),
                outcome="correct"
                if arm.matches.correct[row]
                else "ignored"
                if arm.matches.ignored[row]
                else "false",
            )
            for row in rows.tolist()
        ),
        missed=tuple(np.flatnonzero(~np.isin(objects, found)).tolist()),
    )


def _object(ground_truth: GroundTruth, row: int) -> Object:
    name = ground_truth.names[int(ground_truth.object_category_ids[row])]
    return Object(_box(ground_truth.boxes[row]), name)


def _box(box: np.ndarray) -> Box:
    x0, y0, x1, y1 = (round(float(value), 1) for value in box)
    return x0, y0, x1, y1


def write_jpeg(path: Path, pixels: np.ndarray, longest_side: int) -> None:
    """Write a picture, RGB uint8 [H, W, 3], whole or not at all; one whose longer side is longer is shrunk to it."""
    share = min(1.0, longest_side / max(pixels.shape[:2]))
    size = [max(1, round(side * share)) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if share < 1 else pixels
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    with written_whole(path) as partial:
        partial.write_bytes(encoded.tobytes())

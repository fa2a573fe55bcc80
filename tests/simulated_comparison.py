"""A folder of results as a comparison leaves it, of simulated detections and drawn pictures."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from simulated_runs import SIDE, Eye, simulated_detections, simulated_truth

from detkit.comparison import FinishedArm, FinishedRun, summarise
from detkit.comparison.pictures import at_equal_recall, choose_images, write_pictures
from detkit.evaluation import GroundTruth
from detkit.evaluation.comparison_results import (
    Comparison,
    HardNegative,
    LearningPoint,
    RoundResult,
    write_comparison,
)
from detkit.evaluation.resampling import match_once

BUDGET = 2.4e9
"""Compute of a run, forward passes per canvas pixel."""
SCAN = 6e7
"""Of one mining round."""
ROUNDS = (0.1, 0.25, 0.45, 0.7)
"""When the mining arms scan, as shares of the budget."""
EYES = {
    "cross entropy": Eye(separation=1.0, backgrounds=14),
    "focal": Eye(separation=1.35, backgrounds=11),
    "random 1:3": Eye(separation=0.7, backgrounds=20),
    "OHEM": Eye(separation=1.2, backgrounds=11, jitter=0.075),
    "bootstrapped": Eye(separation=1.3, backgrounds=6),
    "bootstrapped with focal": Eye(separation=1.5, backgrounds=7),
}
MORE_SEEDS = ("focal", "random 1:3", "bootstrapped")
"""Arms with two more."""
HOSTILE = '<script>alert("1")</script>\'$x$_&{{ 7*7 }}'
"""A name that is markup, formula and template at once."""
MINING = ("bootstrapped", "bootstrapped with focal")


def simulated_comparison(
    folder: Path,
    *,
    eyes: Mapping[str, Eye] = EYES,
    mining: tuple[str, ...] = MINING,
    seeds: int = 3,
    images: int = 80,
    resamples: int = 400,
    classes: tuple[str, ...] = ("drone", "bird"),
    file_name: str = "images/field-{:03}.jpg",
) -> Comparison:
    """Write results.json and its pictures to ``folder``; returns what was written."""
    truth = simulated_truth(images, classes=classes)
    arms = [
        FinishedArm(
            name,
            f"# {name}\nloss: {{alpha: 0.25, gamma: 2.0}}\nmodel:\n  backbone: resnet18\n",
            [
                _run(folder, truth, eye, seed, mining=name in mining, file_name=file_name)
                for seed in range(1, seeds + 1 + 2 * (name in MORE_SEEDS))
            ],
        )
        for name, eye in eyes.items()
    ]
    comparison = summarise(truth, arms, title="Simulated scenes", resamples=resamples)
    recall, cut = at_equal_recall(truth, {(arm.name, 1): arm.runs[0].detections for arm in arms})
    chosen = choose_images(truth, cut, count=4, seed=0)
    scenes = {id_: (file_name.format(id_), _scene(truth, id_)) for id_ in chosen}
    comparison = replace(
        comparison,
        pictures=write_pictures(folder, truth, cut, chosen, scenes.__getitem__),
        picture_recall=recall,
        config="arms: [simulated]\nseeds: [1, 2, 3]\n",
        versions={"detkit": "0.2.0", "torch": "2.14.0", "python": "3.11.2"},
    )
    write_comparison(folder / "results.json", comparison)
    return comparison


def _run(
    folder: Path, truth: GroundTruth, eye: Eye, seed: int, *, mining: bool, file_name: str
) -> FinishedRun:
    scans = [share * BUDGET for share in ROUNDS] if mining else []
    points = []
    for share in (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0):
        table = simulated_detections(truth, eye, seed=seed, skill=share**0.35)
        found = match_once(truth, table).precision_and_recall(np.ones((1, len(truth.image_ids)), np.int64))
        points.append(
            LearningPoint(share * BUDGET, {name: float(found[name][0]) for name in ("AP50", "AP", "AP75")})
        )
    return FinishedRun(
        seed=seed,
        detections=simulated_detections(truth, eye, seed=seed),
        compute={"training": BUDGET - SCAN * len(scans), "mining": SCAN * len(scans)},
        wall_clock=230 + 7 * seed + 12 * len(scans),
        learning=points,
        rounds=_rounds(truth, eye, seed) if mining else (),
        hardest=_hardest(folder, truth, eye, file_name) if mining and seed == 1 else (),
    )


def _rounds(truth: GroundTruth, eye: Eye, seed: int) -> list[RoundResult]:
    """What detections of the skill of that time would have given."""
    rounds, negatives = [], 0
    for number, share in enumerate(ROUNDS, 1):
        table = simulated_detections(truth, eye, seed=100 * seed + number, skill=share**0.35)
        firing = int((table.scores > 0.3).sum())
        added = min(firing, 260) // number
        negatives += added
        rounds.append(
            RoundResult(
                number,
                share * BUDGET,
                len(truth.image_ids),
                firing,
                added,
                negatives,
                acceptance=added / len(table),
                rolled_back=number == len(ROUNDS),
                reason="recall at 1 false positive per image fell from 0.81 to 0.78" if number == 4 else "",
            )
        )
    return rounds


def _hardest(folder: Path, truth: GroundTruth, eye: Eye, file_name: str) -> list[HardNegative]:
    table = simulated_detections(truth, eye, seed=1, skill=0.6)
    order = np.argsort(-table.scores)[:12].tolist()
    number = sum(1 for _ in folder.glob("crops/*.png"))
    crops = []
    for row in order:
        number += 1
        path = f"crops/{number:03}.png"
        (folder / "crops").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / path), _texture(np.random.default_rng([number, 1]), 64))
        crops.append(
            HardNegative(
                path,
                file_name.format(int(table.image_ids[row])),
                truth.class_names[int(table.category_ids[row]) - 1],
                float(table.scores[row]),
                1 + row % len(ROUNDS),
            )
        )
    return crops


def _scene(truth: GroundTruth, image_id: int) -> np.ndarray:
    """Bright discs where the objects are, on a landscape of noise; RGB uint8."""
    pixels = _texture(np.random.default_rng(image_id), SIDE)
    for x0, y0, x1, y1 in truth.boxes[truth.object_image_ids == image_id]:
        centre = (round((x0 + x1) / 2), round((y0 + y1) / 2))
        axes = (max(1, round((x1 - x0) / 2)), max(1, round((y1 - y0) / 2)))
        cv2.ellipse(pixels, centre, axes, 0, 0, 360, (236, 226, 200), cv2.FILLED)
        cv2.ellipse(pixels, centre, (axes[0] // 2 + 1, axes[1] // 2 + 1), 0, 0, 360, (96, 70, 60), cv2.FILLED)
    return pixels


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth noise in the colours of a landscape; RGB uint8 [side, side, 3]."""
    height = sum(
        cv2.resize(rng.random((cells, cells)), (side, side), interpolation=cv2.INTER_CUBIC) / cells**0.5
        for cells in (2, 5, 11, 40)
    )
    height = (height - height.min()) / (height.max() - height.min())
    low, high = np.array([58, 84, 72]), np.array([190, 200, 214])
    return np.uint8(low + height[..., None] * (high - low))

"""From finished runs to results.json, its pictures and the table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detkit.builders.comparison import ComparedArms
from detkit.builders.data import split_paths
from detkit.comparison import FinishedArm, markdown, summarise
from detkit.comparison.finished import FinishedRun, load_finished
from detkit.comparison.pictures import at_equal_recall, choose_images, write_pictures
from detkit.comparison.running import PlannedRun, check_finished, finished_file, missing_runs
from detkit.config import Config, dump_config
from detkit.console import progress_of
from detkit.data.coco import read_coco
from detkit.data.images import read_image
from detkit.errors import DataError
from detkit.evaluation import GroundTruth, read_ground_truth
from detkit.evaluation.comparison_results import Comparison, MissingRun, Picture, write_comparison
from detkit.evaluation.joining import join_ground_truths
from detkit.files import write_text

RESULTS, TABLE = "results.json", "table.md"
CONFIG, EXPERIMENT = "comparison.yaml", "experiment.yaml"
"""The comparison as it was, and what its arms share."""


def write_results(arms: ComparedArms, planned: Sequence[PlannedRun]) -> Comparison:
    """Measure the runs that are finished, and write what the report is made from.

    Raises:
        DataError: a file cannot be used.
    """
    told, folder = arms.comparison, Path(arms.comparison.output)
    truth = _ground_truth(arms)
    check_finished(folder, planned)
    finished = _finished_arms(arms, planned)
    if not finished:
        raise DataError(f"{folder}: no run is finished yet; begin without --report")
    with progress_of("measuring") as shown:
        comparison = summarise(
            truth,
            finished,
            title=told.title,
            resamples=told.resamples,
            groups=arms.groups,
            missing=[MissingRun(one.arm, one.seed) for one in missing_runs(folder, planned)],
            progress=shown,
        )
    pictures, recall = _pictures(arms, truth, finished)
    comparison = replace(
        comparison,
        pictures=pictures,
        picture_recall=recall,
        config=dump_config(told.model_copy(update={"experiment": EXPERIMENT, "overrides": {}})),
        versions=_versions(finished),
        splits=tuple(told.splits),
    )
    write_comparison(folder / RESULTS, comparison)
    write_text(folder / TABLE, markdown(comparison))
    write_text(folder / CONFIG, comparison.config)
    write_text(folder / EXPERIMENT, _without_folders(arms.shared, "shared"))
    return comparison


def _finished_arms(arms: ComparedArms, planned: Sequence[PlannedRun]) -> list[FinishedArm]:
    """The arms with a finished run, in the order of the comparison."""
    runs: dict[str, list[FinishedRun]] = {}
    for one in planned:
        file = finished_file(Path(arms.comparison.output), one)
        if file.exists():
            run = load_finished(file)[0]
            kept = [crop for crop in run.hardest if arms.comparison.show_pool or not crop.of_pool]
            runs.setdefault(one.arm, []).append(replace(run, hardest=kept))
    return [
        FinishedArm(arm.name, _config_text(arms, planned, arm.name), runs[arm.name])
        for arm in arms.comparison.arms
        if arm.name in runs
    ]


def _versions(finished: Sequence[FinishedArm]) -> dict[str, str]:
    """What the runs were made with; of what differs between runs, all."""
    every = [run.versions for arm in finished for run in arm.runs]
    names = dict.fromkeys(name for one in every for name in one)
    return {name: ", ".join(sorted({one[name] for one in every if name in one})) for name in names}


def _config_text(arms: ComparedArms, planned: Sequence[PlannedRun], name: str) -> str:
    """An arm's configuration for its first seed."""
    arm = next(arm for arm in arms.comparison.arms if arm.name == name)
    first = next(one for one in planned if one.arm == name)
    config = arms.config(arm, first.seed, steps=first.identity["training.steps"])
    return _without_folders(config, first.slug)


def _without_folders(config: Config, output: str) -> str:
    """A configuration's text without the folders where somebody has the data, the weights and the runs."""
    weights = config.model.weights and Path(config.model.weights).name
    parts = {
        "data": config.data.model_copy(update={"root": None}),
        "model": config.model.model_copy(update={"weights": weights}),
        "output": output,
    }
    return dump_config(config.model_copy(update=parts))


def _ground_truth(arms: ComparedArms) -> GroundTruth:
    shared = arms.shared
    names = read_coco(split_paths(shared, shared.data.train)[0], shared.data.classes).class_names
    return join_ground_truths(
        [read_ground_truth(split_paths(shared, split)[0], names) for split in arms.splits]
    )


def _pictures(
    arms: ComparedArms, truth: GroundTruth, finished: Sequence[FinishedArm]
) -> tuple[tuple[Picture, ...], float | None]:
    count = arms.comparison.pictures
    if not count or not sum(truth.objects_per_class()):
        return (), None
    first = {(arm.name, arm.runs[0].seed): arm.runs[0].detections for arm in finished}
    recall, standing = at_equal_recall(truth, first)
    files = [
        (name, images / name, tuple(size))
        for annotations, images in (split_paths(arms.shared, split) for split in arms.splits)
        for coco in [read_coco(annotations)]
        for name, size in zip(coco.file_names.tolist(), coco.sizes.tolist(), strict=True)
    ]

    def read(image_id: int) -> tuple[str, np.ndarray]:
        name, file, size = files[image_id]
        return name, read_image(file, size)

    chosen = choose_images(truth, standing, count=count, seed=0)
    return write_pictures(Path(arms.comparison.output), truth, standing, chosen, read), recall

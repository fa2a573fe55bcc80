"""The hardest negatives of a run as small pictures, for the report."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.builders.data import in_data_root, split_paths
from detkit.comparison.pictures import write_jpeg
from detkit.config import Config
from detkit.data.coco import read_coco
from detkit.data.images import read_image
from detkit.evaluation.comparison_results import HardNegative, hardest_of_images
from detkit.mining.crops import surroundings
from detkit.training.loop import Run

SIDE = 72
"""Pixels of the longer side of a picture."""
CONTEXT = 2.0
"""Sides of what is shown of a region, as a multiple of the region's."""
FOLDER = "crops"
"""Of the pictures, in that of the comparison."""


@dataclass(frozen=True)
class _Hard:
    score: float
    round: int
    original: Path
    """The image that it was found in."""
    class_name: str
    file: Path
    box: np.ndarray | None
    """Of a region, xyxy in pixels of the file; None where the file is a crop."""
    of_pool: bool = False


def write_hardest(
    config: Config, run: Run, folder: Path, name: str, *, count: int, show_pool: bool
) -> list[HardNegative]:
    """Write the mined negatives that score highest at the end of a run, crops and regions alike, one of an image.

    Args:
        config: the run's.
        run: one that has ended.
        folder: of the comparison.
        name: what the names of the pictures begin with.
        count: how many.
        show_pool: crops of the pool may be among them.
    """
    if not isinstance(run.at_pause, Bootstrapping):
        return []
    found = [*_crops(run.at_pause, len(run.plan.pauses)), *_regions(config, run.at_pause)]
    if config.data.background is not None:
        pool = in_data_root(config, config.data.background.images)
        found = [replace(hard, of_pool=hard.original.is_relative_to(pool)) for hard in found]
    found = [hard for hard in found if show_pool or not hard.of_pool]
    hardest = []
    for number, hard in enumerate(hardest_of_images(found, lambda hard: hard.original)[:count], 1):
        picture = f"{FOLDER}/{name}-{number:02}.jpg"
        pixels = read_image(hard.file)
        shown = pixels if hard.box is None else surroundings(pixels, hard.box, CONTEXT)
        write_jpeg(folder / picture, shown, SIDE)
        source = _short(config, hard.original)
        score = round(hard.score, 4)
        hardest.append(HardNegative(picture, source, hard.class_name, score, hard.round, hard.of_pool))
    return hardest


def _crops(bootstrapping: Bootstrapping, pauses: int) -> Iterator[_Hard]:
    if bootstrapping.scans is None:
        return
    crops = bootstrapping.crops(pauses)
    names = next(iter(bootstrapping.scans.pools.values())).ground_truth.names
    for row in range(len(crops)):
        yield _Hard(
            score=float(crops.scores[row]),
            round=int(crops.rounds[row]),
            original=Path(str(crops.sources[row])),
            class_name=names[int(crops.category_ids[row])],
            file=bootstrapping.scans.crops_folder / str(crops.files[row]),
            box=None,
        )


def _regions(config: Config, bootstrapping: Bootstrapping) -> Iterator[_Hard]:
    if bootstrapping.regions is None:
        return
    file, folder = split_paths(config, config.data.train)
    annotations = read_coco(file, config.data.classes)
    only = annotations.class_names[0] if len(annotations.class_names) == 1 else "an object"
    for image_id, name in zip(annotations.image_ids.tolist(), annotations.file_names.tolist(), strict=True):
        regions = bootstrapping.regions.of(image_id)
        rows = zip(regions.scores.tolist(), regions.rounds.tolist(), regions.boxes.numpy(), strict=True)
        # Those of round 0 were drawn by chance.
        for score, round_, box in rows:
            if round_ > 0:
                yield _Hard(score, round_, folder / name, only, folder / name, box)


def _short(config: Config, file: Path) -> str:
    """A file's name below the data root."""
    root = Path(config.data.root or ".")
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name

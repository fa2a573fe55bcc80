"""The background of a run's batches: images of a pool, and canvases of mined crops in place of some of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from detkit.builders.data import (
    build_evaluation_transform,
    build_training_transform,
    held_out_images,
    in_data_root,
    split_paths,
)
from detkit.config import Config
from detkit.data.coco import CocoAnnotations
from detkit.data.dataset import Sample
from detkit.errors import ConfigError
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.mining.canvases import CanvasDataset
from detkit.mining.held_out import refuse_held_out
from detkit.mining.negative_set import MinedCrops
from detkit.mining.pool import Pool, PoolDataset, coco_pool, folder_pool

POOL, TRAIN = "pool", "train"


@dataclass(frozen=True)
class BackgroundPart:
    """A set of background, and how much of it each step has."""

    dataset: Dataset[Sample]
    size: int
    """Samples in the set."""
    per_step: int
    left_out: int = 0
    """Of these, how many give way to another part."""


@dataclass(frozen=True)
class BackgroundCounts:
    """Images of every step, by where they come from."""

    images: int
    """Of the training set."""
    pool: int
    """Of ``data.background``, as long as there are no canvases."""
    canvases: int
    """Of mined crops: in place of images of the pool where there is one."""


def background_counts(config: Config) -> BackgroundCounts:
    """What a step is made of.

    Raises:
        ConfigError: nothing would be left of the training set or the pool.
    """
    told = config.data.background
    crops = config.bootstrap.crops if config.bootstrap else None
    size = config.training.batch_size * config.training.accumulate
    pool = max(1, round(told.share * size)) if told else 0
    canvases = max(1, round(crops.share * size)) if crops else 0
    if told and canvases > pool:
        raise ConfigError(
            f"bootstrap.crops.share: {canvases} canvases in a step of {size} take the place of images of "
            f"data.background, of which there are {pool}; lower it, or raise data.background.share"
        )
    images = size - (pool if told else canvases)
    if images < config.training.accumulate:
        key = "data.background.share" if told else "bootstrap.crops.share"
        raise ConfigError(
            f"{key}: leaves {images} of train in a step of {size} images, and each of its {config.training.accumulate} "
            "batches needs one; lower it, or raise training.batch_size"
        )
    return BackgroundCounts(images, pool, canvases)


def background_pool(config: Config, annotations: CocoAnnotations) -> Pool | None:
    """The images without objects to train on, where there are any.

    Raises:
        ConfigError: there is no such folder.
        DataError: one of them is also in validation or test.
    """
    told = config.data.background
    if told is None:
        return None
    pool = folder_pool(
        in_data_root(config, told.images),
        state=told.state,
        class_names=annotations.class_names,
        category_ids=annotations.category_ids,
    )
    refuse_held_out(pool.files.tolist(), held_out_images(config), near_duplicates=True)
    return pool


def scanned_pools(config: Config, pool: Pool | None, annotations: CocoAnnotations) -> Mapping[str, Pool]:
    """What bootstrapping's scans go over, by the name of the source; nothing where no crops are mined.

    Raises:
        DataError: an image of the training set is also in validation or test, as the same file.
    """
    crops = config.bootstrap.crops if config.bootstrap else None
    if crops is None:
        return {}
    pools: dict[str, Pool] = {}
    for name in dict.fromkeys(crops.sources):
        if name == POOL:
            assert pool is not None, "the configuration has been checked"
            pools[name] = pool
        else:
            train = coco_pool(*split_paths(config, config.data.train), classes=annotations.class_names)
            refuse_held_out(train.files.tolist(), held_out_images(config), near_duplicates=False)
            pools[name] = train
    return pools


def canvas_size(config: Config, annotations: CocoAnnotations) -> tuple[int, int]:
    """(height, width) of the canvases that crops fill: that of the middle training image, resized."""
    height, width = np.median(annotations.sizes, axis=0).astype(int).tolist()
    return build_evaluation_transform(config).size_for((height, width))


def background_parts(
    config: Config,
    pool: Pool | None,
    *,
    crops: MinedCrops,
    folder: Path,
    canvas: tuple[int, int],
    ignored: IgnoreRegions,
) -> list[BackgroundPart]:
    """The background of the steps from now on.

    Args:
        config: the run's.
        pool: the images without objects.
        crops: those that were mined; there may be none yet.
        folder: where their files are.
        canvas: (height, width) that crops are laid on.
        ignored: what may be an object in the pool's images.
    """
    counts = background_counts(config)
    parts = []
    canvases = counts.canvases if len(crops) else 0
    transform = build_training_transform(config)
    if canvases:
        dataset = CanvasDataset(crops, folder, canvas, transform, seed=config.seed)
        parts.append(BackgroundPart(dataset, len(dataset), canvases))
    if pool is not None and counts.pool > canvases:
        # What fires in a pool that may hold objects is not noted, for it may be one: there all background counts, as in
        # every other arm, but for what scans have set aside.
        tracked = config.selection.name == "mined" and pool.state == "verified-empty"
        images = PoolDataset(pool, transform, seed=config.seed, tracked=tracked, ignore=ignored)
        parts.append(BackgroundPart(images, len(images), counts.pool, left_out=canvases))
    return parts

"""Where images are, and what happens to them."""

from pathlib import Path

from torch.utils.data import Dataset

from detkit.config import DATA_ROOT_VARIABLE, Config, Split
from detkit.data.dataset import Sample
from detkit.data.loader import BatchLoader, evaluation_loader
from detkit.data.transforms import EvaluationTransform, TrainingTransform
from detkit.devices import Placement
from detkit.errors import ConfigError
from detkit.mining.pool import image_files
from detkit.models import RetinaNet


def build_training_transform(config: Config) -> TrainingTransform:
    """The resize and augmentation of training."""
    data = config.data
    return TrainingTransform(
        data.resize.shorter, data.resize.longest, augment=data.augment, min_visible=data.min_visible
    )


def build_evaluation_transform(config: Config) -> EvaluationTransform:
    """The resize of evaluation; of several training sizes it takes the last."""
    return EvaluationTransform(config.data.resize.shorter, config.data.resize.longest)


def split_paths(config: Config, split: Split | None) -> tuple[Path, Path]:
    """The annotation file and the image folder of a split.

    Raises:
        ConfigError: the configuration has no such split or data root, or one of the two is not there.
    """
    if split is None:
        raise ConfigError("data.test: is not set in this configuration")
    return in_data_root(config, split.annotations), in_data_root(config, split.images)


def in_data_root(config: Config, name: str) -> Path:
    """A file or folder of the data.

    Raises:
        ConfigError: the data root is not set, or there is no such path.
    """
    if config.data.root is None:
        raise ConfigError(f"data.root: is not set; pass --data-root DIR or set {DATA_ROOT_VARIABLE}")
    path = Path(config.data.root, name)
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder; data.root is {config.data.root}")
    return path


def held_out_images(config: Config) -> list[str]:
    """The image files of validation and test.

    Raises:
        ConfigError: they are not there.
        DataError: their annotations cannot be used.
    """
    splits = [split for split in (config.data.val, config.data.test) if split is not None]
    return [file for split in splits for file in image_files(*split_paths(config, split))]


def build_evaluation_loader(
    config: Config, dataset: Dataset[Sample], model: RetinaNet, placement: Placement, workers: int
) -> BatchLoader:
    return evaluation_loader(
        dataset,
        batch_size=config.evaluation.batch_size,
        workers=workers,
        stride=model.stride,
        pin_memory=placement.device.type == "cuda",
    )

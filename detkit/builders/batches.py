"""The batches of a training run: images with objects and background, in the order of the seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.bootstrap.scans import Scans
from detkit.builders.background import POOL, BackgroundPart, background_parts, canvas_size
from detkit.builders.data import build_training_transform, split_paths
from detkit.builders.training_images import TrainingImages
from detkit.config import Config
from detkit.data.dataset import DetectionDataset
from detkit.data.loader import BatchOrder, training_loader
from detkit.data.mixing import JoinedDataset, MixedOrder, Stream
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.mining.negative_set import MinedCrops
from detkit.mining.review import ignored_regions
from detkit.training.learner import Batch, Learner
from detkit.training.loop import Plan


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """Call it with an optimiser step for the batches from there on.

    They hold to the end of the run, and where ``change_at_pauses`` to the next pause.
    """

    config: Config
    images: TrainingImages
    order: BatchOrder
    plan: Plan
    learner: Learner
    bootstrapping: Bootstrapping | None

    def __call__(self, step: int) -> Iterator[Batch]:
        """The batches from a step on."""
        background = self._background(step)
        joined = JoinedDataset([self.with_objects, *(part.dataset for part in background)])
        streams = [
            (int(start), Stream(part.size, part.per_step, self.config.seed, part.left_out))
            for start, part in zip(joined.starts[1:], background, strict=False)
        ]
        parts = self.plan.accumulate
        keys = MixedOrder(
            self.order.between(step, self.plan.steps, parts=parts), streams, first=step, parts=parts
        )
        loader = training_loader(
            joined,
            keys,
            workers=self.config.data.workers,
            stride=self.learner.model.stride,
            pin_memory=self.learner.placement.device.type == "cuda",
        )
        return iter(loader)

    @property
    def change_at_pauses(self) -> bool:
        """Whether a round may change the batches: scans give them crops. Regions live in the selection."""
        return self._scans is not None

    @cached_property
    def with_objects(self) -> DetectionDataset:
        """The images of the training set."""
        return DetectionDataset(
            self.images.annotations,
            split_paths(self.config, self.config.data.train)[1],
            build_training_transform(self.config),
            seed=self.config.seed,
            tracked=self.config.selection.name == "mined",
        )

    @property
    def _scans(self) -> Scans | None:
        return None if self.bootstrapping is None else self.bootstrapping.scans

    def _background(self, step: int) -> list[BackgroundPart]:
        rounds = sum(pause <= step for pause in self.plan.pauses)
        crops, folder, ignored = MinedCrops.none(), Path(self.config.output), IgnoreRegions.none()
        pool, scans = self.images.pool, self._scans
        if pool is not None:
            ignored = ignored_regions(pool, ignored, self.images.pool_marks)
        if self.bootstrapping is not None:
            crops = self.bootstrapping.crops(rounds)
        if scans is not None:
            folder = scans.crops_folder
            if POOL in scans.pools:
                ignored = scans.ignored(POOL, rounds + 1)
        canvas = canvas_size(self.config, self.images.annotations)
        return background_parts(self.config, pool, crops=crops, folder=folder, canvas=canvas, ignored=ignored)

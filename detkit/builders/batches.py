"""The batches of a training run: images with objects and background, in the order of the seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.builders.background import POOL, BackgroundPart, background_parts, canvas_size
from detkit.builders.data import build_training_transform, split_paths
from detkit.config import Config
from detkit.data.coco import CocoAnnotations
from detkit.data.dataset import DetectionDataset
from detkit.data.loader import BatchOrder, training_loader
from detkit.data.mixing import JoinedDataset, MixedOrder, Stream
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.mining.negative_set import MinedCrops
from detkit.mining.pool import Pool
from detkit.training.learner import Batch, Learner
from detkit.training.loop import Plan


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """Call it with an optimiser step for the batches from there on, which hold up to the next pause at least."""

    config: Config
    annotations: CocoAnnotations
    order: BatchOrder
    plan: Plan
    learner: Learner
    pool: Pool | None
    """Images without objects."""
    bootstrapping: Bootstrapping | None

    def __call__(self, step: int) -> Iterator[Batch]:
        """The batches from a step on."""
        background = self._background(step)
        joined = JoinedDataset([self.images, *(part.dataset for part in background)])
        streams = [
            (int(start), Stream(part.size, part.per_step, self.config.seed))
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

    @cached_property
    def images(self) -> DetectionDataset:
        """Those with objects."""
        return DetectionDataset(
            self.annotations,
            split_paths(self.config, self.config.data.train)[1],
            build_training_transform(self.config),
            seed=self.config.seed,
            tracked=self.config.selection.name == "mined",
        )

    def _background(self, step: int) -> list[BackgroundPart]:
        rounds = sum(pause <= step for pause in self.plan.pauses)
        crops, suspects, folder = MinedCrops.none(), IgnoreRegions.none(), Path(self.config.output)
        if self.bootstrapping is not None and self.bootstrapping.scans is not None:
            scans = self.bootstrapping.scans
            crops, folder = self.bootstrapping.crops(rounds), scans.crops_folder
            if POOL in scans.pools:
                suspects = scans.suspects(POOL, rounds + 1)
        canvas = canvas_size(self.config, self.annotations)
        return background_parts(
            self.config, self.pool, crops=crops, folder=folder, canvas=canvas, suspects=suspects
        )

"""From a dataset to batches: their order, their canvas, and the worker processes that prepare them.

The order of a run is a function of its seed and the step alone, so a resumed run starts at its step and sees
what it would have seen. Nothing here draws from the global random generators.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from detkit.data.dataset import Sample, SampleKey
from detkit.errors import DataError, DetkitError
from detkit.structures import ImageBatch, Target


@dataclass(frozen=True)
class BatchOrder:
    """Which images each step of a run sees: a pure function of the seed and the step.

    Every epoch shuffles the images anew and cuts them into global batches of ``batch_size * world_size``;
    what is left over at its end is dropped, other images in each epoch. Rank r takes every ``world_size``-th
    image of a global batch, starting with the r-th, so two processes see together what one process with twice
    the batch size sees. A set smaller than one global batch makes one batch of all its images.

    Raises:
        DataError: there are fewer images than batches in a step.
    """

    size: int
    """Images in the set."""
    batch_size: int
    """Images per step and process."""
    _: KW_ONLY
    seed: int
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True

    def __post_init__(self) -> None:
        _check_enough(self.size, self.world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, at least 1."""
        return max(1, self.size // (self.batch_size * self.world_size))

    def images_of(self, epoch: int) -> list[int]:
        """The order of all images in one epoch."""
        if not self.shuffle:
            return list(range(self.size))
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        return generator.permutation(self.size).tolist()

    def between(self, first: int, last: int, *, parts: int = 1) -> "BatchRange":
        """The batches of steps ``first`` to ``last - 1``, counted from the start of the run.

        Args:
            first: 0, or the step where a resumed run goes on.
            last: the run's number of steps.
            parts: batches that each step is divided into, for gradients that are accumulated.

        Raises:
            DataError: there are fewer images than parts.
        """
        _check_enough(self.size, self.world_size * parts)
        return BatchRange(self, first, last, parts)


@dataclass(frozen=True)
class BatchRange:
    """Part of a ``BatchOrder``: iterating yields the keys of one batch after the other."""

    order: BatchOrder
    first: int
    last: int
    parts: int

    def __len__(self) -> int:
        return max(0, self.last - self.first) * self.parts

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = self.order
        global_batch = order.batch_size * order.world_size
        images: list[int] = []
        for step in range(self.first, self.last):
            epoch, position = divmod(step, order.steps_per_epoch)
            if position == 0 or not images:
                images = order.images_of(epoch)
            batch = images[position * global_batch : (position + 1) * global_batch]
            keys = [SampleKey(epoch, image) for image in batch[order.rank :: order.world_size]]
            yield from (keys[part :: self.parts] for part in range(self.parts))


def collate(samples: Sequence[Sample], stride: int) -> tuple[ImageBatch, list[Target]]:
    """Lay samples on one canvas.

    Args:
        samples: at least one.
        stride: the canvas is the smallest one that holds every image and whose sides this divides.

    Returns:
        The batch, pixels uint8 [N, 3, H, W] with each image in the top left corner and zeros elsewhere; and
        the targets, whose boxes need no shift.
    """
    height, width = (-(-max(sides) // stride) * stride for sides in zip(*map(_size, samples), strict=True))
    pixels = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
    for canvas, sample in zip(pixels, samples, strict=True):
        rows, columns = _size(sample)
        canvas[:, :rows, :columns] = sample.image
    batch = ImageBatch(
        pixels=pixels,
        sizes=tuple(map(_size, samples)),
        original_sizes=tuple(sample.original_size for sample in samples),
        image_ids=tuple(sample.image_id for sample in samples),
        file_names=tuple(sample.file_name for sample in samples),
    )
    return batch, [sample.target for sample in samples]


class BatchLoader:
    """Batches of a dataset, prepared ahead by worker processes; made by the two functions below.

    Iterating yields (ImageBatch, list of Target), and raises what a worker met as if it had happened here:

    Raises:
        DataError: an image cannot be used.
        ConfigError: the augmentation cannot be applied to an image.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        order: Iterable[list[SampleKey]],
        *,
        workers: int,
        stride: int,
        pin_memory: bool = False,
    ) -> None:
        self._loader = DataLoader(
            _Batches(dataset, stride),
            batch_size=None,
            sampler=order,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            # Without one of its own, DataLoader draws a number from the global generator of torch.
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[ImageBatch, list[Target]]]:
        for item in self._loader:
            if isinstance(item, DetkitError):
                raise item
            batch, targets = item
            yield batch, [_map_values(torch.from_numpy, target) for target in targets]


def training_loader(
    dataset: Dataset[Sample],
    order: Iterable[list[SampleKey]],
    *,
    workers: int,
    stride: int,
    pin_memory: bool = False,
) -> BatchLoader:
    """The batches of ``order`` in one pass, epochs included; they do not depend on ``workers``.

    Args:
        dataset: a ``DetectionDataset``, or any other whose samples are found by ``SampleKey``.
        order: which samples make which batch, a ``BatchRange`` or a ``MixedOrder``.
        workers: processes that read ahead; 0 reads in this one.
        stride: divides the sides of the canvas (see ``collate``).
        pin_memory: put pixels into page-locked memory, for a GPU.
    """
    return BatchLoader(dataset, order, workers=workers, stride=stride, pin_memory=pin_memory)


def evaluation_loader(
    dataset: Dataset[Sample], *, batch_size: int, workers: int, stride: int, pin_memory: bool = False
) -> BatchLoader:
    """Every image once and in order, the last batch smaller; arguments as of ``training_loader``."""
    keys = [SampleKey(0, index) for index in range(len(dataset))]  # type: ignore[arg-type]
    order = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return BatchLoader(dataset, order, workers=workers, stride=stride, pin_memory=pin_memory)


_PARENT_CHECK_SECONDS = 1.0

_Travelling = tuple[ImageBatch, list[dict[str, np.ndarray]]] | DetkitError


class _Batches(Dataset[_Travelling]):
    """Whole batches by their keys, as they travel from a worker.

    An error travels as a value: raised in a worker it would arrive wrapped in the worker's traceback. Targets
    travel as arrays: every tensor would take a file descriptor for as long as it is kept.
    """

    def __init__(self, dataset: Dataset[Sample], stride: int) -> None:
        self.dataset = dataset
        self.stride = stride

    def __getitem__(self, keys: list[SampleKey]) -> _Travelling:
        try:
            batch, targets = collate([self.dataset[key] for key in keys], self.stride)
        except DetkitError as error:
            return error
        return batch, [_map_values(torch.Tensor.numpy, target) for target in targets]


def _check_enough(size: int, shares: int) -> None:
    if size < shares:
        raise DataError(
            f"the training set has {size} image(s), and every step needs {shares}, one for each process and "
            "accumulated batch; add images, or lower training.accumulate or the number of processes"
        )


def _size(sample: Sample) -> tuple[int, int]:
    return sample.image.shape[1], sample.image.shape[2]


def _as_it_is(item: Any) -> Any:
    return item


def _map_values(function: Callable[[Any], Any], mapping: Mapping[str, Any]) -> Any:
    return {key: function(value) for key, value in mapping.items()}


def _start_worker(_: int) -> None:
    # Workers share the cores already, and the threads of OpenCV do not survive a fork.
    cv2.setNumThreads(0)
    # Ctrl-C reaches every process of the group, and a cluster's SIGTERM every process of the job; the main one
    # decides whether to save and stop, and needs its workers until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if hasattr(signal, "sigtimedwait"):
        # Threads that start later inherit the mask, so that the one below takes every SIGTERM.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_the_parent(parent: int) -> None:
    """End this worker, stuck or not, once the main process is gone or sends SIGTERM; no other's SIGTERM counts."""
    while os.getppid() == parent:
        signalled = signal.sigtimedwait({signal.SIGTERM}, _PARENT_CHECK_SECONDS)
        if signalled is not None and signalled.si_pid == parent:
            break
    os._exit(0)

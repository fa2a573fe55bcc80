"""Batches of images with objects and of background, in a fixed ratio.

Which background a step sees is, like its images, a pure function of the seed and the step, so that a resumed run sees
what it would have seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from detkit.data.dataset import Sample, SampleKey


@dataclass(frozen=True)
class Stream:
    """Items of a set in an endless order: shuffled anew each time all were seen.

    Unlike ``BatchOrder``, which cuts epochs into whole batches, every step has the same number, however few there are.
    """

    size: int
    """Items in the set, at least 1."""
    per_step: int
    seed: int
    left_out: int = 0
    """Of each step's items, how many of the last give way to something else; the others stay what they were."""

    def of(self, step: int) -> list[SampleKey]:
        """The items of a step."""
        places = range(step * self.per_step, (step + 1) * self.per_step - self.left_out)
        return [self._item(place) for place in places]

    def _item(self, place: int) -> SampleKey:
        epoch, position = divmod(place, self.size)
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        return SampleKey(epoch, int(generator.permutation(self.size)[position]))


class JoinedDataset(Dataset[Sample]):
    """Several sets one after the other; the key of an item of a later one counts on from those before.

    Args:
        parts: the sets, each with a length, whose samples are found by ``SampleKey``.
    """

    def __init__(self, parts: Sequence[Dataset[Sample]]) -> None:
        self.parts = list(parts)
        lengths = [len(part) for part in self.parts]  # type: ignore[arg-type]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, key: SampleKey) -> Sample:
        """One sample.

        Raises:
            IndexError: no set has this item.
        """
        if not 0 <= key.image < len(self):
            raise IndexError(f"item {key.image} of {len(self)}")
        part = int(np.searchsorted(self.starts, key.image, side="right")) - 1
        return self.parts[part][SampleKey(key.epoch, key.image - int(self.starts[part]))]


@dataclass(frozen=True)
class MixedOrder:
    """The batches of a run, background added: iterating yields the keys for a ``JoinedDataset``.

    Each step's background is divided among its batches, as its images are.
    """

    images: Iterable[list[SampleKey]]
    """The batches of images, of the first set, from step ``first`` on (see ``BatchOrder.between``)."""
    background: Sequence[tuple[int, Stream]]
    """Where each further set starts in the joined one, and its items."""
    first: int = 0
    parts: int = 1
    """Batches of a step."""

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for number, batch in enumerate(self.images):
            step, part = divmod(number, self.parts)
            added = [
                SampleKey(key.epoch, key.image + start)
                for start, stream in self.background
                for key in stream.of(self.first + step)
            ]
            # From the other end than the images, so that the batches of a step are of one size.
            yield batch + added[self.parts - 1 - part :: self.parts]

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

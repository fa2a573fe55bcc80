"""A comparison: arms that differ in a few keys of one experiment, and the seeds that each is trained with."""

from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detkit.config.values import Amount, Count, Section

Keys = dict[str, Any]
"""Values by full key, as ``optimiser.learning_rate: 0.01``."""
Seeds = Annotated[list[Amount], Field(min_length=1)]


class ComparedArm(Section):
    """A strategy."""

    name: Annotated[str, Field(min_length=1)]
    overrides: Keys = {}
    """What differs from the experiment that all arms share."""
    seeds: Seeds | None = None
    """Null takes those of the comparison."""


class ComparisonConfig(Section):
    """Arms at equal compute: ``training.steps`` or ``epochs`` of the shared experiment is the budget of every arm."""

    title: Annotated[str, Field(min_length=1)]
    output: str
    """Folder of the report, and of what it is made from."""
    experiment: str
    """The shared experiment: a YAML file, relative to this one."""
    overrides: Keys = {}
    """What all arms have otherwise than it."""
    arms: Annotated[list[ComparedArm], Field(min_length=1)]
    seeds: Seeds
    splits: Annotated[list[Literal["val", "test"]], Field(min_length=1)] = ["val", "test"]
    """What the verdict is read on, all together."""
    threads: Count = 1
    """Of each run on a CPU. Rounding follows it, so that the same number gives the same results anywhere."""
    resamples: Count = 10_000
    """Of the bootstrap that gives the intervals."""
    groups: str | None = None
    """A key of the images in the annotations, as ``video``: those that share its value are alike, and are resampled
    together."""
    pictures: Amount = 8
    """Images shown under every arm."""
    gallery: Amount = 12
    """Negatives shown of each run, the hardest, of as many images."""
    show_pool: bool = True
    """Crops of the pool may be among them; whose photographs they are may say no."""

    @model_validator(mode="after")
    def _each_name_and_seed_once(self) -> "ComparisonConfig":
        lists: list[tuple[str, list[Any]]] = [
            ("arms: the name", [arm.name for arm in self.arms]),
            ("seeds:", self.seeds),
            ("splits:", self.splits),
        ]
        lists += [(f"arm {arm.name!r}: the seed", arm.seeds or []) for arm in self.arms]
        for what, values in lists:
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise ValueError(f"{what} {repeated[0]!r} is there more than once")
        return self

    @model_validator(mode="after")
    def _enough_resamples(self) -> "ComparisonConfig":
        # The least p value is 2 / (resamples + 1), and Holm's correction multiplies it by the number of pairs.
        pairs = len(self.arms) * (len(self.arms) - 1) // 2
        least = 40 * pairs
        if self.resamples < least:
            raise ValueError(
                f"resamples: {self.resamples} can show no difference among {pairs} pairs of arms; take {least} or "
                f"more, better {10 * least}"
            )
        return self

    @model_validator(mode="after")
    def _pairs_have_a_seed(self) -> "ComparisonConfig":
        for first, second in combinations(self.arms, 2):
            if not set(self.seeds_of(first)) & set(self.seeds_of(second)):
                raise ValueError(
                    f"arms: {first.name!r} and {second.name!r} have no seed in common, so that they cannot be compared"
                )
        return self

    @model_validator(mode="after")
    def _names_can_be_printed(self) -> "ComparisonConfig":
        for name in (self.title, *(arm.name for arm in self.arms)):
            if not name.isprintable():
                raise ValueError(f"{name!r}: has a character that cannot be printed")
        return self

    def seeds_of(self, arm: ComparedArm) -> list[int]:
        """The seeds that an arm is trained with."""
        return arm.seeds or self.seeds

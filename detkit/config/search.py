"""A search: ranges of an experiment's keys, and how trials are drawn from them, stopped and judged."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from detkit.config.comparison import Keys
from detkit.config.values import Amount, Count, Finite, Metric, Section

Number = int | Finite


class Interval(Section):
    """Numbers from ``low`` to ``high``, both included; whole ones where all that is given is whole."""

    low: Number
    high: Number
    log: bool = False
    """Drawn so that each decade is as likely as any other."""
    step: Number | None = None
    """Only ``low``, ``low + step`` and so on; null takes every number, or every whole one."""

    @model_validator(mode="after")
    def _has_something_in_it(self) -> "Interval":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, found {self.low}")
        if self.step is None:
            return self
        if self.log:
            raise ValueError("log and step do not go together; leave one out")
        if self.step <= 0:
            raise ValueError(f"step must be above 0, found {self.step}")
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > 1e-8:
            raise ValueError(f"from low ({self.low}), steps of {self.step} do not reach high ({self.high})")
        return self


class Choices(Section):
    """Values of any kind; or by name, several keys that change together."""

    choices: Annotated[list[Any], Field(min_length=1)] | Annotated[dict[str, Keys], Field(min_length=1)]
    """A list of values of the key; or for each name the values by full key, and then the range's own name is free."""


def _kind(told: Any) -> str:
    return (
        "choices"
        if isinstance(told, Choices) or (isinstance(told, dict) and "choices" in told)
        else "interval"
    )


Range = Annotated[
    Annotated[Interval, Tag("interval")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)
]


class Pruning(Section):
    """A trial ends when its best validation so far is below the median of the others after as many epochs."""

    name: Literal["median"] = "median"
    startup_trials: Amount = 5
    """Trials that must be complete before any is ended."""
    warmup_epochs: Count = 1
    """What every trial gets."""


class SearchConfig(Section):
    """Trials of one experiment, which differ in the keys that have a range."""

    title: Annotated[str, Field(min_length=1)]
    output: str
    """Folder of the trials and of the report; processes that share it share the work."""
    experiment: str
    """The experiment: a YAML file, relative to this one."""
    overrides: Keys = {}
    """What all trials have otherwise than it."""
    ranges: Annotated[dict[str, Range], Field(min_length=1)]
    """By full key, or by a name of one's own where a choice sets several keys."""
    trials: Count
    """Of the whole search; when they are over, the winner is scored on test."""
    metric: Metric | None = None
    """Of validation, the best of a trial's curve; null takes ``training.metric``."""
    seed: Amount = 0
    """Of what is drawn; every trial trains with the experiment's own seed."""
    threads: Count = 1
    """Of each trial on a CPU. Rounding follows it, so that the same number gives the same results anywhere."""
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe draws where trials were good (tree-structured Parzen estimator); random looks everywhere alike."""
    random_trials: Count = 5
    """Trials that are drawn at random before tpe learns from them."""
    pruning: Pruning | None = Pruning()
    """Null lets every trial end."""

"""What a search chooses from: ranges of keys, and what a drawn value means for the experiment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Number = int | float
Value = int | float | str
"""What is drawn: a number, or the label of a choice."""


class Draws(Protocol):
    """What of optuna's trial is used here: a value that was drawn before is drawn again."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...


@dataclass(frozen=True)
class NumberRange:
    """Numbers for one key, both ends included; whole ones where all that is given is whole."""

    name: str
    """The key's full name."""
    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that show whether the others are possible, of the type that is drawn."""
        return (self.low, self.high) if self._is_whole else (float(self.low), float(self.high))

    @property
    def _is_whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def draw(self, trial: Draws) -> Value:
        low, high, step = self.low, self.high, self.step
        if self._is_whole:
            return trial.suggest_int(self.name, int(low), int(high), step=int(step or 1), log=self.log)
        return trial.suggest_float(self.name, low, high, step=step, log=self.log)

    def overrides(self, value: Value) -> dict[str, Any]:
        """What the value means, by full key."""
        return {self.name: value}


@dataclass(frozen=True)
class ChoiceRange:
    """Choices, each of which sets one key or several."""

    name: str
    options: Mapping[str, Mapping[str, Any]]
    """What each means, by full key. optuna keeps the labels, for it has no room for lists and sections."""

    @property
    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return tuple(self.options)

    def draw(self, trial: Draws) -> Value:
        chosen: str = trial.suggest_categorical(self.name, list(self.options))
        return chosen

    def overrides(self, value: Value) -> dict[str, Any]:
        """What the value means, by full key."""
        return dict(self.options[str(value)])


Space = Sequence[NumberRange | ChoiceRange]


def draw_values(space: Space, trial: Draws) -> dict[str, Value]:
    """A value for each range, by its name."""
    return {one.name: one.draw(trial) for one in space}


def overrides_of(space: Space, values: Mapping[str, Value]) -> dict[str, Any]:
    """What drawn values mean for the experiment, by full key."""
    return {key: value for one in space for key, value in one.overrides(values[one.name]).items()}


def label(value: Any) -> str:
    """A choice as a person reads it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

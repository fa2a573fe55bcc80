"""What bootstrapping may be told."""

from dataclasses import dataclass
from typing import Literal

from detkit.errors import ConfigError

Start = Literal["warm", "scratch"]
"""What a round trains: the detector of the round before, or a new one."""


@dataclass(frozen=True)
class BootstrapSettings:
    """When rounds end, and what ends bootstrapping before the last one.

    Raises:
        ConfigError: a value is out of range.
    """

    rounds: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    """Shares of the run's steps after which a round ends. Early and often: a long first round on random negatives
    wastes compute and then floods the set."""
    start: Start = "warm"
    parts: int = 1
    """Of the pool, one of which each round goes over, in turn."""
    least_acceptance: float = 0.0
    """No more rounds when a complete pass adds fewer negatives for each image than this; 0 never stops."""
    most_compute: float = 1.0
    """No more rounds when mining has cost this share of what all steps of the run cost; 1 never stops."""
    lost_recall: float = 1.0
    """A round that loses more recall than this is undone; 1 never is, and recall is not watched."""
    false_positives: float = 1.0
    """Per image, at which recall is watched."""

    def __post_init__(self) -> None:
        wrong = [
            text
            for right, text in (
                (
                    list(self.rounds) == sorted(set(self.rounds)) and all(0 < r < 1 for r in self.rounds),
                    f"rounds {list(self.rounds)}: shares between 0 and 1 of the run, ascending",
                ),
                (self.parts >= 1, f"parts {self.parts}: at least 1"),
                (self.least_acceptance >= 0, f"least_acceptance {self.least_acceptance}: at least 0"),
                (0 <= self.most_compute <= 1, f"most_compute {self.most_compute}: from 0 to 1"),
                (0 <= self.lost_recall <= 1, f"lost_recall {self.lost_recall}: from 0 to 1"),
                (
                    self.start == "warm" or (self.least_acceptance == 0 and self.most_compute == 1),
                    f"start {self.start}: each round begins anew at a step that is set beforehand, so that none can be "
                    "left out by least_acceptance or most_compute",
                ),
                (self.false_positives > 0, f"false_positives {self.false_positives}: more than 0"),
            )
            if not right
        ]
        if wrong:
            raise ConfigError("\n".join(f"bootstrap: {text}" for text in wrong))

    @property
    def watched(self) -> bool:
        """Whether recall is watched."""
        return self.lost_recall < 1

    def pauses(self, steps: int) -> tuple[int, ...]:
        """The steps of a run after which a round ends: each once, none before the first step or after the last.

        Raises:
            ConfigError: the run is too short for so many rounds.
        """
        ends = tuple(max(1, round(share * steps)) for share in self.rounds)
        if len(set(ends)) < len(ends) or (ends and ends[-1] >= steps):
            raise ConfigError(
                f"bootstrap: rounds {list(self.rounds)}: a run of {steps} steps is too short for {len(ends)} rounds; "
                "train for longer, or take fewer rounds"
            )
        return ends

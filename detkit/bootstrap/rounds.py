"""What a round gave, and what follows from it: another one, an end, or a step back.

The guarantees of the classical loops need a convex loss (Felzenszwalb et al., 2010, section 4), which a deep detector
has not. So the recall at a fixed number of false positives per image is watched, and a round that loses it is undone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class FinishedRound:
    """What became of a round."""

    number: int
    """Counted from 1."""
    step: int
    """Optimiser steps of the run when it ended."""
    compute: float
    """Spent by the run until then, the round's own scans included, in forward passes per canvas pixel."""
    charged: float
    """What of that the round itself cost: scans, and watching recall."""
    part: int
    """Of each pool, which was gone over, counted from 0."""
    scanned: int
    """Images that were gone over."""
    false_positives: int
    """Detections there that are background errors."""
    crops: int
    """New crops."""
    seen: int
    """Images of the training steps since the round before, as far as they note regions."""
    noted: int
    """Regions that those steps noted, some more than once."""
    regions: int
    """What of them joined."""
    negatives: int
    """Members of the set after the round."""
    recall: float | None
    """On the validation images at the watched number of false positives per image, when the round ended."""
    before: dict[str, Any] | None = None
    """``metrics`` of the round before."""
    metrics: dict[str, Any] | None = None
    """What validation gives when the round ends. Where recall is not watched, the run's last row ``validate``, for to
    validate anew would cost compute; its ``step`` says when. None before the run's first validation."""
    undone: bool = False
    """The training since the round before was undone, with what that round had added, and nothing was mined."""
    last: bool = False
    """No round follows, although more were planned."""
    reason: str = ""
    """Why it was undone, or why no round follows."""
    over_limit: int = 0
    """False positives that could have become crops, had a round had room for more."""

    @property
    def acceptance_ratio(self) -> float | None:
        """New negatives, regions and crops, for each image that was looked at; None where none was."""
        images = self.scanned + self.seen
        return (self.crops + self.regions) / images if images else None

    def record(self) -> dict[str, Any]:
        """What its file holds."""
        return {**asdict(self), "acceptance_ratio": self.acceptance_ratio}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """The round that ``record`` gave."""
        return cls(**{name: value for name, value in record.items() if name != "acceptance_ratio"})

    def ending(self, reason: str) -> Self:
        """The same as the last one, for a reason; without one, itself."""
        return replace(self, last=True, reason=reason) if reason else self

    def in_words(self) -> str:
        """A line for the log."""
        if self.undone:
            return f"round {self.number}, step {self.step}: undone: {self.reason}"
        parts = [f"{self.regions} regions joined"]
        if self.scanned:
            parts.append(
                f"{self.false_positives} false positives in {self.scanned} images, {self.crops} crops joined"
            )
        parts.append(f"{self.negatives} negatives")
        if self.recall is not None:
            parts.append(f"recall {self.recall:.3f}")
        end = f"; bootstrapping ends: {self.reason}" if self.last else ""
        return f"round {self.number}, step {self.step}: {', '.join(parts)}{end}"


def loses(recall: float | None, before: Sequence[FinishedRound], *, tolerance: float) -> str:
    """Why the training since the last round has to be undone; empty where it stays.

    Args:
        recall: now.
        before: the rounds so far; the last of them that was not undone is what recall is compared with.
        tolerance: recall that may be lost, from 0 to 1.
    """
    kept = [one for one in before if not one.undone and one.recall is not None]
    if not kept or recall is None:
        return ""
    lost = (kept[-1].recall or 0.0) - recall
    if lost <= tolerance:
        return ""
    return (
        f"recall fell from {kept[-1].recall:.3f} after round {kept[-1].number} to {recall:.3f}, by more than "
        f"{tolerance:g}"
    )


def standing(rounds: Sequence[FinishedRound], *, then_undone: bool = False) -> list[FinishedRound]:
    """The rounds whose additions count: all but those that were undone, and those that they undid.

    Args:
        rounds: all so far.
        then_undone: one more follows, which is undone.
    """
    undone = [*(one.undone for one in rounds), then_undone]
    return [one for one, after in zip(rounds, undone[1:], strict=True) if not (one.undone or after)]


def exhausted(rounds: Sequence[FinishedRound], *, parts: int, least_acceptance: float) -> str:
    """Why no more rounds are worth their compute; empty where they are.

    Only a complete pass can tell, one that saw all parts of the pool: a single part may be an easy one. A pass that had
    to leave crops out, because a round takes no more, was not short of them.

    Args:
        rounds: all so far.
        parts: of the pool.
        least_acceptance: new negatives for each image of a pass.
    """
    if not least_acceptance:
        return ""
    passed: dict[int, FinishedRound] = {}
    for one in reversed(rounds):
        # Of an undone round's detector nothing is known.
        if one.undone:
            break
        passed.setdefault(one.part, one)
    if len(passed) < parts or any(one.over_limit for one in passed.values()):
        return ""
    images = sum(one.scanned for one in passed.values())
    ratio = sum(one.crops for one in passed.values()) / images if images else None
    if ratio is None or ratio >= least_acceptance:
        return ""
    return f"a complete pass over {images} images added {ratio:.3g} crops an image, fewer than {least_acceptance:g}"


def too_dear(rounds: Sequence[FinishedRound], *, steps: int, most: float) -> str:
    """Why mining has cost enough; empty where it has not.

    Args:
        rounds: all so far, at least one.
        steps: of the whole run.
        most: the share of what all steps cost that mining may cost; 1 and more never stops.
    """
    charged = sum(one.charged for one in rounds)
    training = (rounds[-1].compute - charged) / rounds[-1].step * steps
    if most >= 1 or charged < most * training:
        return ""
    return f"mining has cost {charged / training:.3g} of what all steps cost, and may cost {most:g}"

"""What a round gave, and what follows from it: another one, an end, or a step back.

The guarantees of the classical loops need a convex loss (Felzenszwalb et al., 2010, section 4), which a deep detector
has not. So the recall at a fixed number of false positives per image is watched, and a round that loses it is undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FinishedRound:
    """What became of a round; ``round.json`` in its folder."""

    number: int
    """Counted from 1."""
    step: int
    """Optimiser steps of the run when it ended."""
    compute: float
    """Spent by the run until then, the scan included."""
    part: int
    """Of the pool that was gone over, counted from 0."""
    scanned: int
    """Images that were gone over."""
    false_positives: int
    """Detections there that are background errors."""
    crops: int
    """New crops."""
    regions: int
    """New regions in place, which the training steps noted."""
    negatives: int
    """Members of the set after the round."""
    recall: float | None
    """On the validation images at the watched number of false positives per image, when the round ended."""
    undone: bool = False
    """The training since the round before was undone, and with it what that round had added."""
    reason: str = ""
    """Why it was undone, or why no round follows."""


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


def exhausted(rounds: Sequence[FinishedRound], *, parts: int, least_acceptance: float) -> str:
    """Why no more rounds are worth their compute; empty where they are.

    Only a complete pass can tell, one that saw all parts of the pool: a single part may be an easy one.

    Args:
        rounds: all so far.
        parts: of the pool.
        least_acceptance: new negatives for each image of a pass.
    """
    passed: dict[int, FinishedRound] = {}
    for one in reversed(rounds):
        # Of an undone round's detector nothing is known.
        if one.undone:
            break
        passed.setdefault(one.part, one)
    if len(passed) < parts:
        return ""
    images = sum(one.scanned for one in passed.values())
    ratio = sum(one.crops for one in passed.values()) / images if images else None
    if ratio is None or ratio >= least_acceptance:
        return ""
    return f"a complete pass over {images} images added {ratio:.3g} crops an image, fewer than {least_acceptance:g}"

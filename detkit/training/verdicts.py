"""Why a detector gets lazy, in words: verdicts on the rows of a run's log, each with a likely cause and a remedy.

Some causes can be seen at once or after an epoch. That objects and background score alike, or that objects hardly score
at all, is said when a third of the run is over, and only where no cause has been named, as it would follow from one. Of
names something is said where objects are told from background.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Cause = Literal[
    "prior", "anchors", "normaliser", "labels", "classes", "class imbalance", "rate too high", "rate too low"
]

BEGUN = 0.1
"""A background score of this much at the first step, of which background makes nearly all of the loss: no prior."""
DROWNED = 0.1
"""Objects that make up less than this share of the first step's loss are drowned by background."""
OUTWEIGHED = 0.5
"""Objects that make up less than this share of the first step's gradient are outweighed by background."""
UNMATCHED = 0.5
"""More of the objects than this that no anchor overlaps: the anchors do not fit."""
LOOKS = 3
"""Steps that are looked at before anything is said of more than the first."""
EARLY = 1 / 3
"""Of a run, in which a detector may still be slow."""
SILENT = 0.05
"""Objects that score less are answered with background."""
ALIKE = 1.5
"""Objects that score less than so many times background are not told from it."""
BLOWN = 10.0
"""A loss that was so many times what it commonly is: a detector that was thrown off and had to begin again."""
LOCALISED = 0.3
"""Labels are judged once so many of the objects are found, under any name."""
NAMED_RIGHT = 0.1
"""Labels are doubted where fewer of the found objects than this have their own name, or, where there are few classes,
fewer than drawing names would give."""
BY_CHANCE = 0.02
"""They are where so few would have their own name by chance with less than this probability."""
ENOUGH = 500
"""Objects that are counted at most: binomial probabilities of more have no room in a float."""
TOO_LARGE = (
    "steps may be too large: lower optimiser.learning_rate tenfold, clip (training.clip_norm) or warm up longer "
    "(schedule.warmup_steps)"
)


@dataclass(frozen=True)
class Verdict:
    """What is wrong."""

    cause: Cause
    sentence: str
    """With the numbers, and what to do."""


def verdicts(rows: Sequence[dict[str, Any]], *, steps: int, classes: int) -> list[Verdict]:
    """Judge a run as far as it is.

    Args:
        rows: the parsed lines of metrics.jsonl.
        steps: of the whole run.
        classes: that the detector tells apart.
    """
    looks = [row for row in rows if row["event"] == "look"]
    validations = [row for row in rows if row["event"] == "validate"]
    said = {row["cause"] for row in rows if row["event"] == "verdict"} - {"classes"}
    step = max((row["step"] for row in [*looks, *validations]), default=0)
    roots = [*_prior(looks), *_anchors(looks), *_normaliser(looks)]
    if step <= EARLY * steps or roots or said:
        return roots
    losses = _values([row for row in rows if row["event"] == "train"], "loss")
    return list(_scores(looks, losses, step)) or [*_labels(validations, classes), *_classes(validations)]


def _prior(looks: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    first = looks[0] if looks else {}
    score, share = first.get("background_score"), first.get("positive_loss")
    if score is not None and share is not None and score >= BEGUN and share < DROWNED:
        yield Verdict(
            "prior",
            f"every anchor begins with a score of {score:.2g}, so that background makes {1 - share:.0%} of the first "
            "loss and buries the objects; begin with rare objects: model.prior=0.01",
        )


def _anchors(looks: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    shares = _values(looks, "unmatched_objects")
    if len(shares) >= LOOKS and np.mean(shares) > UNMATCHED:
        yield Verdict(
            "anchors",
            f"{np.mean(shares):.0%} of the objects are overlapped by no anchor as far as the matcher asks "
            "(matcher.foreground_iou): model.anchor_sizes and anchor_ratios do not fit them; tools/check_data.py shows "
            "their sizes",
        )


def _normaliser(looks: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    without = sum(look.get("foreground_score") is None for look in looks)
    if len(looks) >= LOOKS and 2 * without > len(looks):
        yield Verdict(
            "normaliser",
            f"{without} of {len(looks)} steps that were looked at had no positive anchor: the loss is divided by their "
            "number (normaliser), so that there background alone steers, undivided; take more images in a step "
            "(training.batch_size, training.accumulate), or fewer without objects",
        )


def _labels(validations: Sequence[dict[str, Any]], classes: int) -> Iterator[Verdict]:
    last = validations[-1] if validations else {}
    localised, right = last.get("localised"), last.get("named_right")
    if classes < 2 or localised is None or right is None or localised < LOCALISED:
        return
    found = min(ENOUGH, round(localised * last["objects"]))
    if _at_most(round(right * found), found, max(NAMED_RIGHT, 1 / classes)) < BY_CHANCE:
        pairs = ", ".join(f"{one!r} as {other!r}" for one, other in list(last["taken_for"].items())[:3])
        yield Verdict(
            "labels",
            f"{localised:.0%} of the objects are found, but only {right:.1%} of those under their own name"
            f"{f' ({pairs})' if pairs else ''}: the labels of training and validation may differ, as when category ids "
            "are shifted, or all objects are called alike so far; compare the categories and a few images of both "
            "(tools/check_data.py)",
        )


def _scores(looks: Sequence[dict[str, Any]], losses: Sequence[float], step: int) -> Iterator[Verdict]:
    """What is seen of the scores once a detector has had the time to learn."""
    late = [look for look in looks if look["step"] > step / 2][-LOOKS:]
    objects, background = _values(late, "foreground_score"), _values(late, "background_score")
    if len(late) < LOOKS or not (objects and background):
        return
    score, other = float(np.mean(objects)), float(np.mean(background))
    told = f"after {step} steps objects score {score:.2g} and background {other:.2g}"
    first = next(look for look in looks if look.get("foreground_score") is not None)
    share, began = first.get("positive_gradient"), first["foreground_score"]
    stayed = all(began / ALIKE < one < began * ALIKE for one in (score, other))
    if score < ALIKE * other and not stayed:
        yield Verdict(
            "rate too high",
            f"{told}: they are not told apart; {TOO_LARGE}",
        )
    elif score < SILENT and share is not None and share < OUTWEIGHED:
        yield Verdict(
            "class imbalance",
            f"{told}: the detector answers background. {1 - share:.0%} of the first step's gradient came from there; "
            "fade the easy background out (loss.gamma=2, loss.alpha=0.25), select from it (selection), or raise "
            "loss.alpha, the weight of objects",
        )
    elif score < min(SILENT, began):
        yield Verdict("rate too high", f"{told}, less than the {began:.2g} that they began with: {TOO_LARGE}")
    elif score < SILENT and losses and max(losses) > BLOWN * _common(losses):
        rise = f"the loss, {_common(losses):.3g} as a rule, once was {max(losses):.3g}"
        yield Verdict("rate too high", f"{told}, and {rise}: {TOO_LARGE}")
    elif score < SILENT:
        yield Verdict(
            "rate too low",
            f"{told}: the detector has hardly begun to learn; raise optimiser.learning_rate, or train longer",
        )


def _common(losses: Sequence[float]) -> float:
    """The median of the losses so far, or of the second half of them where it is less."""
    return float(min(np.median(losses), np.median(losses[len(losses) // 2 :])))


def _classes(validations: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    last = validations[-1] if validations else {}
    never = last.get("never_predicted", [])
    # A detector that predicts nothing at all is not told to repeat rare classes.
    if never and last.get("localised"):
        named = ", ".join(map(repr, never[:5])) + (f" and {len(never) - 5} more" if len(never) > 5 else "")
        yield Verdict(
            "classes",
            f"classes with objects that are never predicted: {named}; they may be too rare (repeat their images), or "
            "named otherwise in training",
        )


def _at_most(hits: int, draws: int, chance: float) -> float:
    """The probability of so many hits or fewer."""
    return sum(math.comb(draws, hit) * chance**hit * (1 - chance) ** (draws - hit) for hit in range(hits + 1))


def _values(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]

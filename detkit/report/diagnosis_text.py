"""What a diagnosis says in words, the most important first."""

from collections.abc import Sequence

from detkit.evaluation.diagnosed import Diagnosed
from detkit.evaluation.diagnosis import Diagnosis, ErrorRow, PartRow
from detkit.evaluation.error_costs import MISSED
from detkit.evaluation.number_texts import points
from detkit.report.fitting import fitting

WORDS = {
    "duplicate": "duplicates",
    "wrong class": "wrong class",
    "bad localisation": "bad localisation",
    "wrong class and bad localisation": "wrong class and bad localisation",
    "background": "detections on background",
    MISSED: "missed objects",
}
"""Each kind of error in a sentence."""
MEANING = {
    "duplicate": "an object of its class that a surer detection found already",
    "wrong class": "an object of another class (IoU .5 or more)",
    "bad localisation": "an object of its class, overlapped too little (IoU .1 to .5)",
    "wrong class and bad localisation": "an object of another class, overlapped too little",
    "background": "no object (IoU below .1 with any)",
    MISSED: "an object that no detection finds",
}
_CALIBRATED = 0.05
"""An expected calibration error below this needs no sentence on its direction."""


def findings(diagnosed: Diagnosed) -> list[str]:
    """Sentences, the most important first: what costs most."""
    diagnosis = diagnosed.diagnosis
    return [
        *costliest(diagnosis),
        *_weakest(diagnosis),
        *_best_threshold(diagnosis),
        *_alarms(diagnosis),
        *_calibration(diagnosis),
        suspects(diagnosed),
        *_training(diagnosed),
    ]


def costliest(diagnosis: Diagnosis) -> list[str]:
    """What costs most, in a sentence; empty where there is nothing to measure or nothing wrong."""
    ranked = by_cost(diagnosis.parts[0])
    costly = [error for error in ranked if error.cost is not None and points(error.cost) != "0.0"]
    if diagnosis.parts[0].AP50 is None:
        return ["No object is marked in these images, so that no average precision can be measured."]
    if not costly:
        return [
            f"No kind of error costs as much as a tenth of a point of AP50 ({points(diagnosis.parts[0].AP50)})."
        ]
    first, *others = costly
    text = f"What costs most: {_cost(first)} of AP50 ({count_text(first)})"
    return [text + "".join(f"; then {_cost(one)} ({count_text(one)})" for one in others[:1]) + "."]


def _training(diagnosed: Diagnosed) -> list[str]:
    """What the run's log says of its training; nothing of a healthy one."""
    log = diagnosed.log
    if log is None:
        return []
    said = [
        f"In training, {row['cause']}: {row['sentence']}." for row in log.rows if row["event"] == "verdict"
    ]
    fit = fitting(log.rows, metric=log.metric)
    return said if fit is None or fit.verdict == "settled" else [*said, f"In training, {fit.sentence}."]


def by_cost(part: PartRow) -> list[ErrorRow]:
    """The errors of a part, the costliest first."""
    return sorted(part.errors, key=lambda error: (-(error.cost or 0.0), -error.count))


def count_text(error: ErrorRow) -> str:
    """How many there are."""
    noun = "object" if error.name == MISSED else "detection"
    return f"{error.count:,} {noun}{'' if error.count == 1 else 's'}"


def suspects(diagnosed: Diagnosed) -> str:
    """How many labels may be missing."""
    found = diagnosed.suspects
    if found.score is None:
        return "No detection is correct, so that no score is known to be high: no missing label is suspected."
    count = len(found.rows)
    if not count:
        return f"No detection on background scores {found.score:.2f} or more: no missing label is suspected."
    one = count == 1
    verb = "detection on background scores" if one else "detections on background score"
    guess = "may be a missing label" if one else "may be missing labels"
    usual = "" if found.score_given else ", as nine in ten found objects do,"
    text = f"{count:,} {verb} {found.score:.2f} or more{usual} and {guess}"
    if not found.witnesses:
        they = "it persists" if one else "they persist"
        return f"{text}; with one table of detections nothing is known of whether {they}."
    persisting = int((found.persistence > 0).sum())
    where = _list(found.witnesses)
    return f"{text}; {persisting:,} of them persist in {where if len(found.witnesses) == 1 else f'any of {where}'}."


def _cost(error: ErrorRow) -> str:
    return f"{WORDS[error.name]}, {points(error.cost)} points"


def _list(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} or {len(names) - most} others"


def _weakest(diagnosis: Diagnosis) -> list[str]:
    """The weakest class, and the weakest size."""
    texts = []
    for part, noun in (("class", "class"), ("size", "size")):
        rows = [row for row in diagnosis.parts if row.part == part and row.AP50 is not None]
        if len(rows) > 1:
            weakest, best = (choice(rows, key=lambda row: row.AP50 or 0.0) for choice in (min, max))
            texts.append(
                f"The weakest {noun} is {weakest.name} with AP50 {points(weakest.AP50)} ({weakest.missed:,} of "
                f"{weakest.objects:,} missed); the best is {best.name} with {points(best.AP50)}"
            )
    return [f"{'. '.join(texts)}."] if texts else []


def _best_threshold(diagnosis: Diagnosis) -> list[str]:
    curve = diagnosis.curve
    if curve is None or curve.best is None:
        return []
    at = curve.best
    return [
        f"F1 is highest at score {curve.scores[at]:.2f}: {points(curve.F1[at])}, with precision "
        f"{points(curve.precision[at])}, recall {points(curve.recall[at])} and "
        f"{curve.false_positives_per_image[at]:.2f} false positives per image."
    ]


def alarm_rate(diagnosis: Diagnosis) -> float | None:
    """The share of images without objects that have a detection of the diagnosis's score or more; None without any."""
    scores, rates = diagnosis.alarms["scores"], diagnosis.alarms["rates"]
    below = [rate for score, rate in zip(scores, rates, strict=True) if score <= diagnosis.score]
    return below[-1] if below else None


def _alarms(diagnosis: Diagnosis) -> list[str]:
    rate = alarm_rate(diagnosis)
    if rate is None:
        return []
    images = diagnosis.alarms["images"]
    return [
        f"{round(rate * images):,} of {images:,} images without objects ({points(rate)} %) have an alarm: a detection "
        "of about that score or more."
    ]


def _calibration(diagnosis: Diagnosis) -> list[str]:
    found = diagnosis.calibration
    if found["error"] is None:
        return []
    text = f"Scores and precision lie {points(found['error'])} points apart on average"
    if found["error"] < _CALIBRATED:
        return [f"{text}: the scores can be read as chances."]
    filled = [
        (count, score - precision)
        for count, score, precision in zip(found["counts"], found["scores"], found["precisions"], strict=True)
        if count
    ]
    excess = sum(count * gap for count, gap in filled)
    return [f"{text}: the detector is {'surer' if excess > 0 else 'less sure'} than it should be."]

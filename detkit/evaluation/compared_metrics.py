"""The metrics by which arms of a comparison are judged: their names in files, their words, which way is better."""

from dataclasses import dataclass

from detkit.evaluation.number_texts import points

FALSE_POSITIVE_LEVELS = (0.1, 1.0)
"""False positives per image at which recall is compared."""
RECALL_LEVELS = (0.5, 0.8, 0.9)
"""Recalls at which false positives per image are compared."""
COMMON_RECALL = 0.8
"""Two arms are compared at this recall, or at the highest that both reach."""


@dataclass(frozen=True)
class ComparedMetric:
    """A metric and how texts speak of it."""

    name: str
    """The key in results.json."""
    words: str
    """Follows "points of" or stands alone: "AP50", "recall at 0.1 false positives per image"."""
    higher_is_better: bool = True
    """Such a metric is a fraction, and texts give it in points (hundredths); the others are counts per image."""
    group: str = ""
    """The heading that a table's columns of one kind share; empty where a metric stands alone."""
    column: str = ""
    """The heading of its column below that."""

    def text(self, value: float | None) -> str:
        """The value as texts give it: points with one decimal, or a count per image with two, below .1 with three."""
        if self.higher_is_better:
            return points(value)
        if value is None:
            return "n/a"
        digits = 3 if 0 < abs(round(value, 3)) < 0.1 else 2
        return f"{round(value, digits) + 0.0:.{digits}f}"


def recall_at_name(false_positives_per_image: float) -> str:
    """The key of recall at a number of false positives per image."""
    return f"recall_at_fppi_{false_positives_per_image:g}"


def false_positives_at_name(recall: float) -> str:
    """The key of false positives per image at a recall."""
    return f"fppi_at_recall_{recall:g}"


FPPI_AT_COMMON_RECALL = "fppi_at_common_recall"

COMPARED_METRICS = (
    ComparedMetric("AP50", "AP50"),
    ComparedMetric("AP", "AP"),
    ComparedMetric("AP75", "AP75"),
    ComparedMetric("AR100", "AR"),
    *(
        ComparedMetric(
            recall_at_name(level),
            f"recall at {level:g} false positives per image",
            group="recall at false positives per image",
            column=f"{level:g}",
        )
        for level in FALSE_POSITIVE_LEVELS
    ),
    *(
        ComparedMetric(
            false_positives_at_name(level),
            f"false positives per image at recall {level:g}",
            higher_is_better=False,
            group="false positives per image at recall",
            column=f"{level:g}",
        )
        for level in RECALL_LEVELS
    ),
)
"""Of every run and arm; the first is the one by which arms are ranked."""

PAIR_METRIC = ComparedMetric(FPPI_AT_COMMON_RECALL, "false positives per image", higher_is_better=False)
"""Of pairs alone: at COMMON_RECALL, or the highest recall that both reach."""

"""Arms compared: metrics under resampling, differences of all pairs with intervals, and the verdict in words."""

from detkit.comparison.finished import FinishedArm, FinishedRun
from detkit.comparison.summary import summarise
from detkit.comparison.table import markdown

__all__ = ["FinishedArm", "FinishedRun", "markdown", "summarise"]

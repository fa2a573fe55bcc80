"""Arms compared: metrics under resampling, differences of all pairs with intervals, and the verdict in words."""

from detkit.comparison.summary import FinishedArm, FinishedRun, summarise
from detkit.comparison.table import markdown

__all__ = ["FinishedArm", "FinishedRun", "markdown", "summarise"]

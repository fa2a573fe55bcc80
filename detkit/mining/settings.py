"""What mining may be told, with the defaults of every tool."""

import math
import re
from dataclasses import dataclass

import numpy as np

from detkit.errors import ConfigError, DataError

_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class MiningSettings:
    """Which false positives become negatives, and how they are cut.

    Lengths are pixels at the scale at which the detector sees its images.

    Raises:
        ConfigError: a value is out of range.
    """

    threshold: float | str = 0.1
    """The least score; "p50" is the 50th percentile of the scores of the true positives of the same scan."""
    per_image: int = 8
    """Crops of one image in a round, the hardest."""
    per_round: int = 2000
    """Crops of one round, the hardest."""
    overlap_iou: float = 0.3
    """Of two false positives of an image that overlap more than this, the harder one stays."""
    alike_bits: int = 4
    """Of two false positives whose perceptual hashes differ by this many of 64 bits or fewer, the harder stays."""
    context: float = 2.0
    """Sides of a crop, as a multiple of the false positive's."""
    least_side: int = 32
    """A crop with a shorter side is dropped."""
    largest: tuple[int, int] = (512, 512)
    """(height, width) that a crop may have: that of a training canvas."""
    least_visible: float = 0.75
    """The share of the false positive that its crop must still hold, when an object beside it is kept out."""
    quarantine_score: float = 0.9
    """In an unverified pool, what scores this much may be an object nobody marked: never a negative."""
    foreground_iou: float = 0.5
    """From which overlap on a detection finds an object."""
    background_iou: float = 0.1
    """Below which overlap with every object a detection is a background error."""

    def __post_init__(self) -> None:
        if isinstance(self.threshold, str):
            self._percentile()
        limits = {
            "threshold": isinstance(self.threshold, str) or math.isfinite(self.threshold),
            "quarantine_score": not math.isnan(self.quarantine_score),
            "per_image": self.per_image >= 1,
            "per_round": self.per_round >= 1,
            "context": self.context >= 1,
            "least_side": 1 <= self.least_side <= min(self.largest),
            "overlap_iou": 0 <= self.overlap_iou <= 1,
            "least_visible": 0 < self.least_visible <= 1,
            "background_iou": 0 < self.background_iou <= self.foreground_iou <= 1,
        }
        wrong = [name for name, right in limits.items() if not right]
        if wrong:
            found = ", ".join(f"{name} {getattr(self, name)}" for name in wrong)
            raise ConfigError(
                f"mining: {found}: out of range; least_side must fit into largest {self.largest}"
            )

    @property
    def floor(self) -> float:
        """Scores below this need not be looked at at all; 0 where the threshold comes later."""
        return 0.0 if isinstance(self.threshold, str) else self.threshold

    def least_score(self, true_positives: np.ndarray) -> float:
        """The least score of a negative, given the scores of the true positives of a scan.

        Raises:
            DataError: a percentile is asked for, and nothing was found.
        """
        if not isinstance(self.threshold, str):
            return self.threshold
        if not len(true_positives):
            raise DataError(
                f"threshold {self.threshold}: is a percentile of the scores of true positives, but no object was found "
                "in the images that were scanned; mine images with objects, or give a score such as 0.1"
            )
        return float(np.percentile(true_positives, self._percentile()))

    def _percentile(self) -> float:
        match = _PERCENTILE.fullmatch(str(self.threshold))
        if match is None or float(match[1]) > 100:
            raise ConfigError(
                f"threshold {self.threshold!r}: write a score such as 0.1, or a percentile of the true positives' "
                "scores such as p50"
            )
        return float(match[1])

"""Matching, selection and losses."""

from collections.abc import Mapping

from torch import Tensor

from detkit import selection as selections
from detkit.config import Config, Selection
from detkit.criterion import DetectionCriterion
from detkit.negative_regions import NegativeRegions


def build_criterion(config: Config, accepted: Mapping[int, Tensor] | None = None) -> DetectionCriterion:
    """Matching, selection and losses.

    Args:
        config: the run's.
        accepted: what a person called background, by image (see ``builders.training_images``).
    """
    return DetectionCriterion(
        **config.loss.model_dump(),
        **config.matcher.model_dump(),
        selection=build_selection(config.selection, accepted),
    )


def build_selection(
    selection: Selection, accepted: Mapping[int, Tensor] | None = None
) -> selections.Selection | None:
    """Which anchors count; None for all."""
    parameters = selection.model_dump(exclude={"name"})
    match selection.name:
        case "all":
            return None
        case "random":
            return selections.RandomNegatives(**parameters)
        case "hard":
            return selections.HardNegatives(**parameters)
        case "ohem":
            return selections.HardExamples(**parameters)
        case "mined":
            regions = NegativeRegions(capacity=parameters.pop("capacity"), accepted=accepted or {})
            return selections.MinedNegatives(regions, **parameters)

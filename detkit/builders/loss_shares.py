"""The logits of a trained detector, counted."""

from detkit.builders.criterion import build_criterion
from detkit.builders.data import split_paths
from detkit.builders.detector import Detector, detect_coco
from detkit.config import Split
from detkit.evaluation.loss_shares import LogitCounts
from detkit.structures import DenseOutputs, Target
from detkit.training.learner import on_device
from detkit.training.logit_counter import LogitCounter


def count_logits(detector: Detector, split: Split | None, *, name: str) -> LogitCounts:
    """Count what a detector says of every anchor in the images of a split, as the matcher of its training has it.

    Args:
        detector: a trained one.
        split: of its configuration.
        name: the split's, for people.

    Raises:
        ConfigError: the configuration has no such split.
    """
    criterion, counter = build_criterion(detector.config), LogitCounter()

    def observe(outputs: DenseOutputs, targets: list[Target]) -> None:
        criterion(outputs, on_device(targets, detector.placement.device), counter)

    truth, _ = detect_coco(detector, *split_paths(detector.config, split), observe=observe)
    config = detector.config
    about = (
        f"{config.model.backbone} trained with alpha {config.loss.alpha}, gamma {config.loss.gamma:g} and the "
        f"selection {config.selection.name}; {len(truth.image_ids)} {name}"
    )
    return counter.counts(about)

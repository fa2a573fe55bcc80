"""A model over a loader's images, to a table of detections."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from detkit.console import progress
from detkit.devices import Placement
from detkit.evaluation.results import DetectionTable
from detkit.models import RetinaNet
from detkit.structures import DenseOutputs, Detections, ImageBatch, Target

Observer = Callable[[DenseOutputs, list[Target]], None]


def run_detector(
    model: RetinaNet,
    batches: Iterable[tuple[ImageBatch, list[Target]]],
    *,
    category_ids: Sequence[int],
    placement: Placement,
    description: str,
    total: int | None = None,
    observe: Observer | None = None,
) -> DetectionTable:
    """Detect objects in every image of ``batches``.

    Args:
        model: on the placement's device already; it is left in evaluation mode.
        category_ids: COCO category id of each class index.
        description, total: for the progress bar, in batches.
        observe: called with the dense outputs and targets of each batch, e.g. to take the validation loss.

    Returns:
        One row per detection; boxes in pixels of the original images.
    """
    ids: list[int] = []
    found: list[Detections] = []
    shown = progress(batches, total, description)
    for images, detections in detect_batches(model, shown, placement=placement, observe=observe):
        found += detections
        ids += images.image_ids
    return detection_table(ids, found, category_ids)


@torch.inference_mode()
def detect_batches(
    model: RetinaNet,
    batches: Iterable[tuple[ImageBatch, list[Target]]],
    *,
    placement: Placement,
    observe: Observer | None = None,
) -> Iterator[tuple[ImageBatch, list[Detections]]]:
    """The batches one by one as they come, each with the detections of its images; arguments as of ``run_detector``."""
    model.eval()
    for images, targets in batches:
        with placement.autocast():
            outputs = model.dense(images.to(placement.device, non_blocking=True))
        if observe is not None:
            observe(outputs, targets)
        yield images, model.postprocess(outputs, images.sizes, images.original_sizes)


def detection_table(
    image_ids: Sequence[int], found: Sequence[Detections], category_ids: Sequence[int]
) -> DetectionTable:
    """Detections per image as one flat table."""
    counts = [len(detections["scores"]) for detections in found]
    labels = _stack([detections["labels"] for detections in found], (0,)).astype(np.int64)
    return DetectionTable(
        image_ids=np.repeat(np.asarray(image_ids, dtype=np.int64), counts),
        boxes=_stack([detections["boxes"] for detections in found], (0, 4)),
        scores=_stack([detections["scores"] for detections in found], (0,)),
        category_ids=np.asarray(category_ids, dtype=np.int64)[labels],
    )


def _stack(parts: Sequence[torch.Tensor], empty: tuple[int, ...]) -> np.ndarray:
    """All rows as one array, of shape ``empty`` where there is no image at all."""
    return torch.cat(list(parts)).cpu().numpy() if parts else np.zeros(empty, dtype=np.float32)

"""Which box each anchor answers for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.ops import _library


def match_anchors(
    anchors: Tensor,
    boxes: Sequence[Tensor],
    *,
    foreground_iou: float = 0.5,
    background_iou: float = 0.4,
    low_quality: bool = True,
) -> Tensor:
    """The box that each anchor is trained to find, for a batch of images; no matrix of IoUs is held.

    An anchor matches the box of its image with the best IoU, the first of several equals (Lin et al., "Focal
    Loss for Dense Object Detection", 2017, section 4). These are the labels of torchvision's box_iou and
    Matcher, save that a box that overlaps no anchor matches none and an IoU that is no number counts as 0.

    Args:
        anchors: xyxy in pixels, float32 [A, 4].
        boxes: of each image, xyxy in pixels, float32 [G_i, 4]; G_i may be 0.
        foreground_iou: from this IoU on an anchor is matched.
        background_iou: below this IoU it is BACKGROUND, and between the two IGNORE.
        low_quality: whether an anchor that has the best IoU that some box reaches with any anchor is matched
            to its own best box whatever the IoU (Ren et al., "Faster R-CNN", 2015, section 3.1.2).

    Returns:
        int32 [N, A]: the index of the anchor's box among those of its image, BACKGROUND or IGNORE.

    Raises:
        TypeError, ValueError: other types, shapes or devices, or not 0 < background_iou <= foreground_iou <= 1.
    """
    _check(anchors, "anchors", anchors)
    for image, image_boxes in enumerate(boxes):
        _check(image_boxes, f"boxes of image {image}", anchors)
    _check_thresholds(foreground_iou, background_iou)
    return torch.ops.detkit.match_anchors(
        anchors.contiguous(),
        [image_boxes.contiguous() for image_boxes in boxes],
        foreground_iou=foreground_iou,
        background_iou=background_iou,
        low_quality=low_quality,
    )


def _check_thresholds(foreground_iou: float, background_iou: float) -> None:
    if not 0 < background_iou <= foreground_iou <= 1:
        raise ValueError(
            f"match_anchors: background_iou is {background_iou} and foreground_iou {foreground_iou}; "
            "expected 0 < background_iou <= foreground_iou <= 1"
        )


def _check(boxes: Tensor, name: str, anchors: Tensor) -> None:
    """Refuse boxes that are not float32 [G, 4] on the device of the anchors."""
    if boxes.dtype != torch.float32:
        raise TypeError(f"match_anchors: {name} are {boxes.dtype}; expected float32, as .float() gives")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"match_anchors: {name} have shape {list(boxes.shape)}; expected [..., 4], xyxy")
    if boxes.device != anchors.device:
        raise ValueError(f"match_anchors: {name} are on {boxes.device} and anchors on {anchors.device}")


def _fake_matches(anchors: Tensor, boxes: Sequence[Tensor], **_: float) -> Tensor:
    return anchors.new_empty((len(boxes), anchors.shape[0]), dtype=torch.int32)


_library.register_fake("match_anchors", _fake_matches)

"""What travels between data, model, criterion and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

from torch import Tensor


class Target(TypedDict):
    """The objects of one training image, in pixels of the canvas (torchvision's words, and one more)."""

    boxes: Tensor
    """xyxy, float32 [G, 4]."""
    labels: Tensor
    """Class index, int64 [G]."""
    ignore_regions: NotRequired[Tensor]
    """Crowds and other regions that count neither as object nor as background: xyxy, float32 [C, 4]."""
    false_positives: NotRequired[Tensor]
    """On a canvas of mined crops, the background that detectors fell for: xyxy, float32 [M, 4]."""
    image_id: NotRequired[Tensor]
    """COCO's, int64 []; there where places in the image are remembered from step to step."""
    to_canvas: NotRequired[Tensor]
    """Takes pixels (x, y, 1) of the original image to those of the canvas: affine, float64 [2, 3]; with image_id."""
    size: NotRequired[Tensor]
    """(height, width) of the image on its canvas, padding left out, float32 [2]; with image_id."""
    original_size: NotRequired[Tensor]
    """(height, width) of the original image, float32 [2]; with image_id. Where augmentation moves it, the canvas shows
    more."""


class Detections(TypedDict):
    """The detections of one image, best score first, in pixels of the original image."""

    boxes: Tensor
    """xyxy, float32 [D, 4]."""
    labels: Tensor
    """Class index, int64 [D]."""
    scores: Tensor
    """From 0 to 1, float32 [D]."""


@dataclass(frozen=True)
class ImageBatch:
    """Images on a common canvas, and what is needed to map boxes back to the files they came from.

    Each image lies in the top left corner of its canvas; the rest is padding.
    """

    pixels: Tensor
    """RGB [N, 3, H, W], uint8 from 0 to 255 or floating point from 0 to 1, not normalised."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each image on the canvas, padding left out."""
    original_sizes: tuple[tuple[int, int], ...]
    """(height, width) of each image before it was resized."""
    image_ids: tuple[int, ...] = ()
    file_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def canvas_pixels(self) -> int:
        """Pixels of all canvases, padding included: what a pass of the network has to compute on."""
        return self.pixels.shape[0] * self.pixels.shape[2] * self.pixels.shape[3]

    def to(self, *args, **kwargs) -> "ImageBatch":
        """The same batch with its pixels moved by ``Tensor.to(*args, **kwargs)``."""
        return replace(self, pixels=self.pixels.to(*args, **kwargs))

    def pin_memory(self) -> "ImageBatch":
        """The same batch in page-locked memory (the hook that DataLoader calls)."""
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class DenseOutputs:
    """What a dense detector says of every anchor, level by level, finest level first."""

    logits: Sequence[Tensor]
    """Class logits of each level, [N, A_l, K]."""
    deltas: Sequence[Tensor]
    """Encoded boxes of each level relative to its anchors, [N, A_l, 4]."""
    anchors: Sequence[Tensor]
    """Anchors of each level, xyxy in pixels of the canvas, float32 [A_l, 4]."""

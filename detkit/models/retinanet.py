"""RetinaNet: backbone, pyramid, heads and anchors, from images to dense outputs or detections."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.errors import ConfigError
from detkit.models.anchors import AnchorGenerator
from detkit.models.convolution import use_fast_convolutions
from detkit.models.head import RetinaNetHead
from detkit.models.postprocess import PostProcess
from detkit.models.pyramid import PyramidBackbone
from detkit.structures import DenseOutputs, Detections, ImageBatch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class RetinaNet(nn.Module):
    """A dense detector (Lin et al., 2017, "Focal loss for dense object detection").

    In training it gives raw outputs for a criterion, in evaluation detections. State-dict keys are those of
    torchvision's RetinaNet.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: PyramidBackbone,
        head: RetinaNetHead,
        anchors: AnchorGenerator,
        postprocess: PostProcess,
        *,
        class_names: Sequence[str],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Put the parts together.

        Args:
            backbone, head, anchors, postprocess: the parts, which must agree on levels, anchors and classes.
            class_names: class index -> name.
            mean, std: of R, G and B, for pixels from 0 to 1; pixels become (pixel - mean) / std.

        Raises:
            ConfigError: the parts do not agree.
        """
        super().__init__()
        _check_parts(backbone, head, anchors, class_names)
        self.backbone = backbone
        self.head = head
        self.anchors = anchors
        self.postprocess = postprocess
        self.class_names = tuple(class_names)
        # Not part of the state, whose keys are torchvision's; float64, so that model.double() is exact.
        for name, values in (("mean", mean), ("std", std)):
            channels = torch.tensor(tuple(values), dtype=torch.float64).view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        use_fast_convolutions(self)

    @property
    def stride(self) -> int:
        """What the sides of a canvas must divide by; other canvases are padded first."""
        return self.backbone.stride

    def forward(self, images: ImageBatch | Tensor | Sequence[Tensor]) -> DenseOutputs | list[Detections]:
        """Detect.

        Args:
            images: a batch, or RGB [N, 3, H, W], or RGB [3, H, W] each of its own size; uint8 from 0 to 255
                or floating point from 0 to 1.

        Returns:
            In training the dense outputs, in evaluation the detections of each image in its original pixels.
        """
        batch = images if isinstance(images, ImageBatch) else _batch(images)
        outputs = self.dense(batch)
        if self.training:
            return outputs
        return self.postprocess(outputs, batch.sizes, batch.original_sizes)

    def dense(self, images: ImageBatch) -> DenseOutputs:
        """What the heads say of every anchor, in training and evaluation alike."""
        pixels = self._normalise(images)
        logits, deltas = self.head(self.backbone(pixels))
        height, width = pixels.shape[-2:]
        return DenseOutputs(logits, deltas, self.anchors.anchors_for((height, width), pixels.device))

    def _normalise(self, images: ImageBatch) -> Tensor:
        """Pixels as the backbone wants them, zero in the padding, on a canvas that divides by ``stride``."""
        dtype = next(self.parameters()).dtype
        white = 1.0 if images.pixels.is_floating_point() else 255.0
        mean, std = (self.mean * white).to(dtype), (self.std * white).to(dtype)
        pixels = (images.pixels.to(dtype) - mean) / std
        for image, (height, width) in enumerate(images.sizes):
            pixels[image, :, height:] = 0
            pixels[image, :, :, width:] = 0
        height, width = pixels.shape[-2:]
        missing = -height % self.stride, -width % self.stride
        return F.pad(pixels, (0, missing[1], 0, missing[0])) if any(missing) else pixels


def _batch(images: Tensor | Sequence[Tensor]) -> ImageBatch:
    """Images [3, H, W], each in the top left corner of a canvas that holds the largest."""
    sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
    if isinstance(images, Tensor):
        return ImageBatch(images, sizes, sizes)
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    padded = [F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2])) for image in images]
    return ImageBatch(torch.stack(padded), sizes, sizes)


def _check_parts(
    backbone: PyramidBackbone, head: RetinaNetHead, anchors: AnchorGenerator, class_names: Sequence[str]
) -> None:
    strides = tuple(2**level for level in backbone.levels)
    if strides != anchors.strides:
        raise ConfigError(
            f"the pyramid has strides {strides}, the anchors {anchors.strides}; make them equal"
        )
    if head.anchors_per_location != anchors.per_location:
        raise ConfigError(
            f"the head speaks of {head.anchors_per_location} anchors per location, but there are "
            f"{anchors.per_location}; make them equal"
        )
    if head.classes != len(class_names):
        raise ConfigError(
            f"the head has {head.classes} classes, but {len(class_names)} have names; make them equal"
        )

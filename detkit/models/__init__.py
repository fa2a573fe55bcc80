"""RetinaNet on any torchvision backbone that gives a pyramid."""

from detkit.models.anchors import AnchorGenerator
from detkit.models.head import RetinaNetHead
from detkit.models.postprocess import PostProcess
from detkit.models.pyramid import PyramidBackbone
from detkit.models.retinanet import RetinaNet
from detkit.models.weights import LoadReport, load_weights, require_weights

__all__ = [
    "AnchorGenerator",
    "LoadReport",
    "PostProcess",
    "PyramidBackbone",
    "RetinaNet",
    "RetinaNetHead",
    "load_weights",
    "require_weights",
]

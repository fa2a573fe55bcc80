"""The ops that are too slow, or need too much memory, when written in plain PyTorch.

Each runs from a C++ or CUDA library where one is installed, and elsewhere from its reference in plain PyTorch;
``python -m detkit.doctor`` says which. They work under autocast and ``torch.compile``, and the same input
gives the same bits every time.
"""

from detkit.ops.focal_loss import sigmoid_focal_loss
from detkit.ops.matching import match_anchors

__all__ = ["match_anchors", "sigmoid_focal_loss"]

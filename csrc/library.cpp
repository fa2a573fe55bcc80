// The ops of detkit and their schemas; detkit/ops/_library.py defines the same where this library is missing.
// Kernels are registered where they are written. The user-facing checks, the gradients and the shapes for
// torch.compile are in Python: here, checks only keep memory safe.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(detkit, library) {
  library.def(
      "sigmoid_focal_loss(Tensor[] logits, Tensor labels, Tensor? weights, *, float? alpha, float gamma)"
      " -> Tensor");
  library.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor[] logits, Tensor labels, Tensor? weights,"
      " *, float? alpha, float gamma) -> Tensor[]");
  library.def(
      "match_anchors(Tensor anchors, Tensor[] boxes, *, float foreground_iou, float background_iou,"
      " bool low_quality) -> Tensor");
}

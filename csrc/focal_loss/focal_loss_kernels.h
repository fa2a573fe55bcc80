// The hot loops of the focal loss on a CPU, of which there is one set for each instruction set.
#pragma once

#include <cstdint>

#include "../cpu_level.h"
#include "focal_loss_level.h"

namespace detkit {

// Consecutive anchors of one image.
struct AnchorRange {
  int64_t image;
  int64_t begin;
  int64_t end;
};

struct FocalLossKernels {
  // Writes the loss of each anchor. False where a label is none; that anchor's loss is NaN then.
  bool (*loss)(const FocalLossLevel&, AnchorRange, const PerAnchor& loss);
  // Writes the gradient of each anchor's logits, given the one of its loss.
  void (*gradient)(const FocalLossLevel&, AnchorRange, const PerAnchor& grad, const PerClass& gradient);
};

template <CpuLevel level>
FocalLossKernels focal_loss_kernels();

}  // namespace detkit

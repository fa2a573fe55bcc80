// The hot loops of the focal loss on a CPU, of which there is one set for each instruction set.
#pragma once

#include <cstddef>
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
  bool (*loss)(const FocalLossLevel&, AnchorRange, const PerAnchor& loss, void* scratch);
  // Writes the gradient of each anchor's logits, given the one of its loss.
  void (*gradient)(
      const FocalLossLevel&, AnchorRange, const PerAnchor& grad, const PerClass& gradient, void* scratch);
};

template <CpuLevel level>
FocalLossKernels focal_loss_kernels();

inline namespace CPU_LEVEL {

// Elements of a tile, which is what is looked at, gathered and worked on at a time: at least two anchors, and few
// enough that memory is read while the processor computes, not before.
constexpr int64_t focal_loss_tile(int64_t classes) {
  return classes > 256 ? 2 * classes : 512;
}

// Bytes of scratch memory that the kernels need: two tiles.
constexpr size_t focal_loss_scratch(int64_t classes) {
  return 2 * sizeof(double) * static_cast<size_t>(focal_loss_tile(classes));
}

}  // namespace CPU_LEVEL
}  // namespace detkit

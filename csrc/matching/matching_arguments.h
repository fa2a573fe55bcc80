// The arguments of match_anchors, checked.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <vector>

#include "box_iou.h"

namespace detkit {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_boxes(const Tensor& boxes, const Tensor& anchors, const char* name) {
  STD_TORCH_CHECK(
      boxes.dim() == 2 && boxes.size(1) == 4 && boxes.is_contiguous() &&
          boxes.scalar_type() == ScalarType::Float && boxes.device() == anchors.device(),
      "match_anchors: ", name, " must be contiguous float32 [..., 4] on the device of the anchors");
}

// Refuses what would make a kernel read outside its tensors.
inline void check_arguments(const Tensor& anchors, const std::vector<Tensor>& boxes) {
  check_boxes(anchors, anchors, "anchors");
  for (const Tensor& image_boxes : boxes) {
    check_boxes(image_boxes, anchors, "boxes");
  }
}

// The matches, uninitialised: int32 [N, A].
inline Tensor empty_matches(const Tensor& anchors, const std::vector<Tensor>& boxes) {
  return torch::stable::new_empty(
      anchors, {static_cast<int64_t>(boxes.size()), anchors.size(0)}, ScalarType::Int);
}

inline const Box* box_data(const Tensor& boxes) {
  return static_cast<const Box*>(boxes.data_ptr());
}

}  // namespace detkit

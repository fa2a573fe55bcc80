// The arguments of the focal loss, checked and made ready for the kernels of either device.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "focal_loss_level.h"

namespace detkit {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The type of losses, weights and incoming gradients.
inline ScalarType loss_type(const std::vector<Tensor>& logits) {
  return logits[0].scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline ElementType element_type(const Tensor& logits) {
  switch (logits.scalar_type()) {
    case ScalarType::Double:
      return ElementType::float64;
    case ScalarType::Float:
      return ElementType::float32;
    case ScalarType::BFloat16:
      return ElementType::bfloat16;
    case ScalarType::Half:
      return ElementType::float16;
    default:
      STD_TORCH_CHECK(false, "sigmoid_focal_loss: logits must be float64, float32, bfloat16 or float16");
  }
}

inline void check_per_anchor(const Tensor& tensor, const Tensor& labels, ScalarType type, const char* name) {
  STD_TORCH_CHECK(
      tensor.dim() == 2 && tensor.size(0) == labels.size(0) && tensor.size(1) == labels.size(1),
      "sigmoid_focal_loss: ", name, " must have the shape of labels, [N, A]");
  STD_TORCH_CHECK(tensor.scalar_type() == type, "sigmoid_focal_loss: ", name, " have the wrong type");
  STD_TORCH_CHECK(
      tensor.device() == labels.device(), "sigmoid_focal_loss: ", name, " and labels are on different devices");
}

// Refuses what would make a kernel read or write outside its tensors.
inline void check_arguments(
    const std::vector<Tensor>& logits, const Tensor& labels, const std::optional<Tensor>& weights) {
  STD_TORCH_CHECK(!logits.empty(), "sigmoid_focal_loss: there are no levels");
  STD_TORCH_CHECK(labels.dim() == 2, "sigmoid_focal_loss: labels must be [N, A]");
  check_per_anchor(labels, labels, ScalarType::Int, "labels");
  int64_t anchors = 0;
  for (const Tensor& level : logits) {
    STD_TORCH_CHECK(
        level.dim() == 3 && level.size(0) == labels.size(0) && level.size(2) == logits[0].size(2),
        "sigmoid_focal_loss: each level must be [N, A_l, K]");
    STD_TORCH_CHECK(level.size(2) <= INT32_MAX, "sigmoid_focal_loss: labels can't count ", level.size(2), " classes");
    STD_TORCH_CHECK(
        level.scalar_type() == logits[0].scalar_type() && level.device() == labels.device(),
        "sigmoid_focal_loss: the levels and labels differ in type or device");
    anchors += level.size(1);
  }
  STD_TORCH_CHECK(anchors == labels.size(1), "sigmoid_focal_loss: levels and labels differ in anchors");
  if (weights) {
    check_per_anchor(*weights, labels, loss_type(logits), "weights");
  }
}

// The part of a tensor [N, A] that belongs to the level whose first anchor is given.
inline PerAnchor per_anchor(const Tensor& tensor, int64_t first_anchor) {
  const auto size = static_cast<int64_t>(tensor.element_size());
  char* data = static_cast<char*>(tensor.data_ptr());
  return {data + first_anchor * tensor.stride(1) * size, tensor.stride(0), tensor.stride(1)};
}

inline PerClass per_class(const Tensor& level) {
  return {level.data_ptr(), level.stride(0), level.stride(1), level.stride(2)};
}

inline std::vector<FocalLossLevel> read_levels(
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  check_arguments(logits, labels, weights);
  std::vector<FocalLossLevel> levels;
  int64_t first_anchor = 0;
  for (const Tensor& level : logits) {
    levels.push_back(
        {element_type(level), level.size(0), level.size(1), level.size(2), first_anchor, per_class(level),
         per_anchor(labels, first_anchor), weights ? per_anchor(*weights, first_anchor) : PerAnchor{},
         alpha ? *alpha : 1, alpha ? 1 - *alpha : 1, gamma});
    first_anchor += level.size(1);
  }
  return levels;
}

// The loss, uninitialised: [N, A].
inline Tensor empty_loss(const std::vector<Tensor>& logits, const Tensor& labels) {
  return torch::stable::new_empty(labels, labels.sizes(), loss_type(logits));
}

// The gradient, uninitialised: each level of the strides of its logits, save the gaps that those leave.
inline std::vector<Tensor> empty_gradients(const std::vector<Tensor>& logits) {
  std::vector<Tensor> gradients;
  for (const Tensor& level : logits) {
    gradients.push_back(torch::stable::empty_like(level));
  }
  return gradients;
}

}  // namespace detkit

// The arguments of the focal loss as the kernels read them: checked, and as pointers with strides.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "../host_device.h"
#include "../labels.h"
#include "focal_loss.h"

namespace detkit {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The type of the arithmetic and of the loss.
template <typename Scalar>
using arithmetic_t = std::conditional_t<std::is_same_v<Scalar, double>, double, float>;

// One number for each anchor of each image, [N, A], of any strides; null where an optional tensor is absent.
template <typename T>
struct PerAnchor {
  T* data = nullptr;
  int64_t image_stride = 0;
  int64_t anchor_stride = 0;

  HOST_DEVICE T& at(int64_t image, int64_t anchor) const {
    return data[image * image_stride + anchor * anchor_stride];
  }
};

// The logits, or their gradients, of one level: [N, A_l, K] of any strides.
template <typename Scalar>
struct Level {
  Scalar* data;
  int64_t image_stride;
  int64_t anchor_stride;
  int64_t class_stride;

  HOST_DEVICE Scalar* row(int64_t image, int64_t anchor) const {
    return data + image * image_stride + anchor * anchor_stride;
  }
};

struct LevelSize {
  int64_t anchors;
  int64_t classes;
  int64_t first_anchor;  // the index in [N, A] of the level's first anchor
};

template <typename T>
PerAnchor<T> per_anchor(const Tensor& tensor) {
  return {static_cast<T*>(tensor.data_ptr()), tensor.stride(0), tensor.stride(1)};
}

template <typename T>
PerAnchor<const T> per_anchor(const std::optional<Tensor>& tensor) {
  return tensor ? per_anchor<const T>(*tensor) : PerAnchor<const T>();
}

template <typename Scalar>
Level<Scalar> level_view(const Tensor& level) {
  return {
      static_cast<Scalar*>(level.data_ptr()), level.stride(0), level.stride(1), level.stride(2)};
}

// The weight of an anchor; 0 leaves it out, whatever its logits are.
template <typename T>
HOST_DEVICE inline T anchor_weight(
    int32_t label, PerAnchor<const T> weights, int64_t image, int64_t anchor) {
  if (label == IGNORE) {
    return T(0);
  }
  return weights.data ? weights.at(image, anchor) : T(1);
}

inline void check_per_anchor(
    const Tensor& tensor, const Tensor& labels, ScalarType type, const char* name) {
  STD_TORCH_CHECK(
      tensor.dim() == 2 && tensor.size(0) == labels.size(0) && tensor.size(1) == labels.size(1),
      "sigmoid_focal_loss: ", name, " must have the shape of labels, [N, A]");
  STD_TORCH_CHECK(tensor.scalar_type() == type, "sigmoid_focal_loss: ", name, " have the wrong type");
  STD_TORCH_CHECK(
      tensor.device() == labels.device(), "sigmoid_focal_loss: ", name, " and labels are on different devices");
}

// Refuses what would make a kernel read or write outside its tensors.
inline void check_arguments(
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights) {
  STD_TORCH_CHECK(!logits.empty(), "sigmoid_focal_loss: there are no levels");
  STD_TORCH_CHECK(labels.dim() == 2, "sigmoid_focal_loss: labels must be [N, A]");
  check_per_anchor(labels, labels, ScalarType::Int, "labels");
  int64_t anchors = 0;
  for (const Tensor& level : logits) {
    STD_TORCH_CHECK(
        level.dim() == 3 && level.size(0) == labels.size(0) && level.size(2) == logits[0].size(2),
        "sigmoid_focal_loss: each level must be [N, A_l, K]");
    STD_TORCH_CHECK(
        level.scalar_type() == logits[0].scalar_type() && level.device() == labels.device(),
        "sigmoid_focal_loss: the levels and labels differ in type or device");
    anchors += level.size(1);
  }
  STD_TORCH_CHECK(anchors == labels.size(1), "sigmoid_focal_loss: levels and labels differ in anchors");
  if (weights) {
    const bool wide = logits[0].scalar_type() == ScalarType::Double;
    check_per_anchor(*weights, labels, wide ? ScalarType::Double : ScalarType::Float, "weights");
  }
}

// Calls function(Scalar()) with the C++ type of the logits.
template <typename Function>
void with_scalar_type(ScalarType type, const Function& function) {
  switch (type) {
    case ScalarType::Double:
      return function(double());
    case ScalarType::Float:
      return function(float());
    case ScalarType::BFloat16:
      return function(torch::headeronly::BFloat16());
    case ScalarType::Half:
      return function(torch::headeronly::Half());
    default:
      STD_TORCH_CHECK(false, "sigmoid_focal_loss: logits must be float64, float32, bfloat16 or float16");
  }
}

// Calls function(FocalLoss) with the cheapest form of these parameters.
template <typename T, typename Function>
void with_focal_loss(std::optional<double> alpha, double gamma, const Function& function) {
  const T positive = alpha ? T(*alpha) : T(1);
  const T negative = alpha ? T(1 - *alpha) : T(1);
  if (gamma == 0) {
    function(FocalLoss<T, GammaZero>{positive, negative, {}});
  } else if (gamma == 2) {
    function(FocalLoss<T, GammaTwo>{positive, negative, {}});
  } else {
    function(FocalLoss<T, GammaAny<T>>{positive, negative, {T(gamma)}});
  }
}

// The loss, uninitialised: [N, A] in the type of the arithmetic.
inline Tensor empty_loss(const std::vector<Tensor>& logits, const Tensor& labels) {
  const bool wide = logits[0].scalar_type() == ScalarType::Double;
  return torch::stable::new_empty(labels, labels.sizes(), wide ? ScalarType::Double : ScalarType::Float);
}

}  // namespace detkit

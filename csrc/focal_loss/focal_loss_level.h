// One level of the pyramid as the kernels of both devices read it: plain pointers and strides, checked before, and no
// header but detkit's own, for the sources that are compiled for every instruction set.
#pragma once

#include <cstdint>

#include "../host_device.h"
#include "../labels.h"
#include "../scalar_types.h"

namespace detkit {

enum class ElementType { float64, float32, bfloat16, float16 };

// One number for each anchor of each image, [N, A_l], of any strides (in elements).
struct PerAnchor {
  void* data;  // null where an optional tensor is absent
  int64_t image_stride;
  int64_t anchor_stride;
};

// One number for each class of each anchor of each image, [N, A_l, K], of any strides (in elements).
struct PerClass {
  void* data;
  int64_t image_stride;
  int64_t anchor_stride;
  int64_t class_stride;
};

// Losses, weights and incoming gradients are double where the logits are, else float.
struct FocalLossLevel {
  ElementType type;
  int64_t images;
  int64_t anchors;
  int64_t classes;
  int64_t first_anchor;  // of this level among those of all levels
  PerClass logits;
  PerAnchor labels;  // int32
  PerAnchor weights;
  double positive_factor;
  double negative_factor;
  double gamma;
};

inline namespace CPU_LEVEL {

// Calls function with a number of the type.
template <typename Function>
void with_element_type(ElementType type, const Function& function) {
  switch (type) {
    case ElementType::float64:
      return function(double());
    case ElementType::float32:
      return function(float());
    case ElementType::bfloat16:
      return function(BFloat16());
    case ElementType::float16:
      return function(Half());
  }
}

template <typename T>
HOST_DEVICE inline T& at(const PerAnchor& values, int64_t image, int64_t anchor) {
  return static_cast<T*>(values.data)[image * values.image_stride + anchor * values.anchor_stride];
}

template <typename T>
HOST_DEVICE inline T* row(const PerClass& values, int64_t image, int64_t anchor) {
  return static_cast<T*>(values.data) + image * values.image_stride + anchor * values.anchor_stride;
}

HOST_DEVICE inline bool known_label(int32_t label, int64_t classes) {
  return label >= IGNORE && label < classes;
}

// The weight of an anchor; 0 leaves it out, whatever its logits are.
template <typename T>
HOST_DEVICE inline T anchor_weight(const FocalLossLevel& level, int32_t label, int64_t image, int64_t anchor) {
  if (label == IGNORE) {
    return T(0);
  }
  return level.weights.data ? at<T>(level.weights, image, anchor) : T(1);
}

}  // namespace CPU_LEVEL
}  // namespace detkit

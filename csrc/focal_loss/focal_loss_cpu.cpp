// The focal loss on a CPU: every row of logits is read once, where it lies; nothing of its size is allocated
// but the gradient.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <type_traits>

#include "focal_loss_arguments.h"

namespace detkit {
namespace {

constexpr int64_t ELEMENTS_PER_TASK = 16384;

// The usual distance between the logits of neighbouring classes, as a type: loops over it can be vectorised.
using Adjacent = std::integral_constant<int64_t, 1>;

template <typename Scalar, typename Stride, typename T, typename Gamma>
T row_loss(const Scalar* logits, Stride stride, int64_t classes, int32_t label, FocalLoss<T, Gamma> focal) {
  T sum = 0;
  for (int64_t k = 0; k < classes; ++k) {
    sum += focal.loss(static_cast<T>(logits[k * stride]), k == label);
  }
  return sum;
}

template <typename Scalar, typename Stride, typename T, typename Gamma>
void row_gradient(
    const Scalar* logits,
    Scalar* gradient,
    Stride logit_stride,
    Stride gradient_stride,
    int64_t classes,
    int32_t label,
    T scale,
    FocalLoss<T, Gamma> focal) {
  for (int64_t k = 0; k < classes; ++k) {
    const T slope = focal.slope(static_cast<T>(logits[k * logit_stride]), k == label);
    gradient[k * gradient_stride] = static_cast<Scalar>(scale * slope);
  }
}

// Calls function(image, anchor) for every anchor of a level.
template <typename Function>
void for_each_row(int64_t images, LevelSize size, const Function& function) {
  const int64_t grain = std::max<int64_t>(1, ELEMENTS_PER_TASK / std::max<int64_t>(1, size.classes));
  torch::stable::parallel_for(0, images * size.anchors, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      function(row / size.anchors, row % size.anchors);
    }
  });
}

template <typename Scalar, typename T, typename Gamma>
void level_loss(
    Level<const Scalar> logits,
    int64_t images,
    LevelSize size,
    PerAnchor<const int32_t> labels,
    PerAnchor<const T> weights,
    PerAnchor<T> loss,
    FocalLoss<T, Gamma> focal) {
  for_each_row(images, size, [&](int64_t image, int64_t anchor) {
    const int64_t column = size.first_anchor + anchor;
    const int32_t label = labels.at(image, column);
    const T weight = anchor_weight(label, weights, image, column);
    const Scalar* row = logits.row(image, anchor);
    T& result = loss.at(image, column);
    if (weight == T(0)) {
      result = T(0);
    } else if (logits.class_stride == 1) {
      result = weight * row_loss(row, Adjacent(), size.classes, label, focal);
    } else {
      result = weight * row_loss(row, logits.class_stride, size.classes, label, focal);
    }
  });
}

template <typename Scalar, typename T, typename Gamma>
void level_gradient(
    Level<const Scalar> logits,
    Level<Scalar> gradient,
    int64_t images,
    LevelSize size,
    PerAnchor<const int32_t> labels,
    PerAnchor<const T> weights,
    PerAnchor<const T> grad,
    FocalLoss<T, Gamma> focal) {
  for_each_row(images, size, [&](int64_t image, int64_t anchor) {
    const int64_t column = size.first_anchor + anchor;
    const int32_t label = labels.at(image, column);
    const T weight = anchor_weight(label, weights, image, column);
    const Scalar* row = logits.row(image, anchor);
    Scalar* out = gradient.row(image, anchor);
    const T scale = weight * grad.at(image, column);
    if (weight == T(0)) {
      for (int64_t k = 0; k < size.classes; ++k) {
        out[k * gradient.class_stride] = static_cast<Scalar>(0.0f);
      }
    } else if (logits.class_stride == 1 && gradient.class_stride == 1) {
      row_gradient(row, out, Adjacent(), Adjacent(), size.classes, label, scale, focal);
    } else {
      row_gradient(
          row, out, logits.class_stride, gradient.class_stride, size.classes, label, scale, focal);
    }
  });
}

void check_labels(const Tensor& labels, int64_t classes) {
  const PerAnchor<const int32_t> view = per_anchor<const int32_t>(labels);
  for (int64_t image = 0; image < labels.size(0); ++image) {
    for (int64_t anchor = 0; anchor < labels.size(1); ++anchor) {
      const int32_t label = view.at(image, anchor);
      STD_TORCH_CHECK(
          label >= IGNORE && label < classes,
          "sigmoid_focal_loss: labels[", image, ", ", anchor, "] is ", label,
          "; expected a class index from 0 to ", classes - 1, ", BACKGROUND (", BACKGROUND,
          ") or IGNORE (", IGNORE, ")");
    }
  }
}

Tensor focal_loss_cpu(
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  check_arguments(logits, labels, weights);
  check_labels(labels, logits[0].size(2));
  Tensor loss = empty_loss(logits, labels);
  with_scalar_type(logits[0].scalar_type(), [&](auto scalar) {
    using Scalar = decltype(scalar);
    using T = arithmetic_t<Scalar>;
    with_focal_loss<T>(alpha, gamma, [&](auto focal) {
      int64_t first_anchor = 0;
      for (const Tensor& level : logits) {
        const LevelSize size{level.size(1), level.size(2), first_anchor};
        level_loss(
            level_view<const Scalar>(level), level.size(0), size, per_anchor<const int32_t>(labels),
            per_anchor<T>(weights), per_anchor<T>(loss), focal);
        first_anchor += size.anchors;
      }
    });
  });
  return loss;
}

std::vector<Tensor> focal_loss_backward_cpu(
    const Tensor& grad,
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  check_arguments(logits, labels, weights);
  std::vector<Tensor> gradients;
  with_scalar_type(logits[0].scalar_type(), [&](auto scalar) {
    using Scalar = decltype(scalar);
    using T = arithmetic_t<Scalar>;
    check_per_anchor(
        grad, labels, std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float, "gradients");
    with_focal_loss<T>(alpha, gamma, [&](auto focal) {
      int64_t first_anchor = 0;
      for (const Tensor& level : logits) {
        const LevelSize size{level.size(1), level.size(2), first_anchor};
        gradients.push_back(torch::stable::empty_like(level));
        level_gradient(
            level_view<const Scalar>(level), level_view<Scalar>(gradients.back()), level.size(0), size,
            per_anchor<const int32_t>(labels), per_anchor<T>(weights), per_anchor<const T>(grad), focal);
        first_anchor += size.anchors;
      }
    });
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, library) {
  library.impl("sigmoid_focal_loss", TORCH_BOX(&focal_loss_cpu));
  library.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_loss_backward_cpu));
}

}  // namespace detkit

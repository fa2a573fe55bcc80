// The focal loss on a CPU: every row of logits is read once, where it lies; nothing of its size is allocated but the
// gradient. The loops are in focal_loss_simd.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>

#include "focal_loss_arguments.h"
#include "focal_loss_kernels.h"

namespace detkit {
namespace {

constexpr int64_t ELEMENTS_PER_TASK = 16384;

FocalLossKernels kernels() {
  return at_cpu_level([]<CpuLevel level>() { return focal_loss_kernels<level>(); });
}

// Calls function(range, scratch) for all anchors of a level, from several threads.
template <typename Function>
void for_each_range(const FocalLossLevel& level, const Function& function) {
  const int64_t grain = std::max<int64_t>(1, ELEMENTS_PER_TASK / std::max<int64_t>(1, level.classes));
  torch::stable::parallel_for(0, level.images * level.anchors, grain, [&](int64_t begin, int64_t end) {
    std::vector<double> scratch(focal_loss_scratch(level.classes) / sizeof(double));
    while (begin < end) {
      const int64_t image = begin / level.anchors;
      const int64_t first = begin % level.anchors;
      const int64_t last = std::min(level.anchors, first + end - begin);
      function(AnchorRange{image, first, last}, scratch.data());
      begin += last - first;
    }
  });
}

void refuse_unknown_label(const FocalLossLevel& level) {
  for (int64_t image = 0; image < level.images; ++image) {
    for (int64_t anchor = 0; anchor < level.anchors; ++anchor) {
      const int32_t label = at<const int32_t>(level.labels, image, anchor);
      STD_TORCH_CHECK(
          known_label(label, level.classes),
          "sigmoid_focal_loss: labels[", image, ", ", level.first_anchor + anchor, "] is ", label,
          "; expected a class index from 0 to ", level.classes - 1, ", BACKGROUND (", BACKGROUND,
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
  const std::vector<FocalLossLevel> levels = read_levels(logits, labels, weights, alpha, gamma);
  const FocalLossKernels use = kernels();
  Tensor loss = empty_loss(logits, labels);
  for (const FocalLossLevel& level : levels) {
    const PerAnchor level_loss = per_anchor(loss, level.first_anchor);
    std::atomic<bool> known = true;
    for_each_range(level, [&](AnchorRange range, void* scratch) {
      if (!use.loss(level, range, level_loss, scratch)) {
        known = false;
      }
    });
    if (!known) {
      refuse_unknown_label(level);
    }
  }
  return loss;
}

std::vector<Tensor> focal_loss_backward_cpu(
    const Tensor& grad,
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  const std::vector<FocalLossLevel> levels = read_levels(logits, labels, weights, alpha, gamma);
  check_per_anchor(grad, labels, loss_type(logits), "gradients");
  const FocalLossKernels use = kernels();
  std::vector<Tensor> gradients = empty_gradients(logits);
  for (size_t index = 0; index < levels.size(); ++index) {
    const FocalLossLevel& level = levels[index];
    const PerAnchor level_grad = per_anchor(grad, level.first_anchor);
    const PerClass gradient = per_class(gradients[index]);
    for_each_range(level, [&](AnchorRange range, void* scratch) {
      use.gradient(level, range, level_grad, gradient, scratch);
    });
  }
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, library) {
  library.impl("sigmoid_focal_loss", TORCH_BOX(&focal_loss_cpu));
  library.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_loss_backward_cpu));
}

}  // namespace detkit

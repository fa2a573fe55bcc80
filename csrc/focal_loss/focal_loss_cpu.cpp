// The focal loss on a CPU: the logits are read where they lie, and nothing of their size is allocated but the gradient.
// The loops are in focal_loss_rows.h and focal_loss_columns.h.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>

#include "focal_loss_arguments.h"
#include "focal_loss_kernels.h"

namespace detkit {
namespace {

constexpr int64_t ELEMENTS_PER_TASK = 16384;  // at least: for fewer, another thread costs more than it saves

FocalLossKernels kernels() {
  return at_cpu_level([]<CpuLevel level>() { return focal_loss_kernels<level>(); });
}

// Calls function(index of level, range) for all anchors, from several threads. All levels are shared out at once: each
// time that threads wait for one another costs as much as a thousand anchors.
template <typename Function>
void for_each_range(const std::vector<FocalLossLevel>& levels, const Function& function) {
  const int64_t classes = levels[0].classes;
  const int64_t images = levels[0].images;
  const int64_t total = images * (levels.back().first_anchor + levels.back().anchors);
  const int64_t grain = std::max<int64_t>(1, ELEMENTS_PER_TASK / std::max<int64_t>(1, classes));
  torch::stable::parallel_for(0, total, grain, [&](int64_t begin, int64_t end) {
    for (size_t index = 0; index < levels.size(); ++index) {
      const FocalLossLevel& level = levels[index];
      const int64_t start = images * level.first_anchor;
      int64_t row = std::max(begin, start);
      const int64_t last = std::min(end, start + images * level.anchors);
      while (row < last) {
        const int64_t image = (row - start) / level.anchors;
        const int64_t first = (row - start) % level.anchors;
        const int64_t count = std::min(level.anchors - first, last - row);
        function(index, AnchorRange{image, first, first + count});
        row += count;
      }
    }
  });
}

void refuse_unknown_label(const std::vector<FocalLossLevel>& levels) {
  for (const FocalLossLevel& level : levels) {
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
  std::atomic<bool> known = true;
  for_each_range(levels, [&](size_t index, AnchorRange range) {
    const FocalLossLevel& level = levels[index];
    if (!use.loss(level, range, per_anchor(loss, level.first_anchor))) {
      known = false;
    }
  });
  if (!known) {
    refuse_unknown_label(levels);
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
  for_each_range(levels, [&](size_t index, AnchorRange range) {
    const FocalLossLevel& level = levels[index];
    use.gradient(level, range, per_anchor(grad, level.first_anchor), per_class(gradients[index]));
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CPU, library) {
  library.impl("sigmoid_focal_loss", TORCH_BOX(&focal_loss_cpu));
  library.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_loss_backward_cpu));
}

}  // namespace detkit

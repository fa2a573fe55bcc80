// The focal loss on a GPU: one warp for each row of logits, which is read once, where it lies.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <type_traits>

#include "../cuda_launch.h"
#include "focal_loss_arguments.h"

namespace detkit {
namespace {

// As anchor_weight; a label that is none would be an error on a CPU, and here spoils the anchor's loss.
template <typename T>
__device__ T checked_weight(
    int32_t label, int64_t classes, PerAnchor<const T> weights, int64_t image, int64_t anchor) {
  const bool known = label >= IGNORE && label < classes;
  return known ? anchor_weight(label, weights, image, anchor) : T(NAN);
}

// The sum over a warp, in its first lane; always added in the same order.
template <typename T>
__device__ T warp_sum(T value) {
  for (int offset = THREADS_PER_WARP / 2; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, offset);
  }
  return value;
}

template <typename Scalar, typename T, typename Gamma>
__global__ void level_loss(
    Level<const Scalar> logits,
    int64_t images,
    LevelSize size,
    PerAnchor<const int32_t> labels,
    PerAnchor<const T> weights,
    PerAnchor<T> loss,
    FocalLoss<T, Gamma> focal) {
  const int lane = threadIdx.x % THREADS_PER_WARP;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t warps = int64_t(gridDim.x) * blockDim.x / THREADS_PER_WARP;
  for (int64_t row = thread / THREADS_PER_WARP; row < images * size.anchors; row += warps) {
    const int64_t image = row / size.anchors;
    const int64_t anchor = row % size.anchors;
    const int64_t column = size.first_anchor + anchor;
    const int32_t label = labels.at(image, column);
    const T weight = checked_weight(label, size.classes, weights, image, column);
    T sum = 0;
    if (weight != T(0)) {
      const Scalar* logit = logits.row(image, anchor);
      for (int64_t k = lane; k < size.classes; k += THREADS_PER_WARP) {
        sum += focal.loss(static_cast<T>(logit[k * logits.class_stride]), k == label);
      }
      sum = warp_sum(sum);
    }
    if (lane == 0) {
      loss.at(image, column) = weight == T(0) ? T(0) : weight * sum;
    }
  }
}

template <typename Scalar, typename T, typename Gamma>
__global__ void level_gradient(
    Level<const Scalar> logits,
    Level<Scalar> gradient,
    int64_t images,
    LevelSize size,
    PerAnchor<const int32_t> labels,
    PerAnchor<const T> weights,
    PerAnchor<const T> grad,
    FocalLoss<T, Gamma> focal) {
  const int lane = threadIdx.x % THREADS_PER_WARP;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t warps = int64_t(gridDim.x) * blockDim.x / THREADS_PER_WARP;
  for (int64_t row = thread / THREADS_PER_WARP; row < images * size.anchors; row += warps) {
    const int64_t image = row / size.anchors;
    const int64_t anchor = row % size.anchors;
    const int64_t column = size.first_anchor + anchor;
    const int32_t label = labels.at(image, column);
    const T weight = checked_weight(label, size.classes, weights, image, column);
    const T scale = weight * grad.at(image, column);
    const Scalar* logit = logits.row(image, anchor);
    Scalar* out = gradient.row(image, anchor);
    for (int64_t k = lane; k < size.classes; k += THREADS_PER_WARP) {
      const T value = weight == T(0)
          ? T(0)
          : scale * focal.slope(static_cast<T>(logit[k * logits.class_stride]), k == label);
      out[k * gradient.class_stride] = static_cast<Scalar>(value);
    }
  }
}

Tensor focal_loss_cuda(
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  check_arguments(logits, labels, weights);
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const cudaStream_t stream = current_stream(labels);
  Tensor loss = empty_loss(logits, labels);
  with_scalar_type(logits[0].scalar_type(), [&](auto scalar) {
    using Scalar = decltype(scalar);
    using T = arithmetic_t<Scalar>;
    with_focal_loss<T>(alpha, gamma, [&](auto focal) {
      int64_t first_anchor = 0;
      for (const Tensor& level : logits) {
        const LevelSize size{level.size(1), level.size(2), first_anchor};
        const int64_t rows = level.size(0) * size.anchors;
        if (rows > 0) {
          level_loss<<<blocks_for(rows * THREADS_PER_WARP), THREADS_PER_BLOCK, 0, stream>>>(
              level_view<const Scalar>(level), level.size(0), size, per_anchor<const int32_t>(labels),
              per_anchor<T>(weights), per_anchor<T>(loss), focal);
          STD_CUDA_KERNEL_LAUNCH_CHECK();
        }
        first_anchor += size.anchors;
      }
    });
  });
  return loss;
}

std::vector<Tensor> focal_loss_backward_cuda(
    const Tensor& grad,
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  check_arguments(logits, labels, weights);
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const cudaStream_t stream = current_stream(labels);
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
        if (level.numel() > 0) {
          const int64_t threads = level.size(0) * size.anchors * THREADS_PER_WARP;
          level_gradient<<<blocks_for(threads), THREADS_PER_BLOCK, 0, stream>>>(
              level_view<const Scalar>(level), level_view<Scalar>(gradients.back()), level.size(0), size,
              per_anchor<const int32_t>(labels), per_anchor<T>(weights), per_anchor<const T>(grad), focal);
          STD_CUDA_KERNEL_LAUNCH_CHECK();
        }
        first_anchor += size.anchors;
      }
    });
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, library) {
  library.impl("sigmoid_focal_loss", TORCH_BOX(&focal_loss_cuda));
  library.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_loss_backward_cuda));
}

}  // namespace detkit

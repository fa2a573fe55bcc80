// The focal loss on a GPU. A few neighbouring threads share the logits of one anchor: they read them where they lie,
// once and up to 16 bytes at a time, and all that follows stays in registers. One launch takes all levels of a pyramid.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <cmath>

#include "../cuda_launch.h"
#include "../gpu_float.h"
#include "../gpu_vector.h"
#include "focal_loss.h"
#include "focal_loss_arguments.h"
#include "focal_loss_launch.h"

namespace detkit {
namespace {

constexpr int VECTORS_IN_FLIGHT = 5;  // what a thread has of 80 classes, and reads before it waits for any

// What the formulas compute with.
template <typename Scalar>
using number_t = std::conditional_t<std::is_same_v<Scalar, double>, double, GpuFloat>;

// The formula, and what alpha multiplies it by.
template <typename Scalar, typename Gamma>
struct Balanced {
  FocalLoss<number_t<Scalar>, Gamma> focal;
  arithmetic_t<Scalar> positive_factor;
  arithmetic_t<Scalar> negative_factor;
};

__device__ double plain(double number) {
  return number;
}

__device__ float plain(GpuFloat number) {
  return number.value;
}

// As at() and row(), in 32 bits: images_at_once() in focal_loss_launch.h sees to it that they suffice.
template <typename T, typename Values>
__device__ T* pointer(const Values& values, int32_t image, int32_t anchor) {
  const int32_t offset =
      image * static_cast<int32_t>(values.image_stride) + anchor * static_cast<int32_t>(values.anchor_stride);
  return static_cast<T*>(values.data) + offset;
}

// The logits of one anchor, and a thread's part in them.
template <typename Scalar, int COUNT>
struct Row {
  using T = arithmetic_t<Scalar>;
  using Logits = Vector<Scalar, COUNT>;

  const Task& task;
  int32_t image;
  int32_t anchor;
  int32_t lanes;
  int32_t lane;
  bool exists;  // the last block of a task has threads beyond
  int32_t label = IGNORE;
  T weight = 0;

  __device__ Row(const Launch& launch, int32_t block, int32_t image) : task(launch.task_of(block)), image(image) {
    const int32_t thread = (block - task.first_block) * THREADS_PER_BLOCK + static_cast<int32_t>(threadIdx.x);
    lanes = 1 << task.lane_bits;
    lane = thread & (lanes - 1);
    exists = thread >> task.lane_bits < static_cast<int32_t>(task.level.anchors);
    anchor = exists ? thread >> task.lane_bits : 0;  // the offset of one beyond could overflow 32 bits
    if (exists) {
      label = *pointer<const int32_t>(task.level.labels, image, anchor);
      weight = task.level.weights.data ? *pointer<const T>(task.level.weights, image, anchor) : T(1);
    }
  }

  __device__ int32_t classes() const {
    return static_cast<int32_t>(task.level.classes);
  }

  // Whether the logits matter; with a weight that is NaN they do.
  __device__ bool counts() const {
    return label != IGNORE && weight != T(0);
  }

  // Whether the anchor is a positive whose logit is in this thread's part.
  __device__ bool has_label() const {
    const bool positive = counts() && label >= 0 && label < classes();
    return positive && (label / COUNT & (lanes - 1)) == lane;
  }

  __device__ const Scalar* logits() const {
    return pointer<const Scalar>(task.level.logits, image, anchor);
  }

  __device__ T logit(int32_t k) const {
    return widen(logits()[k * task.level.logits.class_stride]);
  }

  // How many vectors of the row to read. Where there are weights, anchors that do not count may be many, and nothing is
  // read of them. Else they are few, and to wait for the label before logits are asked for would cost more.
  __device__ int32_t readable() const {
    bool wanted = exists;
    if (task.level.weights.data != nullptr) {
      asm volatile("");  // keeps the compiler from making this a selection, which would wait for both sides
      wanted = counts();
    }
    return wanted ? task.vectors : 0;
  }

  // Calls function(index, logits) for each vector of the thread's part, which are those whose index is `lane` more than
  // a multiple of `lanes`; logits that are not read are 0. All threads of a warp call it together.
  template <typename Function>
  __device__ void for_each_vector(const Function& function) const {
    const int32_t end = readable();
    const int64_t stride = COUNT > 1 ? COUNT : task.level.logits.class_stride;
    const Scalar* first = computed_once(logits());
    for (int32_t begin = 0; begin < task.vectors; begin += VECTORS_IN_FLIGHT * lanes) {
      Logits in_flight[VECTORS_IN_FLIGHT] = {};
#pragma unroll
      for (int turn = 0; turn < VECTORS_IN_FLIGHT; ++turn) {
        const int32_t index = begin + turn * lanes + lane;
        if (index < end) {
          in_flight[turn].load(first + index * stride);
        }
      }
#pragma unroll
      for (int turn = 0; turn < VECTORS_IN_FLIGHT; ++turn) {
        if (begin + turn * lanes < task.vectors) {
          function(begin + turn * lanes + lane, in_flight[turn]);
        }
      }
    }
  }
};

// Whether the logits of a warp that matter are all below EASY_LOGIT.
template <typename T, int COUNT>
__device__ bool all_easy(const T (&logits)[COUNT], bool matter) {
  bool easy = true;
  for (const T& logit : logits) {
    easy &= logit < T(EASY_LOGIT);
  }
  return __all_sync(ALL_LANES, easy || !matter);
}

// The loss of a thread's part, without alpha: of all logits but those beside a positive's label.
template <typename Scalar, int COUNT, typename Focal>
__device__ arithmetic_t<Scalar> sum_negatives(const Row<Scalar, COUNT>& row, int32_t skipped, const Focal& focal) {
  using Number = number_t<Scalar>;
  Number sum = 0;
  row.for_each_vector([&](int32_t index, const Vector<Scalar, COUNT>& vector) {
    const bool matter = row.counts() && index < row.task.vectors && index != skipped;
    arithmetic_t<Scalar> logits[COUNT];
    vector.widen_to(logits);
    if constexpr (Focal::has_easy_form) {
      if (all_easy(logits, matter)) {
        for (int i = 0; i < COUNT && matter; ++i) {
          sum = sum + focal.easy_loss(Number(logits[i]));
        }
        return;
      }
    }
    for (int i = 0; i < COUNT && matter; ++i) {
      sum = sum + focal.negative_loss(Number(logits[i]));
    }
  });
  return plain(sum);
}

template <typename Scalar, int COUNT, typename Gamma>
__global__ void __launch_bounds__(THREADS_PER_BLOCK)
    write_losses(const __grid_constant__ Launch launch, const Balanced<Scalar, Gamma> loss) {
  using T = arithmetic_t<Scalar>;
  using Number = number_t<Scalar>;
  const Row<Scalar, COUNT> row(launch, blockIdx.x, blockIdx.y);
  const bool has_label = row.has_label();
  const int32_t vector_of_label = has_label ? row.label / COUNT : -1;
  T negative = sum_negatives(row, vector_of_label, loss.focal);
  T positive = 0;
  if (has_label) {
    for (int32_t k = vector_of_label * COUNT; k < (vector_of_label + 1) * COUNT; ++k) {
      const Number logit = row.logit(k);
      if (k == row.label) {
        positive = plain(loss.focal.positive_loss(logit));
      } else {
        negative += plain(loss.focal.negative_loss(logit));
      }
    }
  }
  T sum = loss.positive_factor * positive + loss.negative_factor * negative;
  // Always added in the same order.
  for (int32_t distance = row.lanes / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(ALL_LANES, sum, distance);
  }
  if (row.lane == 0 && row.exists) {
    // On a CPU an unknown label is an error; here nobody waits for the answer.
    const bool known = row.label >= IGNORE && row.label < row.classes();
    const T loss_of_row = row.counts() ? row.weight * sum : T(0);
    *pointer<T>(row.task.loss, row.image, row.anchor) = known ? loss_of_row : T(NAN);
  }
}

// Makes each logit scale * negative_slope of it.
template <typename T, int COUNT, typename Focal>
__device__ void make_gradients(T (&numbers)[COUNT], bool matter, T scale, const Focal& focal) {
  using Number = number_t<T>;
  if constexpr (Focal::has_easy_form) {
    if (all_easy(numbers, matter)) {
      for (T& number : numbers) {
        number = plain(Number(scale) * focal.easy_slope(Number(number)));
      }
      return;
    }
  }
  for (T& number : numbers) {
    number = plain(Number(scale) * focal.negative_slope(Number(number)));
  }
}

template <typename Scalar, int COUNT, typename Gamma>
__global__ void __launch_bounds__(THREADS_PER_BLOCK)
    write_gradients(const __grid_constant__ Launch launch, const Balanced<Scalar, Gamma> loss) {
  using T = arithmetic_t<Scalar>;
  using Gradients = Vector<Scalar, COUNT>;
  // From last to first: what the forward pass has read last may still lie in the cache.
  const Row<Scalar, COUNT> row(launch, gridDim.x - 1 - blockIdx.x, gridDim.y - 1 - blockIdx.y);
  const T grad = row.exists ? *pointer<const T>(row.task.loss, row.image, row.anchor) : T(0);
  const int64_t stride = COUNT > 1 ? COUNT : row.task.gradient.class_stride;
  Scalar* gradient = computed_once(pointer<Scalar>(row.task.gradient, row.image, row.anchor));
  T scale = 0;
  row.for_each_vector([&](int32_t index, Gradients logits) {
    if (!row.counts()) {
      logits = {};  // of what does not count the gradient is 0, even where it is NaN
    }
    scale = row.counts() ? row.weight * grad : T(0);  // here, so that no logit waits for label, weight and grad
    const bool in_row = index < row.task.vectors;
    T numbers[COUNT];
    logits.widen_to(numbers);
    make_gradients(numbers, row.counts() && in_row, loss.negative_factor * scale, loss.focal);
    if (row.exists && in_row) {
      Gradients::narrowed(numbers).store(gradient + index * stride);
    }
  });
  if (row.has_label()) {
    const T slope = plain(loss.focal.positive_slope(number_t<Scalar>(row.logit(row.label))));
    narrow(loss.positive_factor * scale * slope, gradient[row.label * row.task.gradient.class_stride]);
  }
}

// Calls function(count) with the number as a constant.
template <typename Scalar, typename Function>
void with_count(int64_t count, const Function& function) {
  if (count * sizeof(Scalar) == 16) {
    return function(std::integral_constant<int, 16 / sizeof(Scalar)>());
  }
  if constexpr (sizeof(Scalar) == 2) {
    if (count == 2) {
      return function(std::integral_constant<int, 2>());
    }
  }
  function(std::integral_constant<int, 1>());
}

// Calls function(count of logits moved at once, Balanced) with the types and the formula of a launch.
template <typename Function>
void with_formula(const Launch& launch, const Function& function) {
  const FocalLossLevel& level = launch.tasks[0].level;
  with_element_type(level.type, [&](auto scalar) {
    using Scalar = decltype(scalar);
    using Number = number_t<Scalar>;
    using T = arithmetic_t<Scalar>;
    with_count<Scalar>(launch.numbers_at_once, [&](auto count) {
      with_focal_loss<Number>(level.gamma, [&]<typename Gamma>(const FocalLoss<Number, Gamma>& focal) {
        const T positive_factor = static_cast<T>(level.positive_factor);
        const T negative_factor = static_cast<T>(level.negative_factor);
        function(count, Balanced<Scalar, Gamma>{focal, positive_factor, negative_factor});
      });
    });
  });
}

dim3 grid_of(const Launch& launch) {
  return dim3(static_cast<uint32_t>(launch.blocks), static_cast<uint32_t>(launch.images));
}

Tensor focal_loss_cuda(
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const std::vector<FocalLossLevel> levels = read_levels(logits, labels, weights, alpha, gamma);
  const cudaStream_t stream = current_stream(labels);
  Tensor loss = empty_loss(logits, labels);
  std::vector<Task> tasks;
  for (const FocalLossLevel& level : levels) {
    tasks.push_back({level, per_anchor(loss, level.first_anchor)});
  }
  for (const Launch& launch : plan_launches(tasks, static_cast<int64_t>(logits[0].element_size()))) {
    with_formula(launch, [&]<typename Scalar, typename Gamma>(auto count, const Balanced<Scalar, Gamma>& formula) {
      write_losses<Scalar, count()><<<grid_of(launch), THREADS_PER_BLOCK, 0, stream>>>(launch, formula);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return loss;
}

std::vector<Tensor> focal_loss_backward_cuda(
    const Tensor& grad,
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const std::vector<FocalLossLevel> levels = read_levels(logits, labels, weights, alpha, gamma);
  check_per_anchor(grad, labels, loss_type(logits), "gradients");
  const cudaStream_t stream = current_stream(labels);
  std::vector<Tensor> gradients = empty_gradients(logits);
  std::vector<Task> tasks;
  for (size_t index = 0; index < levels.size(); ++index) {
    const PerAnchor level_grad = per_anchor(grad, levels[index].first_anchor);
    tasks.push_back({levels[index], level_grad, per_class(gradients[index])});
  }
  for (const Launch& launch : plan_launches(tasks, static_cast<int64_t>(logits[0].element_size()))) {
    with_formula(launch, [&]<typename Scalar, typename Gamma>(auto count, const Balanced<Scalar, Gamma>& formula) {
      write_gradients<Scalar, count()><<<grid_of(launch), THREADS_PER_BLOCK, 0, stream>>>(launch, formula);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, library) {
  library.impl("sigmoid_focal_loss", TORCH_BOX(&focal_loss_cuda));
  library.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_loss_backward_cuda));
}

}  // namespace detkit

// The focal loss on a GPU. A few neighbouring threads share the logits of one anchor: they read them where they lie, once
// and up to 16 bytes at a time, and all that follows stays in registers. One launch takes all levels of a pyramid.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>

#include "../cuda_launch.h"
#include "../gpu_float.h"
#include "../gpu_vector.h"
#include "focal_loss.h"
#include "focal_loss_arguments.h"

namespace detkit {
namespace {

constexpr int LEVELS_PER_LAUNCH = 8;
constexpr int64_t IMAGES_PER_LAUNCH = 65535;
constexpr int64_t LARGEST_SIZE = 1 << 30;  // of anchors and classes, which are counted in 32 bits
constexpr int VECTORS_IN_FLIGHT = 5;  // what a thread has of 80 classes, and reads before it waits for any

// One level, and how threads share it out.
struct Task {
  FocalLossLevel level;
  PerAnchor loss;     // to write, or the incoming gradient
  PerClass gradient;  // to write, unless it is the loss that is asked for
  int32_t first_block;
  int32_t lane_bits;  // 2^lane_bits threads share an anchor
};

struct Launch {
  int32_t count = 0;
  int32_t blocks = 0;
  int64_t first_image = 0;
  Task tasks[LEVELS_PER_LAUNCH];

  __device__ const Task& task_of(int32_t block) const {
    int index = 0;
    while (index + 1 < count && block >= tasks[index + 1].first_block) {
      ++index;
    }
    return tasks[index];
  }
};

// What the formulas compute with.
template <typename Scalar>
using number_t = std::conditional_t<std::is_same_v<Scalar, double>, double, GpuFloat>;

template <typename T>
__device__ T plain(T number) {
  return number;
}

__device__ float plain(GpuFloat number) {
  return number.value;
}

// The logits of one anchor, and a thread's part in them.
template <typename Scalar>
struct Row {
  using T = arithmetic_t<Scalar>;

  const Task& task;
  int64_t image;
  int32_t anchor;
  int32_t lane;
  bool exists;  // the last block of a level has threads beyond
  int32_t label;
  T weight;

  __device__ Row(const Task& task, int32_t block, int64_t image)
      : task(task),
        image(image),
        anchor((block - task.first_block) * (THREADS_PER_BLOCK >> task.lane_bits) + (threadIdx.x >> task.lane_bits)),
        lane(threadIdx.x & ((1 << task.lane_bits) - 1)),
        exists(anchor < task.level.anchors),
        label(exists ? at<const int32_t>(task.level.labels, image, anchor) : IGNORE),
        weight(anchor_weight<T>(task.level, label, image, anchor)) {}

  // Whether the logits matter; a weight that is NaN does.
  __device__ bool counts() const {
    return weight != T(0);
  }

  __device__ bool positive() const {
    return counts() && label >= 0 && label < task.level.classes;
  }

  __device__ const Scalar* logits() const {
    return row<const Scalar>(task.level.logits, image, anchor);
  }

  __device__ T logit_of_label() const {
    return widen(logits()[label * task.level.logits.class_stride]);
  }
};

// Calls function(class of the first, vector) for each vector of a thread's logits; they are -infinity, which adds
// nothing to a sum, where the row does not count or has ended. All threads of a warp call it together.
template <int COUNT, typename Scalar, typename Function>
__device__ void for_each_vector(const Row<Scalar>& row, const Function& function) {
  using Logits = Vector<Scalar, COUNT>;
  const int32_t lanes = 1 << row.task.lane_bits;
  const int32_t vectors = static_cast<int32_t>(row.task.level.classes) / COUNT;
  const int32_t readable = row.counts() ? vectors : 0;
  const int64_t stride = COUNT > 1 ? COUNT : row.task.level.logits.class_stride;
  const Scalar* logits = row.logits();
  for (int32_t begin = 0; begin < vectors; begin += VECTORS_IN_FLIGHT * lanes) {
    Logits in_flight[VECTORS_IN_FLIGHT];
#pragma unroll
    for (int turn = 0; turn < VECTORS_IN_FLIGHT; ++turn) {
      const int32_t vector = begin + turn * lanes + row.lane;
      in_flight[turn] = vector < readable ? *reinterpret_cast<const Logits*>(logits + vector * stride)
                                          : Logits::filled(-INFINITY);
    }
#pragma unroll
    for (int turn = 0; turn < VECTORS_IN_FLIGHT; ++turn) {
      if (begin + turn * lanes < vectors) {
        function((begin + turn * lanes + row.lane) * COUNT, in_flight[turn]);
      }
    }
  }
}

// Whether the logits of all threads of a warp are below EASY_LOGIT.
template <typename T, int COUNT>
__device__ bool all_easy(const T (&logits)[COUNT]) {
  bool easy = true;
  for (const T& logit : logits) {
    easy &= logit < T(EASY_LOGIT);
  }
  return __all_sync(ALL_LANES, easy);
}

// The sum of negative_loss over a thread's logits, without the one of the label.
template <int COUNT, typename Scalar, typename Focal>
__device__ auto sum_negatives(const Row<Scalar>& row, const Focal& focal) {
  using Number = number_t<Scalar>;
  Number sum = 0;
  for_each_vector<COUNT>(row, [&](int32_t first, const Vector<Scalar, COUNT>& vector) {
    typename Row<Scalar>::T logits[COUNT];
    vector.widen_to(logits);
    const uint32_t offset = uint32_t(row.label) - uint32_t(first);
    if (offset < COUNT) {
      for (int i = 0; i < COUNT; ++i) {
        logits[i] = i == offset ? -INFINITY : logits[i];
      }
    }
    if constexpr (Focal::has_easy_form) {
      if (all_easy(logits)) {
        for (int i = 0; i < COUNT; ++i) {
          sum = sum + focal.easy_loss(Number(logits[i]));
        }
        return;
      }
    }
    for (int i = 0; i < COUNT; ++i) {
      sum = sum + focal.negative_loss(Number(logits[i]));
    }
  });
  return plain(sum);
}

template <int COUNT, typename Scalar, typename Focal>
__global__ void __launch_bounds__(THREADS_PER_BLOCK)
    write_losses(const __grid_constant__ Launch launch, const Focal focal) {
  using T = arithmetic_t<Scalar>;
  const Row<Scalar> row(launch.task_of(blockIdx.x), blockIdx.x, launch.first_image + blockIdx.y);
  const FocalLossLevel& level = row.task.level;
  T negative = 0;
  if (__any_sync(ALL_LANES, row.counts())) {
    negative = sum_negatives<COUNT>(row, focal);
  }
  // Always added in the same order.
  for (int32_t distance = 1 << row.task.lane_bits >> 1; distance > 0; distance /= 2) {
    negative += __shfl_xor_sync(ALL_LANES, negative, distance);
  }
  if (row.lane != 0 || !row.exists) {
    return;
  }
  T positive = 0;
  if (row.positive()) {
    positive = plain(focal.positive_loss(number_t<Scalar>(row.logit_of_label())));
  }
  const T loss = row.weight * (T(level.positive_factor) * positive + T(level.negative_factor) * negative);
  // On a CPU such a label is an error, and here there is no telling it in time.
  at<T>(row.task.loss, row.image, row.anchor) = known_label(row.label, level.classes) ? loss : T(NAN);
}

// scale * negative_slope of each logit.
template <int COUNT, typename Scalar, typename Focal, typename T>
__device__ Vector<Scalar, COUNT> scaled_slopes(const Vector<Scalar, COUNT>& vector, T scale, const Focal& focal) {
  using Number = number_t<Scalar>;
  T numbers[COUNT];
  vector.widen_to(numbers);
  if constexpr (Focal::has_easy_form) {
    if (all_easy(numbers)) {
      for (T& number : numbers) {
        number = plain(Number(scale) * focal.easy_slope(Number(number)));
      }
      return Vector<Scalar, COUNT>::narrowed(numbers);
    }
  }
  for (T& number : numbers) {
    number = plain(Number(scale) * focal.negative_slope(Number(number)));
  }
  return Vector<Scalar, COUNT>::narrowed(numbers);
}

template <int COUNT, typename Scalar, typename Focal>
__global__ void __launch_bounds__(THREADS_PER_BLOCK)
    write_gradients(const __grid_constant__ Launch launch, const Focal focal) {
  using T = arithmetic_t<Scalar>;
  // From last to first: what the forward pass has read last may still lie in the cache.
  const int32_t block = gridDim.x - 1 - blockIdx.x;
  const Row<Scalar> row(launch.task_of(block), block, launch.first_image + gridDim.y - 1 - blockIdx.y);
  const FocalLossLevel& level = row.task.level;
  const PerClass& gradients = row.task.gradient;
  const T scale = row.counts() ? row.weight * at<const T>(row.task.loss, row.image, row.anchor) : T(0);
  const T negative_scale = T(level.negative_factor) * scale;
  const bool any = __any_sync(ALL_LANES, row.counts());
  Scalar* gradient = detkit::row<Scalar>(gradients, row.image, row.anchor);
  const int64_t stride = COUNT > 1 ? 1 : gradients.class_stride;
  for_each_vector<COUNT>(row, [&](int32_t first, const Vector<Scalar, COUNT>& vector) {
    using Gradients = Vector<Scalar, COUNT>;
    const Gradients slopes = any ? scaled_slopes(vector, negative_scale, focal) : Gradients::filled(0);
    if (row.exists && first < level.classes) {
      *reinterpret_cast<Gradients*>(gradient + first * stride) = slopes;
    }
    if (uint32_t(row.label) - uint32_t(first) < COUNT && row.positive()) {
      const T slope = plain(focal.positive_slope(number_t<Scalar>(row.logit_of_label())));
      narrow(T(level.positive_factor) * scale * slope, gradient[row.label * stride]);
    }
  });
}

// How many of a level's logits, and of the gradients written to them, can be moved at once: 16 bytes, 4 bytes, or one.
int64_t numbers_at_once(const FocalLossLevel& level, const PerClass& gradient, int64_t size) {
  const auto fits = [&](const PerClass& values, int64_t count) {
    return values.class_stride == 1 && level.classes % count == 0 && values.anchor_stride % count == 0 &&
        values.image_stride % count == 0 && reinterpret_cast<uintptr_t>(values.data) % (count * size) == 0;
  };
  for (const int64_t count : {16 / size, 4 / size}) {
    if (count > 1 && fits(level.logits, count) && (gradient.data == nullptr || fits(gradient, count))) {
      return count;
    }
  }
  return 1;
}

// As many threads to an anchor as have nearly the same number of vectors each: neighbours then read side by side.
// Where the anchors lie closer together than the classes, one.
int32_t lane_bits(const FocalLossLevel& level, int64_t vectors) {
  int32_t bits = 0;
  if (std::abs(level.logits.anchor_stride) < std::abs(level.logits.class_stride)) {
    return bits;
  }
  for (int32_t more = 1; 1 << more <= THREADS_PER_WARP; ++more) {
    const int64_t places = parts(vectors, 1 << more) << more;
    bits = 7 * places <= 8 * vectors ? more : bits;
  }
  return bits;
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

// Calls function(Scalar(), count of logits moved at once, FocalLoss, grid, Launch) for all levels and images.
template <typename Function>
void start(const Launch& launch, int64_t count, const Function& function) {
  const FocalLossLevel& level = launch.tasks[0].level;
  with_element_type(level.type, [&](auto scalar) {
    using Scalar = decltype(scalar);
    with_count<Scalar>(count, [&](auto constant) {
      with_focal_loss<number_t<Scalar>>(level.gamma, [&](const auto& focal) {
        Launch part = launch;
        for (; part.first_image < level.images; part.first_image += IMAGES_PER_LAUNCH) {
          const int64_t images = std::min(IMAGES_PER_LAUNCH, level.images - part.first_image);
          function(scalar, constant, focal, dim3(part.blocks, static_cast<uint32_t>(images)), part);
          STD_CUDA_KERNEL_LAUNCH_CHECK();
        }
      });
    });
  });
}

// As many levels at a time as fit into a launch and are read in the same way.
template <typename Function>
void start_all(const std::vector<Task>& tasks, int64_t size, const Function& function) {
  Launch launch;
  int64_t count = 0;
  for (Task task : tasks) {
    const FocalLossLevel& level = task.level;
    if (level.images * level.anchors == 0) {
      continue;
    }
    const int64_t wanted = numbers_at_once(level, task.gradient, size);
    if (launch.count == LEVELS_PER_LAUNCH || (launch.count > 0 && count != wanted)) {
      start(launch, count, function);
      launch = {};
    }
    count = wanted;
    task.lane_bits = lane_bits(level, level.classes / count);
    task.first_block = launch.blocks;
    launch.blocks += static_cast<int32_t>(parts(level.anchors << task.lane_bits, THREADS_PER_BLOCK));
    launch.tasks[launch.count++] = task;
  }
  if (launch.count > 0) {
    start(launch, count, function);
  }
}

std::vector<Task> read_tasks(const std::vector<FocalLossLevel>& levels, const Tensor& loss) {
  std::vector<Task> tasks;
  for (const FocalLossLevel& level : levels) {
    STD_TORCH_CHECK(
        level.first_anchor + level.anchors <= LARGEST_SIZE && level.classes <= LARGEST_SIZE,
        "sigmoid_focal_loss: on a GPU there can be ", LARGEST_SIZE, " anchors to an image and as many classes; found ",
        level.first_anchor + level.anchors, " and ", level.classes);
    tasks.push_back({level, per_anchor(loss, level.first_anchor), PerClass{}, 0, 0});
  }
  return tasks;
}

Tensor focal_loss_cuda(
    const std::vector<Tensor>& logits,
    const Tensor& labels,
    const std::optional<Tensor>& weights,
    std::optional<double> alpha,
    double gamma) {
  const std::vector<FocalLossLevel> levels = read_levels(logits, labels, weights, alpha, gamma);
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const cudaStream_t stream = current_stream(labels);
  Tensor loss = empty_loss(logits, labels);
  const std::vector<Task> tasks = read_tasks(levels, loss);
  start_all(tasks, logits[0].element_size(), [&](auto scalar, auto count, const auto& focal, dim3 grid, const Launch& launch) {
    write_losses<count(), decltype(scalar)><<<grid, THREADS_PER_BLOCK, 0, stream>>>(launch, focal);
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
  const std::vector<FocalLossLevel> levels = read_levels(logits, labels, weights, alpha, gamma);
  check_per_anchor(grad, labels, loss_type(logits), "gradients");
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const cudaStream_t stream = current_stream(labels);
  std::vector<Tensor> gradients = empty_gradients(logits);
  std::vector<Task> tasks = read_tasks(levels, grad);
  for (size_t index = 0; index < tasks.size(); ++index) {
    tasks[index].gradient = per_class(gradients[index]);
  }
  start_all(tasks, logits[0].element_size(), [&](auto scalar, auto count, const auto& focal, dim3 grid, const Launch& launch) {
    write_gradients<count(), decltype(scalar)><<<grid, THREADS_PER_BLOCK, 0, stream>>>(launch, focal);
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detkit, CUDA, library) {
  library.impl("sigmoid_focal_loss", TORCH_BOX(&focal_loss_cuda));
  library.impl("sigmoid_focal_loss_backward", TORCH_BOX(&focal_loss_backward_cuda));
}

}  // namespace detkit

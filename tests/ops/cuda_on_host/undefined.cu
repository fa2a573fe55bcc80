// What a GPU takes without a word, and the host must refuse: detkit_on_host::misbehave().
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <cstdio>

#include "cuda_launch.h"
#include "gpu_vector.h"

namespace {

using torch::stable::Tensor;

enum How : int32_t {
  NOT_AT_ALL,
  READS_BEYOND,
  WRITES_BEFORE,
  IS_NOT_ALIGNED,
  OVERFLOWS,
  RETURNS_EARLY,
  GOES_TWO_WAYS,
  ASKS_HALF_A_WARP,
  HAS_TOO_MANY_BLOCKS,
  READS_ANOTHER_LIBRARY,
};

// Adds 1 to each number, of which there are as many as threads.
__global__ void add_one(float* numbers, int32_t count, How how) {
  const auto index = static_cast<int32_t>(blockIdx.x * detkit::THREADS_PER_BLOCK + threadIdx.x);
  const bool last = index == count - 1;
  float added = 1;
  if (how == READS_BEYOND) {
    added = numbers[index + 1] - index;
  } else if (how == READS_ANOTHER_LIBRARY) {
    added = *reinterpret_cast<const float*>(stderr);
  } else if (how == WRITES_BEFORE) {
    numbers[index - 1] = 7;
  } else if (how == IS_NOT_ALIGNED && last) {
    detkit::Vector<float, 4> vector;
    vector.load(numbers + 1);
  } else if (how == OVERFLOWS) {
    added = static_cast<float>((index + 1) * (INT32_MAX / count + 1) > 0);
  } else if (how == RETURNS_EARLY && last) {
    return;
  }
  if (how == GOES_TWO_WAYS && index % 2 == 0) {
    added += static_cast<float>(__any_sync(detkit::ALL_LANES, added != 1));
  } else {
    added += static_cast<float>(__any_sync(how == ASKS_HALF_A_WARP ? 0xffff : detkit::ALL_LANES, added != 1));
  }
  numbers[index] += added;
}

void misbehave(Tensor numbers, int64_t how) {
  const torch::stable::accelerator::DeviceGuard guard(numbers.get_device_index());
  const cudaStream_t stream = detkit::current_stream(numbers);
  auto* data = static_cast<float*>(numbers.data_ptr());
  const auto count = static_cast<int32_t>(numbers.numel());
  const dim3 grid(count / detkit::THREADS_PER_BLOCK, how == HAS_TOO_MANY_BLOCKS ? 65536 : 1);
  add_one<<<grid, detkit::THREADS_PER_BLOCK, 0, stream>>>(data, count, static_cast<How>(how));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(detkit_on_host, library) {
  library.def("misbehave(Tensor numbers, int how) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(detkit_on_host, CPU, library) {
  library.impl("misbehave", TORCH_BOX(&misbehave));
}

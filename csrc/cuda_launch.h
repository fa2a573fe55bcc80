// What every CUDA launch needs: the current stream, and the shape of blocks.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>

namespace detkit {

constexpr int THREADS_PER_BLOCK = 256;
constexpr int THREADS_PER_WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;

// The stream that torch uses at present on the tensor's device.
inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// The same pointer, which the compiler computes once and keeps: it would compute addresses anew for every access.
template <typename T>
__device__ T* computed_once(T* pointer) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(pointer));
  __builtin_assume(__isGlobal(pointer));
#endif
  return pointer;
}

// How many parts of a size cover a whole.
inline int64_t parts(int64_t whole, int64_t size) {
  return (whole + size - 1) / size;
}

}  // namespace detkit

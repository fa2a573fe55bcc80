// What every CUDA launch needs: the current stream, and a grid that fits.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

namespace detkit {

constexpr int THREADS_PER_BLOCK = 256;
constexpr int THREADS_PER_WARP = 32;
constexpr int64_t MOST_BLOCKS = 1 << 20;

// The stream that torch uses at present on the tensor's device.
inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Blocks for so many threads; kernels stride over what is left.
inline unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(
      std::min(MOST_BLOCKS, (threads + THREADS_PER_BLOCK - 1) / THREADS_PER_BLOCK));
}

}  // namespace detkit

// Stands in for CUDA's header of this name, so that g++ compiles the CUDA sources and tests run them without a GPU. Has
// as much of CUDA as csrc uses, save what is not C++ (host_kernels.py rewrites that); warps.cpp says how kernels run.
#pragma once

// These must not meet __CUDACC__, which has them ask for CUDA's other headers.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <source_location>
#include <type_traits>

#define __CUDACC__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(threads)

using cudaStream_t = struct CUstream_st*;
using cudaError_t = int;

// run_on_host() throws instead.
inline cudaError_t cudaGetLastError() {
  return 0;
}

struct dim3 {
  uint32_t x, y, z;

  constexpr dim3(uint32_t x, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};

struct alignas(8) uint2 {
  uint32_t x, y;
};

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

extern dim3 threadIdx, blockIdx, gridDim;

namespace on_host {

constexpr int LANES = 32;
using Offers = std::array<uint64_t, LANES>;

// Waits until all lanes of the warp are at this place, and returns what each of them has offered.
const Offers& meet(uint32_t mask, uint64_t offer, const std::source_location& place);

// The lane of the running thread.
int lane();

struct Memory {
  const void* data;
  size_t size;
};

// One thread's call of a kernel. Not a std::function, whose code the compiler's checks would be in.
struct Call {
  void (*function)(const void*);
  const void* argument;
};

// Makes the call for every thread of a grid.
void run(
    dim3 grid,
    dim3 block,
    size_t shared_memory,
    cudaStream_t stream,
    const Call& call,
    std::initializer_list<Memory> arguments);

}  // namespace on_host

// Stands for kernel<<<grid, block, shared_memory, stream>>>(arguments...).
template <typename Kernel, typename... Arguments>
void run_on_host(
    dim3 grid,
    dim3 block,
    size_t shared_memory,
    cudaStream_t stream,
    const Kernel& kernel,
    const Arguments&... arguments) {
  const auto thread = [&] { kernel(arguments...); };
  const auto run_thread = [](const void* thread_of_kernel) {
    (*static_cast<decltype(&thread)>(thread_of_kernel))();
  };
  on_host::run(
      grid, block, shared_memory, stream, {run_thread, &thread},
      {{&thread, sizeof(thread)}, {&arguments, sizeof(arguments)}...});
}

using Place = std::source_location;

inline uint32_t __ballot_sync(uint32_t mask, bool predicate, Place place = Place::current()) {
  const on_host::Offers& offers = on_host::meet(mask, predicate, place);
  uint32_t ballot = 0;
  for (int lane = 0; lane < on_host::LANES; ++lane) {
    ballot |= static_cast<uint32_t>(offers[lane]) << lane;
  }
  return ballot;
}

inline bool __any_sync(uint32_t mask, bool predicate, Place place = Place::current()) {
  return __ballot_sync(mask, predicate, place) != 0;
}

inline bool __all_sync(uint32_t mask, bool predicate, Place place = Place::current()) {
  return __ballot_sync(mask, predicate, place) == mask;
}

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int distance, Place place = Place::current()) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  const on_host::Offers& offers = on_host::meet(mask, std::bit_cast<Bits>(value), place);
  return std::bit_cast<T>(static_cast<Bits>(offers[on_host::lane() ^ distance]));
}

inline int __reduce_max_sync(uint32_t mask, int value, Place place = Place::current()) {
  int most = value;
  for (const uint64_t offer : on_host::meet(mask, static_cast<uint32_t>(value), place)) {
    most = std::max(most, static_cast<int>(static_cast<uint32_t>(offer)));
  }
  return most;
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}

template <typename T>
T __ldcg(const T* from) {
  return *from;
}

inline int atomicMax(int* at, int value) {
  const int before = *at;
  *at = std::max(before, value);
  return before;
}

inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}

inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}

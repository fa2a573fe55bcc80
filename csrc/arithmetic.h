// The operations that formulas are written in, here for single numbers; pack.h has the same for packs of them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace detkit {
inline namespace CPU_LEVEL {

constexpr float LOG2_E = 1.44269504f;  // exp(x) is 2 to the power of this times x

template <typename T>
HOST_DEVICE inline T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}

// The greater and the lesser one. Where either is NaN, b; on a GPU the other one, which is one instruction.
HOST_DEVICE inline float greater(float a, float b) {
#ifdef __CUDA_ARCH__
  return fmaxf(a, b);
#else
  return a > b ? a : b;
#endif
}

HOST_DEVICE inline double greater(double a, double b) {
  return a > b ? a : b;
}

HOST_DEVICE inline float lesser(float a, float b) {
#ifdef __CUDA_ARCH__
  return fminf(a, b);
#else
  return a < b ? a : b;
#endif
}

// a * b + c, in one rounding where the processor has that. Nothing else is contracted.
HOST_DEVICE inline float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

HOST_DEVICE inline double multiply_add(double a, double b, double c) {
  return a * b + c;
}

// -|x|
template <typename T>
HOST_DEVICE inline T negative_magnitude(T x) {
  return -std::fabs(x);
}

// x times 2^n for the n that the last bits of `exponent` hold; the result must be a normal number. NaN stays NaN.
HOST_DEVICE inline float scale_by_power_of_two(float x, float exponent) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) + (std::bit_cast<uint32_t>(exponent) << 23));
}

}  // namespace CPU_LEVEL
}  // namespace detkit

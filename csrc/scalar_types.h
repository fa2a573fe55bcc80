// bfloat16 and IEEE half precision as bits, with conversions made of integer operations that compilers vectorise on
// every instruction set, and on a GPU of its own. Both round to nearest, ties to even.
#pragma once

#include <bit>
#include <cstdint>

#include "host_device.h"

namespace detkit {
inline namespace CPU_LEVEL {

struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

// The type of the arithmetic: float, and double for double.
template <typename Scalar>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};
template <typename Scalar>
using arithmetic_t = typename Arithmetic<Scalar>::type;

HOST_DEVICE inline double widen(double value) {
  return value;
}

HOST_DEVICE inline float widen(float value) {
  return value;
}

HOST_DEVICE inline float widen(BFloat16 value) {
  return std::bit_cast<float>(uint32_t(value.bits) << 16);
}

HOST_DEVICE inline float widen(Half value) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  // A half's exponent and fraction, moved to a float's places, are 2^112 times too small, subnormals too.
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  const float finite = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = magnitude | 0x7f800000;  // infinity or NaN
  const uint32_t bits = magnitude >= 0x0f800000 ? special : std::bit_cast<uint32_t>(finite);
  return std::bit_cast<float>(bits | uint32_t(value.bits & 0x8000) << 16);
#endif
}

HOST_DEVICE inline void narrow(double value, double& result) {
  result = value;
}

HOST_DEVICE inline void narrow(float value, float& result) {
  result = value;
}

HOST_DEVICE inline void narrow(float value, BFloat16& result) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  result.bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
#endif
}

HOST_DEVICE inline void narrow(float value, Half& result) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  // Normal results: drop 13 bits of the fraction, rounded, and 112 of the exponent. Subnormal results: adding 0.5
  // leaves the fraction at the bottom of the sum, rounded by the addition itself.
  const uint32_t normal = (magnitude - 0x38000000 + 0x0fff + (magnitude >> 13 & 1)) >> 13;
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  const uint32_t large = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  result.bits = static_cast<uint16_t>((magnitude >= 0x47800000 ? large : finite) | (bits >> 16 & 0x8000));
#endif
}

}  // namespace CPU_LEVEL
}  // namespace detkit

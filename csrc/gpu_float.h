// A float as a GPU computes with it where the last bit does not matter: an exponential and a quotient in one or two
// instructions. The formulas are templates and take it for a number, as they take a pack of floats on a CPU (pack.h).
#pragma once

#include <cmath>

#include "arithmetic.h"

namespace detkit {
inline namespace CPU_LEVEL {

// 2^x; 0 where it would be below the normal numbers. The relative error is below 2e-7.
HOST_DEVICE inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}

// 1 / x of a normal number; the relative error is below 2e-7.
HOST_DEVICE inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}

struct GpuFloat {
  float value;

  GpuFloat() = default;
  HOST_DEVICE GpuFloat(float value) : value(value) {}

  friend HOST_DEVICE GpuFloat operator+(GpuFloat a, GpuFloat b) {
    return a.value + b.value;
  }
  friend HOST_DEVICE GpuFloat operator-(GpuFloat a, GpuFloat b) {
    return a.value - b.value;
  }
  friend HOST_DEVICE GpuFloat operator*(GpuFloat a, GpuFloat b) {
    return a.value * b.value;
  }
  friend HOST_DEVICE GpuFloat operator/(GpuFloat a, GpuFloat b) {
    return a.value * reciprocal(b.value);
  }
  friend HOST_DEVICE GpuFloat operator-(GpuFloat a) {
    return -a.value;
  }
  friend HOST_DEVICE bool operator<(GpuFloat a, GpuFloat b) {
    return a.value < b.value;
  }
};

HOST_DEVICE inline GpuFloat greater(GpuFloat a, GpuFloat b) {
  return greater(a.value, b.value);
}

HOST_DEVICE inline GpuFloat multiply_add(GpuFloat a, GpuFloat b, GpuFloat c) {
  return multiply_add(a.value, b.value, c.value);
}

HOST_DEVICE inline GpuFloat negative_magnitude(GpuFloat x) {
  return negative_magnitude(x.value);
}

// c[0] + c[1] x + ... by Horner's scheme, which is the shortest: while one warp waits for a result, others work.
template <int COUNT>
HOST_DEVICE inline GpuFloat horner(GpuFloat x, const float (&c)[COUNT]) {
  GpuFloat sum = c[COUNT - 1];
  for (int power = COUNT - 2; power >= 0; --power) {
    sum = multiply_add(sum, x, c[power]);
  }
  return sum;
}

HOST_DEVICE inline GpuFloat polynomial(GpuFloat x, const float (&c)[6]) {
  return horner(x, c);
}

// Its relative error is below 3e-7, and 1e-7 more for each unit of |x|.
HOST_DEVICE inline GpuFloat exp_nonpositive(GpuFloat x) {
  return power_of_two(LOG2_E * x.value);
}

// log(1 + x) for 0 <= x <= 1, relative error below 1.5e-6 however small x is: x times a minimax polynomial.
HOST_DEVICE inline GpuFloat log1p_unit(GpuFloat x) {
  return x *
      horner(
             x,
             {0.999998748f, -0.499869645f, 0.331094503f, -0.235038608f, 0.149223879f, -0.066401802f, 0.0141410241f});
}

}  // namespace CPU_LEVEL
}  // namespace detkit

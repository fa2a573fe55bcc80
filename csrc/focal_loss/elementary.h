// The exponential and the logarithm that the focal loss needs, each on the one interval where it needs them, for
// double, float and packs of floats.
#pragma once

#include <cmath>

#include "../arithmetic.h"

namespace detkit {
inline namespace CPU_LEVEL {

// c[0] + c[1] x + c[2] x^2 + ... By Estrin's scheme: what limits the loops is how long one result waits for another.
// All polynomials here are minimax in relative error.
template <typename T>
HOST_DEVICE inline T polynomial(T x, const float (&c)[6]) {
  const T x2 = x * x;
  const T first = multiply_add(x, T(c[1]), T(c[0]));
  const T second = multiply_add(x, T(c[3]), T(c[2]));
  const T third = multiply_add(x, T(c[5]), T(c[4]));
  return multiply_add(x2 * x2, third, multiply_add(x2, second, first));
}

template <typename T>
HOST_DEVICE inline T polynomial(T x, const float (&c)[4]) {
  const T first = multiply_add(x, T(c[1]), T(c[0]));
  return multiply_add(x * x, multiply_add(x, T(c[3]), T(c[2])), first);
}

// exp(x) for x <= 0, as 2^n 2^f with |f| <= 1/2 and a polynomial for 2^f; exp(-87) = 1.6e-38, close to the least normal
// number, where it would be smaller. NaN stays NaN where it is one that arithmetic makes.
template <typename T, int N>
HOST_DEVICE inline T exp_by_polynomial(T x, const float (&coefficients)[N]) {
  const T bounded = greater(T(-87.0f), x);
  const T shift = T(0x1.8p23f);  // a sum with it is rounded to an integer, and leaves that in its last bits
  const T shifted = multiply_add(bounded, T(LOG2_E), shift);
  const T f = multiply_add(bounded, T(LOG2_E), shift - shifted);
  return scale_by_power_of_two(polynomial(f, coefficients), shifted);
}

// Its relative error is below 3e-7, and 2e-8 more for each unit of |x|; without a fused multiply-add below 3.5e-7, and
// 1e-7 more.
template <typename T>
HOST_DEVICE inline T exp_nonpositive(T x) {
  return exp_by_polynomial(
      x, {1.00000007f, 0.693146966f, 0.240221185f, 0.0555071401f, 0.00967560979f, 0.00132763984f});
}

// Its relative error is below 8e-5.
template <typename T>
HOST_DEVICE inline T coarse_exp_nonpositive(T x) {
  return exp_by_polynomial(x, {0.999927905f, 0.693261266f, 0.242613957f, 0.0551712257f});
}

// log(1 + x) for 0 <= x <= 1, relative error below 5e-7 however small x is: x times a polynomial.
template <typename T>
HOST_DEVICE inline T log1p_unit(T x) {
  const T x2 = x * x;
  const T first = multiply_add(x, T(-0.499974053f), T(0.999999806f));
  const T second = multiply_add(x, T(-0.244954498f), T(0.332754776f));
  const T third = multiply_add(x, T(-0.107681171f), T(0.177452044f));
  const T fourth = multiply_add(x, T(-0.00853909647f), T(0.0440892386f));
  return x * multiply_add(x2 * x2, multiply_add(x2, fourth, third), multiply_add(x2, second, first));
}

HOST_DEVICE inline double exp_nonpositive(double x) {
  return std::exp(x);
}

HOST_DEVICE inline double log1p_unit(double x) {
  return std::log1p(x);
}

}  // namespace CPU_LEVEL
}  // namespace detkit

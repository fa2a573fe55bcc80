// As many floats as one register of the instruction set holds, with the operations of arithmetic.h. The formulas are
// templates and take it for a number: what they say of one logit then happens to 4, 8 or 16. Compilers left to
// vectorise the loops by themselves do so for some instruction sets and formulas and not for others.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "scalar_types.h"

namespace detkit {
inline namespace CPU_LEVEL {

struct Pack {
#if defined(__AVX512F__)
  static constexpr int64_t size = 16;
#elif defined(__AVX__)
  static constexpr int64_t size = 8;
#else
  static constexpr int64_t size = 4;
#endif
  typedef float Floats __attribute__((vector_size(4 * size)));
  typedef int32_t Bits __attribute__((vector_size(4 * size)));  // as a mask, all bits of a number or none
  typedef uint32_t Unsigned __attribute__((vector_size(4 * size)));
  typedef uint16_t Shorts __attribute__((vector_size(2 * size)));
  typedef uint16_t Words __attribute__((vector_size(4 * size)));  // twice as many

  Floats floats;

  Pack() = default;
  Pack(Floats floats) : floats(floats) {}
  Pack(float value) : floats(value - Floats{}) {}  // to all lanes; unlike a sum with 0, this keeps -0

  friend Pack operator+(Pack a, Pack b) {
    return a.floats + b.floats;
  }
  friend Pack operator-(Pack a, Pack b) {
    return a.floats - b.floats;
  }
  friend Pack operator*(Pack a, Pack b) {
    return a.floats * b.floats;
  }
  friend Pack operator/(Pack a, Pack b) {
    return a.floats / b.floats;
  }
  friend Pack operator-(Pack a) {
    return -a.floats;
  }
  friend Bits operator<(Pack a, Pack b) {
    return a.floats < b.floats;
  }
  friend Bits operator>(Pack a, Pack b) {
    return a.floats > b.floats;
  }
  friend Bits operator>=(Pack a, Pack b) {
    return a.floats >= b.floats;
  }
  friend Bits operator!=(Pack a, Pack b) {
    return a.floats != b.floats;
  }
};

inline Pack select(Pack::Bits mask, Pack yes, Pack no) {
  return mask ? yes.floats : no.floats;
}

// One bit for each lane.
inline uint32_t mask_bits(Pack::Bits mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
#else
  uint32_t bits = 0;
  for (int64_t lane = 0; lane < Pack::size; ++lane) {
    bits |= uint32_t(mask[lane] & 1) << lane;
  }
  return bits;
#endif
}

// Whether it holds for all lanes.
inline bool all(Pack::Bits mask) {
  return mask_bits(mask) == (1u << Pack::size) - 1;
}

inline bool all(bool condition) {
  return condition;
}

// Whether it holds for any.
inline bool any(Pack::Bits mask) {
  return mask_bits(mask) != 0;
}

inline bool any(bool condition) {
  return condition;
}

inline Pack multiply_add(Pack a, Pack b, Pack c) {
#if defined(__AVX512F__)
  return Pack::Floats(_mm512_fmadd_ps(a.floats, b.floats, c.floats));
#elif defined(__FMA__)
  return Pack::Floats(_mm256_fmadd_ps(a.floats, b.floats, c.floats));
#else
  return a * b + c;
#endif
}

inline Pack greater(Pack a, Pack b) {
#if defined(__AVX512F__)
  return Pack::Floats(_mm512_max_ps(a.floats, b.floats));
#elif defined(__AVX__)
  return Pack::Floats(_mm256_max_ps(a.floats, b.floats));
#else
  return a.floats > b.floats ? a.floats : b.floats;
#endif
}

inline Pack lesser(Pack a, Pack b) {
#if defined(__AVX512F__)
  return Pack::Floats(_mm512_min_ps(a.floats, b.floats));
#elif defined(__AVX__)
  return Pack::Floats(_mm256_min_ps(a.floats, b.floats));
#else
  return a.floats < b.floats ? a.floats : b.floats;
#endif
}

inline Pack negative_magnitude(Pack x) {
  return Pack::Floats(Pack::Bits(x.floats) | INT32_MIN);
}

inline Pack scale_by_power_of_two(Pack x, Pack exponent) {
  return Pack::Floats(Pack::Unsigned(x.floats) + (Pack::Unsigned(exponent.floats) << 23));
}

// What a loop over numbers in memory takes at a time: a pack of floats, or one double; with the types of as many
// integers and of a mask.
template <typename T>
struct Lanes;

template <>
struct Lanes<float> {
  using type = Pack;
  using Integers = Pack::Bits;
  using Mask = Pack::Bits;
  static constexpr int64_t count = Pack::size;
};

template <>
struct Lanes<double> {
  using type = double;
  using Integers = int32_t;
  using Mask = bool;
  static constexpr int64_t count = 1;
};

// As many numbers as there are lanes, of any scalar type.
inline Pack load_lanes(const float* values) {
  Pack::Floats floats;
  std::memcpy(&floats, values, sizeof(floats));
  return floats;
}

inline double load_lanes(const double* values) {
  return *values;
}

inline Pack load_lanes(const BFloat16* values) {
  Pack::Shorts shorts;
  std::memcpy(&shorts, values, sizeof(shorts));
  return Pack::Floats(__builtin_convertvector(shorts, Pack::Unsigned) << 16);
}

inline Pack load_lanes(const Half* values) {
#if defined(__AVX512F__)
  return Pack::Floats(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values))));
#elif defined(__F16C__)
  return Pack::Floats(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values))));
#else
  float floats[Pack::size];
  for (int64_t lane = 0; lane < Pack::size; ++lane) {
    floats[lane] = widen(values[lane]);
  }
  return load_lanes(floats);
#endif
}

inline void store_lanes(Pack pack, float* values) {
  std::memcpy(values, &pack.floats, sizeof(pack.floats));
}

inline void store_lanes(double value, double* values) {
  *values = value;
}

inline void store_lanes(Pack pack, BFloat16* values) {
  const Pack::Unsigned bits = Pack::Unsigned(pack.floats);
  const Pack::Unsigned rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
  const Pack::Unsigned words = pack.floats != pack.floats ? Pack::Unsigned{} + 0x7fc0 : rounded;
  const Pack::Shorts shorts = __builtin_convertvector(words, Pack::Shorts);
  std::memcpy(values, &shorts, sizeof(shorts));
}

inline void store_lanes(Pack pack, Half* values) {
#if defined(__AVX512F__)
  const __m256i halves = _mm512_cvtps_ph(pack.floats, _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(values), halves);
#elif defined(__F16C__)
  const __m128i halves = _mm256_cvtps_ph(pack.floats, _MM_FROUND_TO_NEAREST_INT);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(values), halves);
#else
  float floats[Pack::size];
  store_lanes(pack, floats);
  for (int64_t lane = 0; lane < Pack::size; ++lane) {
    narrow(floats[lane], values[lane]);
  }
#endif
}

inline float greatest_lane(Pack pack) {
  float floats[Pack::size];
  store_lanes(pack, floats);
  float greatest = floats[0];
  for (int64_t lane = 1; lane < Pack::size; ++lane) {
    greatest = floats[lane] > greatest ? floats[lane] : greatest;
  }
  return greatest;
}

// Two packs of neighbouring numbers, every other one of them: so BFloat16 becomes float and back in place. A word holds
// an even one in its lower half, for it comes first in memory.
static_assert(std::endian::native == std::endian::little);

struct PackPair {
  Pack even;
  Pack odd;
};

inline PackPair load_pair(const BFloat16* values) {
  Pack::Unsigned words;
  std::memcpy(&words, values, sizeof(words));
  return {Pack::Floats(words << 16), Pack::Floats(words & 0xffff0000)};
}

// Rounds to nearest, ties away from zero: that takes one addition, and no NaN that arithmetic makes or that was widened
// from a BFloat16 overflows by it.
inline void store_pair(PackPair pair, BFloat16* values) {
  const Pack::Unsigned even = Pack::Unsigned(pair.even.floats);
  const Pack::Unsigned odd = Pack::Unsigned(pair.odd.floats);
  const Pack::Unsigned words = ((even + 0x8000) >> 16) | ((odd + 0x8000) & 0xffff0000);
  std::memcpy(values, &words, sizeof(words));
}

// The sum of all lanes, always added in the same order.
inline float sum_lanes(Pack pack) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(pack.floats);
#else
  float floats[Pack::size];
  store_lanes(pack, floats);
  for (int64_t half = Pack::size / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) {
      floats[lane] += floats[lane + half];
    }
  }
  return floats[0];
#endif
}

inline double sum_lanes(double value) {
  return value;
}

// The last `count` lanes; 0 in the others.
inline Pack last_lanes(Pack pack, int64_t count) {
  Pack::Bits lane;
  for (int64_t index = 0; index < Pack::size; ++index) {
    lane[index] = static_cast<int32_t>(index);
  }
  return select(lane >= static_cast<int32_t>(Pack::size - count), pack, Pack(0.0f));
}

inline double last_lanes(double value, int64_t) {
  return value;
}

}  // namespace CPU_LEVEL
}  // namespace detkit

// Numbers that lie side by side, moved by a GPU as one: up to 16 bytes in one instruction. Those of two bytes are
// handled in pairs, as the GPU's conversions take them.
#pragma once

#include <cstring>
#include <type_traits>

#include "scalar_types.h"

namespace detkit {
inline namespace CPU_LEVEL {

#ifdef __CUDACC__
// What so many bytes are loaded and stored as.
template <int BYTES>
struct BitsOf;
template <>
struct BitsOf<2> {
  using type = uint16_t;
};
template <>
struct BitsOf<4> {
  using type = uint32_t;
};
template <>
struct BitsOf<8> {
  using type = uint2;
};
template <>
struct BitsOf<16> {
  using type = uint4;
};
#endif

// Two numbers in 32 bits, the first in the lower half.
template <typename Scalar>
struct Pair {
  uint32_t bits;

  HOST_DEVICE float first() const {
    if constexpr (std::is_same_v<Scalar, BFloat16>) {
      return std::bit_cast<float>(bits << 16);
    } else {
      return widen(Scalar{static_cast<uint16_t>(bits)});
    }
  }

  HOST_DEVICE float second() const {
    if constexpr (std::is_same_v<Scalar, BFloat16>) {
      return std::bit_cast<float>(bits & 0xffff0000);
    } else {
      return widen(Scalar{static_cast<uint16_t>(bits >> 16)});
    }
  }

  HOST_DEVICE void assign(float first, float second) {
#ifdef __CUDA_ARCH__
    if constexpr (std::is_same_v<Scalar, BFloat16>) {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    } else {
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    }
#else
    Scalar low, high;
    narrow(first, low);
    narrow(second, high);
    bits = low.bits | uint32_t(high.bits) << 16;
#endif
  }
};

template <typename Scalar, int COUNT>
struct alignas(sizeof(Scalar) * COUNT) Vector {
  using T = arithmetic_t<Scalar>;
  static constexpr bool IN_PAIRS = sizeof(Scalar) == 2 && COUNT > 1;
  using Word = std::conditional_t<IN_PAIRS, Pair<Scalar>, Scalar>;
  static constexpr int WORDS = IN_PAIRS ? COUNT / 2 : COUNT;

  Word words[WORDS];

#ifdef __CUDACC__
  using Bits = typename BitsOf<sizeof(Scalar) * COUNT>::type;

  // From memory that no kernel writes meanwhile.
  __device__ void load(const Scalar* from) {
    const Bits bits = __ldg(reinterpret_cast<const Bits*>(from));
    memcpy(words, &bits, sizeof(bits));
  }

  __device__ void store(Scalar* to) const {
    Bits bits;
    memcpy(&bits, words, sizeof(bits));
    *reinterpret_cast<Bits*>(to) = bits;
  }
#endif

  HOST_DEVICE static Vector narrowed(const T (&numbers)[COUNT]) {
    Vector vector;
    for (int i = 0; i < WORDS; ++i) {
      if constexpr (IN_PAIRS) {
        vector.words[i].assign(numbers[2 * i], numbers[2 * i + 1]);
      } else {
        narrow(numbers[i], vector.words[i]);
      }
    }
    return vector;
  }

  HOST_DEVICE void widen_to(T (&numbers)[COUNT]) const {
    for (int i = 0; i < WORDS; ++i) {
      if constexpr (IN_PAIRS) {
        numbers[2 * i] = words[i].first();
        numbers[2 * i + 1] = words[i].second();
      } else {
        numbers[i] = widen(words[i]);
      }
    }
  }
};

}  // namespace CPU_LEVEL
}  // namespace detkit

// The focal loss of one logit and its derivative (Lin et al., "Focal Loss for Dense Object Detection", 2017).
#pragma once

#include <cmath>

#include "../host_device.h"

namespace detkit {

// (1 - p_t)^gamma; two values of gamma need no power.
struct GammaZero {
  template <typename T>
  HOST_DEVICE T modulate(T) const {
    return T(1);
  }
  static constexpr int value = 0;
};

struct GammaTwo {
  template <typename T>
  HOST_DEVICE T modulate(T miss) const {
    return miss * miss;
  }
  static constexpr int value = 2;
};

template <typename T>
struct GammaAny {
  HOST_DEVICE T modulate(T miss) const {
    return std::pow(miss, value);
  }
  T value;
};

// What a logit says of the truth: p_t, 1 - p_t and -log(p_t).
template <typename T>
struct Belief {
  T probability;
  T miss;
  T cross_entropy;
};

// The belief of a logit that is positive where it is right. The exponential never overflows, and neither p_t
// nor 1 - p_t is found by a subtraction, which would lose the digits of the smaller one.
template <typename T>
HOST_DEVICE inline Belief<T> belief(T toward_truth) {
  const T decay = std::exp(-std::fabs(toward_truth));
  const T larger = T(1) / (T(1) + decay);
  const T smaller = decay * larger;
  const bool right = toward_truth >= T(0);
  return {
      right ? larger : smaller,
      right ? smaller : larger,
      (right ? T(0) : -toward_truth) + std::log1p(decay)};
}

// alpha and gamma, in the type of the arithmetic.
template <typename T, typename Gamma>
struct FocalLoss {
  T positive_factor;
  T negative_factor;
  Gamma gamma;

  // Loss of one class of one anchor.
  HOST_DEVICE T loss(T logit, bool positive) const {
    const Belief<T> truth = belief(positive ? logit : -logit);
    return factor(positive) * gamma.modulate(truth.miss) * truth.cross_entropy;
  }

  // Derivative of the loss by the logit. It is written without (1 - p_t)^(gamma - 1), which is infinite where
  // gamma < 1 and p_t is 1.
  HOST_DEVICE T slope(T logit, bool positive) const {
    const Belief<T> truth = belief(positive ? logit : -logit);
    const T slope = factor(positive) * gamma.modulate(truth.miss) *
        (T(gamma.value) * truth.probability * truth.cross_entropy + truth.miss);
    return positive ? -slope : slope;
  }

  HOST_DEVICE T factor(bool positive) const {
    return positive ? positive_factor : negative_factor;
  }
};

}  // namespace detkit

// The focal loss of one logit and its derivative (Lin et al., "Focal Loss for Dense Object Detection", 2017).
//
// Both are without alpha, and are written for a class that is not the anchor's, with p = sigmoid(logit) the probability
// wrongly given to it: loss p^gamma * -log(1 - p). A positive is the same with the logit negated: 1 - p(x) = p(-x).
//
// Nearly everything a detector sees is background that it knows for such. There d = exp(logit) is small, and loss and
// slope are short polynomials of it, with neither quotient nor logarithm.
#pragma once

#include <type_traits>

#include "../host_device.h"
#include "elementary.h"

namespace detkit {
inline namespace CPU_LEVEL {

// Below it a negative is easy, p < .12, and the polynomials hold.
constexpr float EASY_LOGIT = -2.0f;

// Each gamma: power is p^gamma, easy_loss and easy_slope are the polynomials of d up to exp(-2), with a relative error
// below 1e-7; that of coarse_slope is below 5e-5.
struct GammaZero {
  static constexpr float value = 0;

  template <typename T>
  HOST_DEVICE T power(T, T, T) const {
    return T(1);
  }

  template <typename T>
  HOST_DEVICE T easy_loss(T d) const {  // log(1 + d)
    return d * polynomial(d, {1.0f, -0.49999984f, 0.333319342f, -0.249549407f, 0.193341327f, -0.119609483f});
  }

  template <typename T>
  HOST_DEVICE T easy_slope(T d) const {  // d / (1 + d)
    return d * polynomial(d, {1.0f, -0.999998914f, 0.999905456f, -0.996959075f, 0.954972705f, -0.67920738f});
  }

  template <typename T>
  HOST_DEVICE T coarse_slope(T d) const {
    return d * polynomial(d, {0.999997975f, -0.999519133f, 0.981828452f, -0.772683285f});
  }
};

struct GammaTwo {
  static constexpr float value = 2;

  template <typename T>
  HOST_DEVICE T power(T p, T, T) const {
    return p * p;
  }

  template <typename T>
  HOST_DEVICE T easy_loss(T d) const {  // d^3 times log(1 + d) / (d (1 + d)^2)
    return d * d * d *
        polynomial(d, {0.999999972f, -2.49998537f, 4.33207989f, -6.37672089f, 8.10984363f, -6.90828575f});
  }

  template <typename T>
  HOST_DEVICE T easy_slope(T d) const {  // d^3 times (2 log(1 + d) / d + 1) / (1 + d)^3
    return d * d * d *
        polynomial(d, {2.99999975f, -9.99987105f, 21.655713f, -38.1523924f, 55.7641361f, -52.0195359f});
  }

  template <typename T>
  HOST_DEVICE T coarse_slope(T d) const {
    return d * d * d * polynomial(d, {2.99987694f, -9.9722321f, 20.637397f, -25.5258456f});
  }
};

// Any other.
template <typename T>
struct GammaAny {
  T value;

  // From log(p) = min(logit, 0) - log(1 + exp(-|logit|)), which is at hand.
  HOST_DEVICE T power(T, T logit, T log1p) const {
    return exp_nonpositive(value * (select(logit < T(0), logit, T(0)) - log1p));
  }
};

// No difference below loses the digits of a small number, the exponential never overflows, and comparisons are put so
// that NaN stays NaN.
template <typename T, typename Gamma>
struct FocalLoss {
  Gamma gamma;

  // Whether easy_loss and easy_slope are there; they are of single precision.
  static constexpr bool has_easy_form =
      !std::is_same_v<T, double> && requires(Gamma gamma, float d) { gamma.easy_loss(d); };

  // negative_loss of logits that are all below EASY_LOGIT.
  HOST_DEVICE T easy_loss(T logit) const {
    return gamma.easy_loss(exp_nonpositive(logit));
  }

  HOST_DEVICE T easy_slope(T logit) const {
    return gamma.easy_slope(exp_nonpositive(logit));
  }

  // easy_slope with a relative error below 5e-4, for a BFloat16, which rounds by four times as much.
  HOST_DEVICE T coarse_slope(T logit) const {
    return gamma.coarse_slope(coarse_exp_nonpositive(logit));
  }

  HOST_DEVICE T negative_loss(T logit) const {
    const auto right = logit < T(0);
    const T decay = exp_nonpositive(negative_magnitude(logit));
    const T log1p = log1p_unit(decay);
    const T p = select(right, decay, T(1)) / (T(1) + decay);
    return gamma.power(p, logit, log1p) * (greater(T(0), logit) + log1p);
  }

  // Written without p^(gamma - 1), which is infinite where gamma < 1 and p is 0.
  HOST_DEVICE T negative_slope(T logit) const {
    const auto right = logit < T(0);
    const T decay = exp_nonpositive(negative_magnitude(logit));
    const T log1p = log1p_unit(decay);
    const T cross_entropy = greater(T(0), logit) + log1p;
    const T larger = T(1) / (T(1) + decay);
    const T smaller = decay * larger;
    const T p = select(right, smaller, larger);
    const T miss = select(right, larger, smaller);
    return gamma.power(p, logit, log1p) * multiply_add(T(gamma.value) * miss, cross_entropy, p);
  }

  HOST_DEVICE T positive_loss(T logit) const {
    return negative_loss(-logit);
  }

  HOST_DEVICE T positive_slope(T logit) const {
    return -negative_slope(-logit);
  }
};

// Calls function(FocalLoss) with the cheapest form of this gamma.
template <typename T, typename Function>
void with_focal_loss(double gamma, const Function& function) {
  if (gamma == 0) {
    function(FocalLoss<T, GammaZero>{});
  } else if (gamma == 2) {
    function(FocalLoss<T, GammaTwo>{});
  } else {
    function(FocalLoss<T, GammaAny<T>>{{T(gamma)}});
  }
}

}  // namespace CPU_LEVEL
}  // namespace detkit

// The focal loss on a CPU where the classes of an anchor lie side by side and fill a register: anchors are taken one by
// one, and a register holds neighbouring classes.
#pragma once

#include <cstring>
#include <type_traits>

#include "../pack.h"
#include "focal_loss.h"
#include "focal_loss_kernels.h"

namespace detkit {
inline namespace CPU_LEVEL {

// Whether every logit of a row is below EASY_LOGIT, so that the short formulas hold. It is asked of whole rows: among
// mixed logits, a branch for each pack would be mispredicted too often.
template <typename Scalar>
bool easy(const Scalar* logits, int64_t classes) {
  Pack::Bits below = Pack::Bits{} - 1;
  int64_t k = 0;
  for (; k + Pack::size <= classes; k += Pack::size) {
    below &= load_lanes(logits + k) < Pack(EASY_LOGIT);
  }
  if (k < classes) {
    below &= load_lanes(logits + classes - Pack::size) < Pack(EASY_LOGIT);
  }
  return all(below);
}

// The same of a row of at least two packs, without widening: the bits of numbers below -2 are those from 0xc001 to
// 0xff80, which are minus infinity's; above are NaN's.
static_assert(EASY_LOGIT == -2.0f);

inline bool easy_words(const BFloat16* logits, int64_t classes) {
  constexpr int64_t count = 2 * Pack::size;
  Pack::Words most{};
  for (int64_t k = 0; k < classes; k += count) {
    Pack::Words words;
    std::memcpy(&words, logits + (k + count <= classes ? k : classes - count), sizeof(words));
    words -= 0xc001;
    most = most > words ? most : words;
  }
  return all(Pack::Bits(most <= 0xff80 - 0xc001) == -1);
}

inline bool easy(const BFloat16* logits, int64_t classes) {
  return classes < 2 * Pack::size ? easy<BFloat16>(logits, classes) : easy_words(logits, classes);
}

// formula of one number, by the same code as of many.
template <typename T, typename Formula>
T of_one(const Formula& formula, T logit) {
  T lanes[Lanes<T>::count];
  store_lanes(formula(typename Lanes<T>::type(logit)), lanes);
  return lanes[0];
}

// The sum of formula(logit) over a row.
template <typename Scalar, typename Formula, typename T = arithmetic_t<Scalar>>
T sum_row(const Scalar* logits, int64_t classes, const Formula& formula) {
  constexpr int64_t lanes = Lanes<T>::count;
  auto total = typename Lanes<T>::type(T(0));
  int64_t k = 0;
  if constexpr (std::is_same_v<Scalar, BFloat16>) {
    for (; k + 2 * lanes <= classes; k += 2 * lanes) {
      const PackPair pair = load_pair(logits + k);
      total = total + (formula(pair.even) + formula(pair.odd));
    }
  }
  for (; k + lanes <= classes; k += lanes) {
    total = total + formula(load_lanes(logits + k));
  }
  if (k < classes) {
    total = total + last_lanes(formula(load_lanes(logits + classes - lanes)), classes - k);
  }
  return sum_lanes(total);
}

// The same without the label's logit.
template <typename Scalar, typename Formula, typename T = arithmetic_t<Scalar>>
T sum_row_without(int64_t label, const Scalar* logits, int64_t classes, const Formula& formula) {
  constexpr int64_t lanes = Lanes<T>::count;
  T total = 0;
  for (int64_t k = 0; k < classes; k += lanes) {
    const int64_t first = k + lanes <= classes ? k : classes - lanes;
    T terms[lanes];
    store_lanes(formula(load_lanes(logits + first)), terms);
    for (int64_t lane = k - first; lane < lanes; ++lane) {
      total += first + lane == label ? T(0) : terms[lane];
    }
  }
  return total;
}

// gradient[k] = scale * formula(logits[k])
template <typename Scalar, typename Formula, typename T>
void scale_row(const Scalar* logits, int64_t classes, T scale, const Formula& formula, Scalar* gradient) {
  constexpr int64_t lanes = Lanes<T>::count;
  const auto factor = typename Lanes<T>::type(scale);
  int64_t k = 0;
  if constexpr (std::is_same_v<Scalar, BFloat16>) {
    for (; k + 2 * lanes <= classes; k += 2 * lanes) {
      const PackPair pair = load_pair(logits + k);
      store_pair({factor * formula(pair.even), factor * formula(pair.odd)}, gradient + k);
    }
  }
  for (; k + lanes <= classes; k += lanes) {
    store_lanes(factor * formula(load_lanes(logits + k)), gradient + k);
  }
  if (k < classes) {
    store_lanes(factor * formula(load_lanes(logits + classes - lanes)), gradient + classes - lanes);
  }
}

inline bool positive(const FocalLossLevel& level, int32_t label) {
  return label >= 0 && label < level.classes;
}

// The loss of a row, without its weight.
template <typename Scalar, typename Focal, typename T = arithmetic_t<Scalar>>
T row_loss(const FocalLossLevel& level, int32_t label, const Scalar* logits, const Focal& focal) {
  const auto negative_loss = [&](auto logit) { return focal.negative_loss(logit); };
  if (positive(level, label)) {
    const auto positive_loss = [&](auto logit) { return focal.positive_loss(logit); };
    return T(level.positive_factor) * of_one(positive_loss, widen(logits[label])) +
        T(level.negative_factor) * sum_row_without(label, logits, level.classes, negative_loss);
  }
  if constexpr (Focal::has_easy_form) {
    if (easy(logits, level.classes)) {
      const auto easy_loss = [&](auto logit) { return focal.easy_loss(logit); };
      return T(level.negative_factor) * sum_row(logits, level.classes, easy_loss);
    }
  }
  return T(level.negative_factor) * sum_row(logits, level.classes, negative_loss);
}

// Writes the gradient of a row's logits, `scale` being the one of its loss without alpha.
template <typename Scalar, typename Focal, typename T = arithmetic_t<Scalar>>
void row_gradient(
    const FocalLossLevel& level, int32_t label, const Scalar* logits, T scale, const Focal& focal, Scalar* gradient) {
  const T negative_scale = scale * T(level.negative_factor);
  if constexpr (Focal::has_easy_form) {
    if (!positive(level, label) && easy(logits, level.classes)) {
      const auto easy_slope = [&](auto logit) {
        if constexpr (std::is_same_v<Scalar, BFloat16>) {
          return focal.coarse_slope(logit);
        } else {
          return focal.easy_slope(logit);
        }
      };
      return scale_row(logits, level.classes, negative_scale, easy_slope, gradient);
    }
  }
  scale_row(
      logits, level.classes, negative_scale, [&](auto logit) { return focal.negative_slope(logit); }, gradient);
  if (positive(level, label)) {
    const T slope = of_one([&](auto logit) { return focal.positive_slope(logit); }, widen(logits[label]));
    narrow(scale * T(level.positive_factor) * slope, gradient[label]);
  }
}

template <typename Scalar, typename Focal>
bool row_losses(const FocalLossLevel& level, AnchorRange range, const PerAnchor& loss, const Focal& focal) {
  using T = arithmetic_t<Scalar>;
  bool all_known = true;
  for (int64_t anchor = range.begin; anchor < range.end; ++anchor) {
    const int32_t label = at<const int32_t>(level.labels, range.image, anchor);
    const T weight = anchor_weight<T>(level, label, range.image, anchor);
    const bool known = known_label(label, level.classes);
    T result = known ? T(0) : T(__builtin_nan(""));
    if (known && weight != T(0)) {
      result = weight * row_loss(level, label, row<const Scalar>(level.logits, range.image, anchor), focal);
    }
    at<T>(loss, range.image, anchor) = result;
    all_known &= known;
  }
  return all_known;
}

template <typename Scalar, typename Focal>
void row_gradients(
    const FocalLossLevel& level, AnchorRange range, const PerAnchor& grad, const PerClass& gradient,
    const Focal& focal) {
  using T = arithmetic_t<Scalar>;
  for (int64_t anchor = range.begin; anchor < range.end; ++anchor) {
    const int32_t label = at<const int32_t>(level.labels, range.image, anchor);
    const T weight = anchor_weight<T>(level, label, range.image, anchor);
    Scalar* to = row<Scalar>(gradient, range.image, anchor);
    if (weight == T(0)) {
      for (int64_t k = 0; k < level.classes; ++k) {
        to[k] = Scalar{};
      }
    } else {
      const T scale = weight * at<const T>(grad, range.image, anchor);
      row_gradient(level, label, row<const Scalar>(level.logits, range.image, anchor), scale, focal, to);
    }
  }
}

}  // namespace CPU_LEVEL
}  // namespace detkit

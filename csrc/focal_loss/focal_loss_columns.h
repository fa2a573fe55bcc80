// The focal loss on a CPU where classes are few or lie apart: a register holds one class's logits of neighbouring
// anchors.
#pragma once

#include <cstring>

#include "../pack.h"
#include "focal_loss.h"
#include "focal_loss_kernels.h"

namespace detkit {
inline namespace CPU_LEVEL {

// Neighbouring anchors, one to a lane. The lanes beyond the last anchor do not count.
template <typename Scalar>
struct AnchorPack {
  using T = arithmetic_t<Scalar>;
  using Numbers = typename Lanes<T>::type;
  static constexpr int64_t LANES = Lanes<T>::count;

  const FocalLossLevel& level;
  int64_t image;
  int64_t first;
  int64_t count;
  typename Lanes<T>::Integers labels;
  Numbers weights = T(1);
  typename Lanes<T>::Mask counts;

  AnchorPack(const FocalLossLevel& level, AnchorRange range, int64_t first)
      : level(level),
        image(range.image),
        first(first),
        count(first + LANES <= range.end ? LANES : range.end - first) {
    int32_t copy[LANES];
    std::memcpy(&labels, side_by_side(level.labels, IGNORE, copy), sizeof(labels));
    if (level.weights.data) {
      weights = load(level.weights);
    }
    counts = (labels != IGNORE) & (weights != Numbers(T(0)));
    weights = select(counts, weights, Numbers(T(0)));
  }

  // Whether numbers of this stride from anchor to anchor lie as the lanes do, and there is one for each.
  bool fills_lanes(int64_t anchor_stride) const {
    return anchor_stride == 1 && count == LANES;
  }

  // Where the anchors' numbers lie in lanes: where they are, or a copy with `rest` in the lanes beyond the last anchor.
  template <typename Number>
  const Number* side_by_side(const PerAnchor& values, Number rest, Number* copy) const {
    if (fills_lanes(values.anchor_stride)) {
      return &at<const Number>(values, image, first);
    }
    for (int64_t lane = 0; lane < LANES; ++lane) {
      copy[lane] = lane < count ? at<const Number>(values, image, first + lane) : rest;
    }
    return copy;
  }

  Numbers load(const PerAnchor& values) const {
    T copy[LANES];
    return load_lanes(side_by_side(values, T(0), copy));
  }

  void store(Numbers numbers, const PerAnchor& values) const {
    if (fills_lanes(values.anchor_stride)) {
      return store_lanes(numbers, &at<T>(values, image, first));
    }
    T copy[LANES];
    store_lanes(numbers, copy);
    for (int64_t lane = 0; lane < count; ++lane) {
      at<T>(values, image, first + lane) = copy[lane];
    }
  }

  // A positive's logit of class k is negated, which makes it a negative's; those that do not count are 0.
  Numbers as_negatives(const Scalar* logits, int64_t k) const {
    const Numbers values = load_lanes(logits);
    return select(counts, of_label(k, -values, values), Numbers(T(0)));
  }

  // `positive` in the lanes whose label is k, `negative` in the others.
  Numbers of_label(int64_t k, Numbers positive, Numbers negative) const {
    return select(labels == static_cast<int32_t>(k), positive, negative);
  }
};

// A few classes of an AnchorPack, lane beside lane: in place where the anchors are neighbours in memory, else a copy.
template <typename Scalar>
struct Columns {
  static constexpr int64_t LANES = AnchorPack<Scalar>::LANES;
  static constexpr int64_t CLASSES = 16;

  const AnchorPack<Scalar>& anchors;
  const PerClass& values;
  int64_t begin;
  int64_t end;
  bool in_place;
  Scalar copy[CLASSES * LANES];

  Columns(const AnchorPack<Scalar>& anchors, const PerClass& values, int64_t begin)
      : anchors(anchors),
        values(values),
        begin(begin),
        end(begin + CLASSES < anchors.level.classes ? begin + CLASSES : anchors.level.classes),
        in_place(anchors.fills_lanes(values.anchor_stride)) {}

  // The first anchor's number of class k.
  Scalar* first_of_class(int64_t k) const {
    return row<Scalar>(values, anchors.image, anchors.first) + k * values.class_stride;
  }

  // Where the lanes of class k are.
  Scalar* of_class(int64_t k) {
    return in_place ? first_of_class(k) : copy + (k - begin) * LANES;
  }

  // Calls function(place, copy) for each number that has a copy.
  template <typename Function>
  void for_each_copy(const Function& function) {
    for (int64_t k = begin; k < end && !in_place; ++k) {
      Scalar* first = first_of_class(k);
      for (int64_t lane = 0; lane < anchors.count; ++lane) {
        function(first[lane * values.anchor_stride], of_class(k)[lane]);
      }
    }
  }

  void read() {
    if (anchors.count < LANES) {
      std::memset(copy, 0, sizeof(copy));
    }
    for_each_copy([](const Scalar& place, Scalar& copy) { copy = place; });
  }

  void write() {
    for_each_copy([](Scalar& place, const Scalar& copy) { place = copy; });
  }
};

template <typename Scalar, typename Focal>
bool column_losses(const FocalLossLevel& level, AnchorRange range, const PerAnchor& loss, const Focal& focal) {
  using T = arithmetic_t<Scalar>;
  using Numbers = typename Lanes<T>::type;
  bool all_known = true;
  for (int64_t first = range.begin; first < range.end; first += Lanes<T>::count) {
    const AnchorPack<Scalar> anchors(level, range, first);
    Numbers sum = T(0);
    for (int64_t begin = 0; begin < level.classes && any(anchors.counts); begin += Columns<Scalar>::CLASSES) {
      Columns<Scalar> logits(anchors, level.logits, begin);
      logits.read();
      for (int64_t k = begin; k < logits.end; ++k) {
        const Numbers factor = anchors.of_label(k, T(level.positive_factor), T(level.negative_factor));
        sum = sum + factor * focal.negative_loss(anchors.as_negatives(logits.of_class(k), k));
      }
    }
    const auto known = (anchors.labels >= IGNORE) & (anchors.labels < static_cast<int32_t>(level.classes));
    anchors.store(select(known, anchors.weights * sum, Numbers(T(__builtin_nan("")))), loss);
    all_known &= all(known);
  }
  return all_known;
}

template <typename Scalar, typename Focal>
void column_gradients(
    const FocalLossLevel& level, AnchorRange range, const PerAnchor& grad, const PerClass& gradient,
    const Focal& focal) {
  using T = arithmetic_t<Scalar>;
  using Numbers = typename Lanes<T>::type;
  for (int64_t first = range.begin; first < range.end; first += Lanes<T>::count) {
    const AnchorPack<Scalar> anchors(level, range, first);
    const Numbers scale = select(anchors.counts, anchors.weights * anchors.load(grad), Numbers(T(0)));
    const Numbers positive_scale = scale * Numbers(-T(level.positive_factor));
    const Numbers negative_scale = scale * Numbers(T(level.negative_factor));
    for (int64_t begin = 0; begin < level.classes; begin += Columns<Scalar>::CLASSES) {
      Columns<Scalar> logits(anchors, level.logits, begin);
      Columns<Scalar> gradients(anchors, gradient, begin);
      if (any(anchors.counts)) {
        logits.read();
      }
      for (int64_t k = begin; k < logits.end; ++k) {
        Numbers slopes = T(0);
        if (any(anchors.counts)) {
          const Numbers factor = anchors.of_label(k, positive_scale, negative_scale);
          slopes = factor * focal.negative_slope(anchors.as_negatives(logits.of_class(k), k));
        }
        store_lanes(slopes, gradients.of_class(k));
      }
      gradients.write();
    }
  }
}

}  // namespace CPU_LEVEL
}  // namespace detkit

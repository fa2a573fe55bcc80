// The hot loops of the focal loss on a CPU, compiled once for each instruction set.
//
// Where the classes of an anchor lie side by side and fill a register, anchors are taken one by one, from memory to the
// result in registers alone. Any other layout, and fewer classes, are taken a tile of anchors at a time: gathered in
// the first-level cache, put through the formula as one long vector, and then summed or scattered. Anchors that do not
// count cost nothing.
#include "../pack.h"
#include "focal_loss.h"
#include "focal_loss_kernels.h"

namespace detkit {
inline namespace CPU_LEVEL {
namespace {

// Whether every logit of an anchor is below EASY_LOGIT, so that the short formulas hold. It is asked of whole anchors:
// among mixed logits, a branch for each pack would be mispredicted too often.
template <typename Scalar>
bool easy(const Scalar* logits, int64_t classes) {
  Pack::Bits below = Pack::Bits{} - 1;
  int64_t k = 0;
  if constexpr (std::is_same_v<Scalar, BFloat16>) {
    for (; k + 2 * Pack::size <= classes; k += 2 * Pack::size) {
      const PackPair pair = load_pair(logits + k);
      below &= (pair.even < Pack(EASY_LOGIT)) & (pair.odd < Pack(EASY_LOGIT));
    }
  }
  for (; k + Pack::size <= classes; k += Pack::size) {
    below &= load_lanes(logits + k) < Pack(EASY_LOGIT);
  }
  if (k < classes) {
    below &= load_lanes(logits + classes - Pack::size) < Pack(EASY_LOGIT);
  }
  return all(below);
}

// How the loops treat an anchor. In place, all its logits have the same formula: it is background, easy_in_place where
// every logit is below EASY_LOGIT.
enum class Kind { skipped, easy_in_place, in_place, gathered };

// The anchors of one image and level, with their types.
template <typename Scalar>
struct Anchors {
  using T = arithmetic_t<Scalar>;
  static constexpr int64_t LANES = Lanes<T>::count;

  const FocalLossLevel& level;
  int64_t image;
  bool has_easy_form;
  T* widened;  // a tile of logits, and
  T* results;  // of what comes of them

  Anchors(const FocalLossLevel& level, int64_t image, bool has_easy_form, void* scratch)
      : level(level),
        image(image),
        has_easy_form(has_easy_form),
        widened(static_cast<T*>(scratch)),
        results(widened + focal_loss_tile(level.classes)) {}

  int32_t label(int64_t anchor) const {
    return at<const int32_t>(level.labels, image, anchor);
  }

  bool positive(int64_t anchor) const {
    return label(anchor) >= 0 && label(anchor) < level.classes;
  }

  T weight(int64_t anchor) const {
    return anchor_weight<T>(level, label(anchor), image, anchor);
  }

  const Scalar* logits(int64_t anchor) const {
    return row<Scalar>(level.logits, image, anchor);
  }

  Kind kind(int64_t anchor) const {
    if (weight(anchor) == T(0)) {
      return Kind::skipped;
    }
    if (positive(anchor) || level.logits.class_stride != 1 || level.classes < LANES) {
      return Kind::gathered;
    }
    if constexpr (std::is_same_v<T, float>) {
      if (has_easy_form && easy(logits(anchor), level.classes)) {
        return Kind::easy_in_place;
      }
    }
    return Kind::in_place;
  }

  // Calls function(run, kind) for all anchors of a range, a run being neighbours of one kind that fit into a tile.
  template <typename Function>
  void for_each_run(AnchorRange range, const Function& function) const {
    // One less than there is room for, because what follows the last anchor in its last pack is written too.
    const int64_t most = focal_loss_tile(level.classes) / (level.classes > 0 ? level.classes : 1) - 1;
    Kind next = range.begin < range.end ? kind(range.begin) : Kind::skipped;
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      const Kind wanted = next;
      const int64_t limit = range.end - begin < most ? range.end : begin + most;
      end = begin + 1;
      while (end < range.end && (next = kind(end)) == wanted && end < limit) {
        ++end;
      }
      function(AnchorRange{range.image, begin, end}, wanted);
    }
  }

  // Fills `widened` with the logits of a run, one anchor's after another's, and `results` with formula(logit).
  template <typename Formula>
  void gather(AnchorRange run, const Formula& formula) const {
    T* next = widened;
    for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
      const Scalar* values = logits(anchor);
      for (int64_t k = 0; k < level.classes; ++k) {
        *next++ = widen(values[k * level.logits.class_stride]);
      }
    }
    for (int64_t i = 0; i < next - widened; i += LANES) {
      store_lanes(formula(load_lanes(widened + i)), results + i);
    }
  }
};

// formula of one number, by the same code as of many.
template <typename T, typename Formula>
T of_one(const Formula& formula, T logit) {
  T lanes[Lanes<T>::count];
  store_lanes(formula(typename Lanes<T>::type(logit)), lanes);
  return lanes[0];
}

template <typename Scalar, typename Formula, typename T = arithmetic_t<Scalar>>
T sum_in_place(const Scalar* logits, int64_t classes, const Formula& formula) {
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

template <typename Scalar, typename Focal>
void gathered_losses(const Anchors<Scalar>& anchors, AnchorRange run, const Focal& focal, const PerAnchor& loss) {
  using T = arithmetic_t<Scalar>;
  const FocalLossLevel& level = anchors.level;
  anchors.gather(run, [&](auto logit) { return focal.negative_loss(logit); });
  T* losses = anchors.results;
  for (int64_t anchor = run.begin; anchor < run.end; ++anchor, losses += level.classes) {
    T positive = 0;
    if (anchors.positive(anchor)) {
      const int32_t label = anchors.label(anchor);
      const T logit = anchors.widened[losses - anchors.results + label];
      positive = of_one([&](auto x) { return focal.positive_loss(x); }, logit);
      losses[label] = 0;
    }
    T negative = 0;
#pragma omp simd reduction(+ : negative)
    for (int64_t k = 0; k < level.classes; ++k) {
      negative += losses[k];
    }
    at<T>(loss, run.image, anchor) = anchors.weight(anchor) *
        (T(level.positive_factor) * positive + T(level.negative_factor) * negative);
  }
}

template <typename Scalar, typename Formula>
void losses_in_place(const Anchors<Scalar>& anchors, AnchorRange run, const Formula& formula, const PerAnchor& loss) {
  using T = arithmetic_t<Scalar>;
  for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
    const T scale = anchors.weight(anchor) * T(anchors.level.negative_factor);
    at<T>(loss, run.image, anchor) = scale * sum_in_place(anchors.logits(anchor), anchors.level.classes, formula);
  }
}

template <typename Scalar, typename Focal>
void run_losses(
    const Anchors<Scalar>& anchors, AnchorRange run, Kind kind, const Focal& focal, const PerAnchor& loss) {
  switch (kind) {
    case Kind::easy_in_place:
      if constexpr (Focal::has_easy_form) {
        losses_in_place(anchors, run, [&](auto logit) { return focal.easy_loss(logit); }, loss);
      }
      break;
    case Kind::in_place:
      losses_in_place(anchors, run, [&](auto logit) { return focal.negative_loss(logit); }, loss);
      break;
    case Kind::gathered:
      gathered_losses(anchors, run, focal, loss);
      break;
    case Kind::skipped:
      for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
        at<arithmetic_t<Scalar>>(loss, run.image, anchor) = 0;
      }
  }
}

// Makes the loss of labels that are none NaN; false if there are any.
template <typename Scalar>
bool mark_unknown_labels(const Anchors<Scalar>& anchors, AnchorRange range, const PerAnchor& loss) {
  bool known = true;
  for (int64_t anchor = range.begin; anchor < range.end; ++anchor) {
    if (!known_label(anchors.label(anchor), anchors.level.classes)) {
      at<arithmetic_t<Scalar>>(loss, range.image, anchor) = __builtin_nan("");
      known = false;
    }
  }
  return known;
}

// Where gradients come from and go to.
struct Gradients {
  const PerAnchor& grad;
  const PerClass& gradient;
};

// gradient[k] = scale * formula(logits[k])
template <typename Scalar, typename Formula, typename T>
void scale_in_place(const Scalar* logits, int64_t classes, T scale, const Formula& formula, Scalar* gradient) {
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

template <typename Scalar, typename Focal>
void gathered_gradients(const Anchors<Scalar>& anchors, AnchorRange run, const Focal& focal, Gradients to) {
  using T = arithmetic_t<Scalar>;
  const FocalLossLevel& level = anchors.level;
  anchors.gather(run, [&](auto logit) { return focal.negative_slope(logit); });
  const T* slopes = anchors.results;
  for (int64_t anchor = run.begin; anchor < run.end; ++anchor, slopes += level.classes) {
    Scalar* gradient = row<Scalar>(to.gradient, run.image, anchor);
    const T scale = anchors.weight(anchor) * at<const T>(to.grad, run.image, anchor);
    for (int64_t k = 0; k < level.classes; ++k) {
      narrow(scale * T(level.negative_factor) * slopes[k], gradient[k * to.gradient.class_stride]);
    }
    if (anchors.positive(anchor)) {
      const int32_t label = anchors.label(anchor);
      const T logit = anchors.widened[slopes - anchors.results + label];
      const T slope = of_one([&](auto x) { return focal.positive_slope(x); }, logit);
      narrow(scale * T(level.positive_factor) * slope, gradient[label * to.gradient.class_stride]);
    }
  }
}

template <typename Scalar, typename Formula>
void gradients_in_place(const Anchors<Scalar>& anchors, AnchorRange run, const Formula& formula, Gradients to) {
  using T = arithmetic_t<Scalar>;
  for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
    const T scale =
        anchors.weight(anchor) * T(anchors.level.negative_factor) * at<const T>(to.grad, run.image, anchor);
    Scalar* gradient = row<Scalar>(to.gradient, run.image, anchor);
    scale_in_place(anchors.logits(anchor), anchors.level.classes, scale, formula, gradient);
  }
}

template <typename Scalar, typename Focal>
void run_gradients(
    const Anchors<Scalar>& anchors, AnchorRange run, Kind kind, const Focal& focal, Gradients to) {
  switch (to.gradient.class_stride == 1 || kind == Kind::skipped ? kind : Kind::gathered) {
    case Kind::easy_in_place:
      if constexpr (Focal::has_easy_form && std::is_same_v<Scalar, BFloat16>) {
        gradients_in_place(anchors, run, [&](auto logit) { return focal.coarse_slope(logit); }, to);
      } else if constexpr (Focal::has_easy_form) {
        gradients_in_place(anchors, run, [&](auto logit) { return focal.easy_slope(logit); }, to);
      }
      break;
    case Kind::in_place:
      gradients_in_place(anchors, run, [&](auto logit) { return focal.negative_slope(logit); }, to);
      break;
    case Kind::gathered:
      gathered_gradients(anchors, run, focal, to);
      break;
    case Kind::skipped:
      for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
        Scalar* gradient = row<Scalar>(to.gradient, run.image, anchor);
        for (int64_t k = 0; k < anchors.level.classes; ++k) {
          narrow(arithmetic_t<Scalar>(0), gradient[k * to.gradient.class_stride]);
        }
      }
  }
}

// Calls function(Anchors, formula) with the type of the logits and the formula for its arithmetic.
template <typename Function>
void with_types(const FocalLossLevel& level, int64_t image, void* scratch, const Function& function) {
  with_element_type(level.type, [&](auto scalar) {
    using Scalar = decltype(scalar);
    with_focal_loss<typename Lanes<arithmetic_t<Scalar>>::type>(level.gamma, [&](const auto& focal) {
      function(Anchors<Scalar>(level, image, focal.has_easy_form, scratch), focal);
    });
  });
}

bool range_loss(const FocalLossLevel& level, AnchorRange range, const PerAnchor& loss, void* scratch) {
  bool known = true;
  with_types(level, range.image, scratch, [&](const auto& anchors, const auto& focal) {
    anchors.for_each_run(
        range, [&](AnchorRange run, Kind kind) { run_losses(anchors, run, kind, focal, loss); });
    known = mark_unknown_labels(anchors, range, loss);
  });
  return known;
}

void range_gradient(
    const FocalLossLevel& level, AnchorRange range, const PerAnchor& grad, const PerClass& gradient, void* scratch) {
  with_types(level, range.image, scratch, [&](const auto& anchors, const auto& focal) {
    anchors.for_each_run(range, [&](AnchorRange run, Kind kind) {
      run_gradients(anchors, run, kind, focal, {grad, gradient});
    });
  });
}

}  // namespace
}  // namespace CPU_LEVEL

template <>
FocalLossKernels focal_loss_kernels<CpuLevel::CPU_LEVEL>() {
  return {&range_loss, &range_gradient};
}

}  // namespace detkit

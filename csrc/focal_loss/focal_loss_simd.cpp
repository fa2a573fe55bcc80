// The hot loops of the focal loss on a CPU, compiled once for each instruction set.
//
// Where the classes of an anchor lie side by side and fill a register, anchors are taken one by one, from memory to the
// result in registers alone. Any other layout, and fewer classes, are taken a tile of anchors at a time: gathered in the
// first-level cache, put through the formula as one long vector, and then summed or scattered. Anchors that do not count
// cost nothing.
#include "../pack.h"
#include "../scalar_types.h"
#include "focal_loss.h"
#include "focal_loss_kernels.h"

namespace detkit {
inline namespace CPU_LEVEL {
namespace {

// How the loops treat an anchor.
enum class Kind { skipped, in_place, gathered };

// The anchors of one image and level, with their types.
template <typename Scalar>
struct Anchors {
  using T = arithmetic_t<Scalar>;
  static constexpr int64_t LANES = Lanes<T>::count;

  const FocalLossLevel& level;
  int64_t image;
  T* widened;  // a tile of logits, and
  T* results;  // of what comes of them

  Anchors(const FocalLossLevel& level, int64_t image, void* scratch)
      : level(level),
        image(image),
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

  // Background alone is treated in place: there, every class has the same formula.
  Kind kind(int64_t anchor) const {
    if (weight(anchor) == T(0)) {
      return Kind::skipped;
    }
    const bool side_by_side = level.logits.class_stride == 1 && level.classes >= LANES;
    return side_by_side && !positive(anchor) ? Kind::in_place : Kind::gathered;
  }

  // The end of the anchors from `begin` on that are of its kind, at most a tile of them.
  int64_t end_of_run(int64_t begin, int64_t end) const {
    const int64_t most = focal_loss_tile(level.classes) / (level.classes > 0 ? level.classes : 1) - 1;
    const int64_t limit = end - begin < most ? end : begin + most;
    const Kind wanted = kind(begin);
    int64_t anchor = begin + 1;
    while (anchor < limit && kind(anchor) == wanted) {
      ++anchor;
    }
    return anchor;
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

// Calls function(start) for every pack of the classes of an anchor; the last starts earlier where they don't divide.
template <typename T, typename Function>
void for_each_pack(int64_t classes, const Function& function) {
  constexpr int64_t lanes = Lanes<T>::count;
  int64_t k = 0;
  for (; k + lanes <= classes; k += lanes) {
    function(k);
  }
  if (k < classes) {
    function(classes - lanes);
  }
}

// Whether every logit of an anchor is below EASY_LOGIT, so that the short formulas hold. It is asked for all together:
// among mixed logits, a branch for each pack would be mispredicted too often.
template <typename Scalar>
bool easy(const Scalar* logits, int64_t classes) {
  Pack::Bits below = Pack::Bits{} - 1;
  for_each_pack<float>(classes, [&](int64_t k) { below &= load_lanes(logits + k) < Pack(EASY_LOGIT); });
  return all(below);
}

template <typename Scalar, typename Formula, typename T = arithmetic_t<Scalar>>
T sum_in_place(const Scalar* logits, int64_t classes, const Formula& formula) {
  constexpr int64_t lanes = Lanes<T>::count;
  auto total = typename Lanes<T>::type(T(0));
  int64_t k = 0;
  for (; k + lanes <= classes; k += lanes) {
    total = total + formula(load_lanes(logits + k));
  }
  if (k < classes) {
    total = total + last_lanes(formula(load_lanes(logits + classes - lanes)), classes - k);
  }
  return sum_lanes(total);
}

template <typename Scalar, typename Focal, typename T = arithmetic_t<Scalar>>
T loss_in_place(const Scalar* logits, int64_t classes, const Focal& focal) {
  if constexpr (Focal::has_easy_form) {
    if (easy(logits, classes)) {
      return sum_in_place(logits, classes, [&](auto logit) { return focal.easy_loss(logit); });
    }
  }
  return sum_in_place(logits, classes, [&](auto logit) { return focal.negative_loss(logit); });
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

template <typename Scalar, typename Focal>
void run_losses(const Anchors<Scalar>& anchors, AnchorRange run, const Focal& focal, const PerAnchor& loss) {
  using T = arithmetic_t<Scalar>;
  const Kind kind = anchors.kind(run.begin);
  if (kind == Kind::gathered) {
    return gathered_losses(anchors, run, focal, loss);
  }
  for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
    T& result = at<T>(loss, run.image, anchor);
    if (kind == Kind::skipped) {
      result = T(0);
    } else {
      const T scale = anchors.weight(anchor) * T(anchors.level.negative_factor);
      result = scale * loss_in_place(anchors.logits(anchor), anchors.level.classes, focal);
    }
  }
}

template <typename Scalar, typename Focal>
bool all_losses(const Anchors<Scalar>& anchors, AnchorRange range, const Focal& focal, const PerAnchor& loss) {
  for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
    end = anchors.end_of_run(begin, range.end);
    run_losses(anchors, {range.image, begin, end}, focal, loss);
  }
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

template <typename Scalar, typename Focal, typename T = arithmetic_t<Scalar>>
void gradient_in_place(const Scalar* logits, int64_t classes, T scale, const Focal& focal, Scalar* gradient) {
  const auto factor = typename Lanes<T>::type(scale);
  if constexpr (Focal::has_easy_form) {
    if (easy(logits, classes)) {
      return for_each_pack<T>(classes, [&](int64_t k) {
        store_lanes(factor * focal.easy_slope(load_lanes(logits + k)), gradient + k);
      });
    }
  }
  for_each_pack<T>(classes, [&](int64_t k) {
    store_lanes(factor * focal.negative_slope(load_lanes(logits + k)), gradient + k);
  });
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

template <typename Scalar, typename Focal>
void run_gradients(const Anchors<Scalar>& anchors, AnchorRange run, const Focal& focal, Gradients to) {
  using T = arithmetic_t<Scalar>;
  const FocalLossLevel& level = anchors.level;
  const Kind kind = anchors.kind(run.begin);
  if (kind == Kind::gathered || (kind == Kind::in_place && to.gradient.class_stride != 1)) {
    return gathered_gradients(anchors, run, focal, to);
  }
  for (int64_t anchor = run.begin; anchor < run.end; ++anchor) {
    Scalar* gradient = row<Scalar>(to.gradient, run.image, anchor);
    if (kind == Kind::in_place) {
      const T scale =
          anchors.weight(anchor) * T(level.negative_factor) * at<const T>(to.grad, run.image, anchor);
      gradient_in_place(anchors.logits(anchor), level.classes, scale, focal, gradient);
    } else {
      for (int64_t k = 0; k < level.classes; ++k) {
        narrow(T(0), gradient[k * to.gradient.class_stride]);
      }
    }
  }
}

template <typename Function>
void with_element_type(ElementType type, const Function& function) {
  switch (type) {
    case ElementType::float64:
      return function(double());
    case ElementType::float32:
      return function(float());
    case ElementType::bfloat16:
      return function(BFloat16());
    case ElementType::float16:
      return function(Half());
  }
}

// Calls function(Anchors, formula) with the type of the logits and the formula for its arithmetic.
template <typename Function>
void with_types(const FocalLossLevel& level, int64_t image, void* scratch, const Function& function) {
  with_element_type(level.type, [&](auto scalar) {
    using Scalar = decltype(scalar);
    with_focal_loss<typename Lanes<arithmetic_t<Scalar>>::type>(level.gamma, [&](const auto& focal) {
      function(Anchors<Scalar>(level, image, scratch), focal);
    });
  });
}

bool range_loss(const FocalLossLevel& level, AnchorRange range, const PerAnchor& loss, void* scratch) {
  bool known = true;
  with_types(level, range.image, scratch, [&](const auto& anchors, const auto& focal) {
    known = all_losses(anchors, range, focal, loss);
  });
  return known;
}

void range_gradient(
    const FocalLossLevel& level, AnchorRange range, const PerAnchor& grad, const PerClass& gradient, void* scratch) {
  with_types(level, range.image, scratch, [&](const auto& anchors, const auto& focal) {
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      end = anchors.end_of_run(begin, range.end);
      run_gradients(anchors, {range.image, begin, end}, focal, {grad, gradient});
    }
  });
}

}  // namespace
}  // namespace CPU_LEVEL

template <>
FocalLossKernels focal_loss_kernels<CpuLevel::CPU_LEVEL>() {
  return {&range_loss, &range_gradient};
}

}  // namespace detkit
